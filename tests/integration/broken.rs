//! Broken copies of small golden files, thousands of them: no panic, no endless work, no memory beyond reason.

use limber::weights::{WeightSpec, open_checkpoint};
use limber_core::WeightType;
use limber_core::weights::{Request, WeightError, WeightSource, ZEROS};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const FILES: &[&str] = &[
    "pickle/good_dict.pt",
    "pickle/good_strided.pt",
    "pickle/good_protocol4.pt",
    "pickle/good_tied.pt",
    "pickle/either_deflated.pt",
    "pickle/either_legacy.pt",
    "proj/proj_legacy.ckpt",
    "proj/proj_deepspeed.ckpt",
    "proj/proj_plain.safetensors",
];

/// A small generator, so that a failing case can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

fn golden(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(crate::ROOT).join("tests/golden").join(path)).unwrap()
}

/// Opens a file of these bytes and reads every tensor, whatever its type; says whether they were accepted.
fn survive(folder: &TempDir, path: &str, bytes: &[u8]) -> bool {
    let file = folder.path().join(Path::new(path).file_name().unwrap());
    std::fs::write(&file, bytes).unwrap();
    let started = Instant::now();
    let accepted = match open_checkpoint(&WeightSpec::Local(file.to_str().unwrap().into()), &[], Path::new("")) {
        Ok(source) => {
            for (name, shape) in source.tensors().unwrap() {
                let request = Request { name: &name, shape: &shape, init: ZEROS, dtype: WeightType::F32 };
                if let Ok(data) = source.read(&request) {
                    assert_eq!(data.shape(), shape);
                    assert_eq!(Some(data.bytes().len()), data.dtype().bytes(data.shape()));
                }
                let _ = source.stored()[&name].contiguous();
            }
            true
        }
        Err(error) => {
            let error = error.downcast::<WeightError>().unwrap();
            let WeightError::Read { message, .. } = &error else { panic!("{path}: {error}") };
            assert!(message.len() < 10_000, "{path}: {message}");
            false
        }
    };
    // Milliseconds are usual; seconds allow for a busy machine.
    assert!(started.elapsed() < Duration::from_secs(10), "{path}: {:?}", started.elapsed());
    accepted
}

#[test]
fn truncated_files_are_refused() {
    let folder = TempDir::new().unwrap();
    for path in FILES {
        let bytes = golden(path);
        for length in 0..bytes.len() {
            assert!(!survive(&folder, path, &bytes[..length]), "{path} of {length} bytes");
        }
        assert!(survive(&folder, path, &bytes), "{path}");
    }
}

/// Every file, `times` times, broken by `change`.
fn each_broken(seed: u64, times: usize, change: impl Fn(&mut Dice, &mut Vec<u8>)) {
    let folder = TempDir::new().unwrap();
    let mut dice = Dice(seed);
    for path in FILES {
        let bytes = golden(path);
        for _ in 0..times {
            let mut broken = bytes.clone();
            change(&mut dice, &mut broken);
            survive(&folder, path, &broken);
        }
    }
}

#[test]
fn flipped_bytes_never_panic() {
    each_broken(7, 5000, |dice, broken| {
        for _ in 0..1 + dice.below(3) {
            let at = dice.below(broken.len());
            broken[at] = match dice.below(3) {
                0 => dice.below(256) as u8,
                1 => broken[at] ^ (1 << dice.below(8)),
                _ => [0, 0x7f, 0x80, 0xff][dice.below(4)],
            };
        }
    });
}

#[test]
fn parts_moved_within_a_file_never_panic() {
    each_broken(11, 1000, |dice, broken| {
        let (from, to) = (dice.below(broken.len()), dice.below(broken.len()));
        let length = dice.below(64).min(broken.len() - from.max(to));
        broken.copy_within(from..from + length, to);
    });
}
