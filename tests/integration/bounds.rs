//! What goes wrong in other threads, and what input may cost: a message and exit 1 in bounded memory, never a hang.

use super::golden::folder;
use super::program::{lines, scene};
use super::train::config;
use limber::VisionEncoder;
use limber::data::{Dataset, Item};
use limber::encode::{Encoding, encode};
use limber::features::manifest::{Layout, Precision};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough on any machine; a run that hangs takes for ever.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a command to its end and gives its code and what it said; one that does not end is killed and fails the test.
fn ends(command: &mut Command) -> (Option<i32>, String) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        said.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code(), reader.join().unwrap());
        }
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it hangs; until then it said {:?}", reader.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn limber(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_limber"));
    command.args(arguments).current_dir(crate::ROOT).env_remove("RAYON_NUM_THREADS");
    command
}

/// A tokenizer whose normaliser replaces nothing by something, which the crate `tokenizers` panics on.
fn panicking_tokenizer(temp: &Path) -> std::path::PathBuf {
    let text = fs::read_to_string(folder("tokenizer/json/tokenizer.json")).unwrap();
    let mut tree: Value = serde_json::from_str(&text).unwrap();
    tree["normalizer"] = json!({"type": "Replace", "pattern": {"String": ""}, "content": "x"});
    let path = temp.join("tokenizer.json");
    fs::write(&path, tree.to_string()).unwrap();
    path
}

#[test]
fn a_panic_in_a_reading_thread_ends_train_and_fit_with_its_message() {
    let temp = tempfile::tempdir().unwrap();
    let tokenizer = panicking_tokenizer(temp.path());
    for workers in [0, 2] {
        let changes = [("/decoder/tokenizer", json!(tokenizer)), ("/data/workers", json!(workers))];
        let path = config(&temp.path().join(format!("out-{workers}")), &changes);
        let (path, out) = (path.to_str().unwrap(), temp.path().join("fit.safetensors"));
        for arguments in
            [vec!["train", "--config", path], vec!["fit", "--config", path, "--out", out.to_str().unwrap()]]
        {
            let (code, said) = ends(&mut limber(&arguments));
            assert_eq!(code, Some(1), "{arguments:?}: {said}");
            assert!(said.contains("error: ") && said.contains("data.jsonl, item "), "{said}");
            assert!(said.contains("the program panicked: "), "{said}");
        }
    }
}

/// A data set whose fourth item panics.
struct Falls;

impl Dataset for Falls {
    fn len(&self) -> usize {
        50
    }
    fn name(&self, index: usize) -> String {
        format!("picture {index}")
    }
    fn item(&self, index: usize) -> anyhow::Result<Item> {
        assert!(index != 3, "a decoder fell over");
        let image = limber::data::Picture::File(Path::new(crate::ROOT).join(scene(0)));
        Ok(Item {
            name: self.name(index),
            index,
            key: format!("{index}.png"),
            image,
            captions: vec!["c".into()],
            conversation: vec![],
        })
    }
}

#[test]
fn a_panic_in_a_reading_thread_ends_the_encoding_of_a_data_set() {
    let loaded = limber::config::load_text("demo", limber_demo::CONFIG, Path::new("."), &[]).unwrap();
    let vision = VisionEncoder::load(&loaded.config, &limber::built_in::registry().unwrap()).unwrap();
    for workers in [0, 1, 3] {
        let temp = tempfile::tempdir().unwrap();
        let how = Encoding {
            folder: temp.path().to_path_buf(),
            layout: Layout::Safetensors,
            dtype: Precision::F32,
            block: 8,
            batch: 4,
            workers,
            max_skipped: 1.0,
            rank: 0,
            world: 1,
        };
        let message = encode(&vision, &Falls, &how, &mut |_, _| {}).unwrap_err().to_string();
        assert_eq!(message, "picture 3: the program panicked: a decoder fell over", "{workers} threads");
    }
}

#[test]
fn threads_that_the_system_does_not_start_are_an_error() {
    let a = scene(0);
    for (arguments, message) in [
        (vec!["caption", "--set", "threads=1000000", &a], "a whole number from 1 to 1024"),
        (vec!["caption", "--set", "threads=18446744073709551615", &a], "a whole number from 1 to 1024"),
    ] {
        let (code, said) = ends(&mut limber(&arguments));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(message), "{said}");
    }
    let (code, said) = ends(limber(&["caption", &a]).env("RAYON_NUM_THREADS", "1000000"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("RAYON_NUM_THREADS is 1000000, expected a number of threads from 1 to 1024"), "{said}");
}

/// Where 2 GB of addresses are all there are, a thousand stacks of 2 MB do not fit.
#[cfg(target_os = "linux")]
#[test]
fn a_pool_that_cannot_be_started_is_an_error() {
    // Large stacks: where one more finds no room, there is still room for what the threads that run ask for.
    let limit = "ulimit -v 2000000 && export RUST_MIN_STACK=268435456";
    let script = format!("{limit} && exec {} caption --threads 1024 {}", env!("CARGO_BIN_EXE_limber"), scene(0));
    let (code, said) = ends(Command::new("sh").args(["-c", &script]).current_dir(crate::ROOT));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot start 1024 threads: "), "{said}");
}

#[test]
fn many_threads_within_the_bound_start() {
    assert_eq!(lines(&["caption", "--json", "--threads", "64", &scene(0)]).len(), 1);
}
