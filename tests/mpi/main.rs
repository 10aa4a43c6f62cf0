//! Training over MPI, in real processes that `mpirun` starts; built with the feature `mpi` alone.
#![allow(missing_docs, clippy::unwrap_used)]

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/golden").join(name)
}

/// A config of the golden components and data, whose micro-batches have `batch` samples.
fn config(output: &Path, batch: usize, steps: usize) -> PathBuf {
    let tree = json!({
        "encoder": {"kind": "features", "tokens": 4, "width": 24},
        "stitch": {"kind": "linear", "dropout": 0.0, "weights": golden("train/start.safetensors")},
        "decoder": {"kind": "gptj", "weights": golden("train/decoder"), "tokenizer": golden("tokenizer/json")},
        "train": {
            "steps": steps, "batch": batch, "accumulate": 2, "lr": 0.02, "warmup": 10, "clip": 0.2, "save_every": 20,
            "seed": 5, "output": output,
        },
        "data": {"format": "jsonl", "path": golden("train/data.jsonl"), "shuffle": true, "workers": 1},
        "threads": 1,
    });
    let path = output.with_extension("yaml");
    fs::write(&path, tree.to_string()).unwrap();
    path
}

/// `limber train` in `n` processes; their configs, where they differ.
fn mpirun(configs: &[&Path], n: usize, more: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    // Root and more processes than cores are what a container has.
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.args(["--oversubscribe", "--bind-to", "none"]).stdin(Stdio::null());
    for (i, config) in configs.iter().enumerate() {
        if i > 0 {
            command.arg(":");
        }
        command.args(["-n", &n.to_string(), env!("CARGO_BIN_EXE_limber"), "train", "--config"]).arg(config).args(more);
    }
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn log(output: &Path) -> Vec<Value> {
    let text = fs::read_to_string(output.join("log.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn two_processes_with_half_the_batch_give_the_losses_of_one() {
    let temp = tempfile::tempdir().unwrap();
    let (one, two) = (temp.path().join("one"), temp.path().join("two"));
    let alone = Command::new(env!("CARGO_BIN_EXE_limber"))
        .args(["train", "--config", config(&one, 4, 40).to_str().unwrap()])
        .output()
        .unwrap();
    assert!(alone.status.success(), "{}", text(&alone));
    let both = mpirun(&[&config(&two, 2, 40)], 2, &[]).output().unwrap();
    assert!(both.status.success(), "{}", text(&both));
    assert_eq!(both.stdout, format!("{}\n", two.join("stitch.safetensors").display()).as_bytes());
    let (one, lines) = (log(&one), log(&two));
    assert_eq!((one.len(), lines.len()), (40, 40));
    for (a, b) in one.iter().zip(&lines) {
        for key in ["step", "lr", "tokens", "samples"] {
            assert_eq!(a[key], b[key]);
        }
        let (a, b) = (a["loss"].as_f64().unwrap(), b["loss"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    // Cut back to the checkpoint after 20 steps, both go on from there.
    let stitch = fs::read(two.join("stitch.safetensors")).unwrap();
    let again = temp.path().join("again");
    let stopped = mpirun(&[&config(&again, 2, 40)], 2, &["--set", "train.keep=9"]).output().unwrap();
    assert!(stopped.status.success(), "{}", text(&stopped));
    fs::remove_dir_all(again.join("checkpoints/step-00000040")).unwrap();
    fs::remove_file(again.join("stitch.safetensors")).unwrap();
    let resumed = mpirun(&[&again.with_extension("yaml")], 2, &["--set", "train.keep=9", "--resume"]).output().unwrap();
    assert!(resumed.status.success(), "{}", text(&resumed));
    assert_eq!(fs::read(again.join("stitch.safetensors")).unwrap(), stitch);
    assert_eq!(log(&again).len(), 40);
}

#[test]
fn one_process_that_fails_ends_all_with_its_message() {
    let temp = tempfile::tempdir().unwrap();
    let (good, bad) = (config(&temp.path().join("a"), 2, 1_000_000), config(&temp.path().join("b"), 2, 1_000_000));
    let spoilt = fs::read_to_string(&bad).unwrap().replace("data.jsonl", "nowhere.jsonl");
    fs::write(&bad, spoilt).unwrap();
    let start = Instant::now();
    let output = mpirun(&[&good, &bad], 1, &[]).output().unwrap();
    let message = text(&output);
    assert!(!output.status.success(), "{message}");
    assert!(message.contains("error: process 1 of 2: section \"data\""), "{message}");
    assert!(message.contains("nowhere.jsonl"), "{message}");
    // The other one, which had a million steps before it, was ended.
    assert!(start.elapsed() < Duration::from_secs(60), "{message}");
}
