//! Broken copies of small golden files, thousands of them: no panic, no endless work, no memory beyond reason.

use super::checkpoint::{Checkpoint, Contents};
use super::folder::Folder;
use super::format;
use limber_core::WeightType;
use limber_core::weights::{Request, WeightError, WeightSource, ZEROS};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(path)).unwrap()
}

/// Opens the bytes and reads every tensor, whatever its type; says whether they were accepted.
fn survive(path: &str, bytes: Vec<u8>) -> bool {
    let started = Instant::now();
    let opened = format::read(path, Arc::new(bytes));
    let accepted = match opened {
        Ok(contents) => {
            exhaust(contents);
            true
        }
        Err(WeightError::Read { message, .. }) => {
            assert!(message.len() < 10_000, "{path}: {message}");
            false
        }
        Err(other) => panic!("{path}: {other}"),
    };
    // Milliseconds are usual; seconds allow for a busy machine.
    assert!(started.elapsed() < Duration::from_secs(10), "{path}: {:?}", started.elapsed());
    accepted
}

fn exhaust(contents: Contents) {
    let source = Checkpoint::new(Folder::embedded("broken", &[]), "file", contents);
    for (name, shape) in source.tensors().unwrap() {
        let request = Request { name: &name, shape: &shape, init: ZEROS, dtype: WeightType::F32 };
        if let Ok(data) = source.read(&request) {
            assert_eq!(data.shape(), shape);
            assert_eq!(Some(data.bytes().len()), data.dtype().bytes(data.shape()));
        }
        let _ = source.stored()[&name].contiguous();
    }
}

#[test]
fn truncated_files_are_refused() {
    for path in FILES {
        let bytes = golden(path);
        for length in 0..bytes.len() {
            assert!(!survive(path, bytes[..length].to_vec()), "{path} of {length} bytes");
        }
        assert!(survive(path, bytes), "{path}");
    }
}

/// Every file, `times` times, broken by `change`.
fn each_broken(seed: u64, times: usize, change: impl Fn(&mut Dice, &mut Vec<u8>)) {
    let mut dice = Dice(seed);
    for path in FILES {
        let bytes = golden(path);
        for _ in 0..times {
            let mut broken = bytes.clone();
            change(&mut dice, &mut broken);
            survive(path, broken);
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
