//! `limber fit` against scikit-learn and numpy, and what its stitch is good for.

use super::golden::{folder, relative, tensors};
use candle_core::{Device, safetensors};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn config(temp: &Path, width: usize, changes: &[(&str, Value)]) -> PathBuf {
    let mut tree = json!({
        "encoder": {"kind": "features", "tokens": 3, "width": width},
        "stitch": {"kind": "linear", "dropout": 0.0},
        "decoder": {"kind": "gptj", "weights": folder("train/decoder"), "tokenizer": folder("tokenizer/json")},
        "train": {"steps": 4, "batch": 7, "lr": 0.0, "output": temp.join("out")},
        "data": {"format": "jsonl", "path": folder("fit").join(format!("data-{width}.jsonl")), "shuffle": false},
    });
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        tree.pointer_mut(parent).unwrap()[key] = value.clone();
    }
    let path = temp.join("c.yaml");
    fs::write(&path, tree.to_string()).unwrap();
    path
}

fn limber(arguments: &[&str], config: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_limber"))
        .args(arguments)
        .args(["--config", config.to_str().unwrap()])
        .args(more)
        .output()
        .unwrap()
}

fn message(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn the_maps_are_scikit_learns_and_numpys() {
    let expected = tensors("fit");
    let temp = tempfile::tempdir().unwrap();
    for width in [12, 40] {
        let config = config(temp.path(), width, &[]);
        for (name, flags) in [
            ("ridge-0.5", &["--lambda", "0.5"][..]),
            ("ridge-30.0", &["--lambda", "30"]),
            ("procrustes", &["--method", "procrustes"]),
        ] {
            let out = temp.path().join(format!("{name}-{width}.safetensors"));
            let output = limber(&["fit", "--json", "--out", out.to_str().unwrap()], &config, flags);
            assert!(output.status.success(), "{}", message(&output));
            let told: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!((&told["items"], &told["skipped"]), (&json!(60), &json!(0)));
            let r2 = told["r2"].as_f64().unwrap();
            assert!(r2 > 0.0 && r2 < 1.0, "{told}");
            let ours = safetensors::load(&out, &Device::Cpu).unwrap();
            for key in ["weight", "bias"] {
                let far = relative(&ours[key], &expected[&format!("{width}.{name}.{key}")]);
                // Both sides are f64 rounded to f32; the embeddings' mean alone is taken in another order.
                assert!(far < 1e-6, "{width} {name} {key}: {far}");
            }
        }
    }
}

#[test]
fn the_stitch_captions_and_starts_a_training() {
    let temp = tempfile::tempdir().unwrap();
    let path = config(temp.path(), 12, &[]);
    let out = temp.path().join("fitted.safetensors");
    let output = limber(&["fit", "--out", out.to_str().unwrap()], &path, &[]);
    assert!(output.status.success(), "{}", message(&output));
    let stitch = format!("stitch.weights={}", out.display());
    let image = folder("fit/features-12.safetensors#07");
    let said = limber(&["caption", "--max-tokens", "3", image.to_str().unwrap()], &path, &["--set", &stitch]);
    assert!(said.status.success(), "{}", message(&said));
    // A learning rate of 0 keeps the start, whichever it was.
    let trained = limber(&["train"], &path, &["--set", &stitch]);
    assert!(trained.status.success(), "{}", message(&trained));
    let end = safetensors::load(temp.path().join("out/stitch.safetensors"), &Device::Cpu).unwrap();
    for (name, value) in safetensors::load(&out, &Device::Cpu).unwrap() {
        assert_eq!(relative(&end[&name], &value), 0.0, "{name}");
    }
}

#[test]
fn one_pooled_vector_gives_every_prefix_token_the_same_map() {
    let temp = tempfile::tempdir().unwrap();
    let pooled: std::collections::HashMap<String, candle_core::Tensor> =
        safetensors::load(folder("fit/features-12.safetensors"), &Device::Cpu)
            .unwrap()
            .into_iter()
            .map(|(name, t)| (name, t.mean_keepdim(0).unwrap()))
            .collect();
    safetensors::save(&pooled, temp.path().join("features-12.safetensors")).unwrap();
    fs::copy(folder("fit/data-12.jsonl"), temp.path().join("data.jsonl")).unwrap();
    let changes = [
        ("/encoder/tokens", json!(1)),
        ("/stitch/tokens", json!(2)),
        ("/data/path", json!(temp.path().join("data.jsonl"))),
    ];
    let path = config(temp.path(), 12, &changes);
    let out = temp.path().join("f.safetensors");
    let output = limber(&["fit", "--lambda", "0.5", "--out", out.to_str().unwrap()], &path, &[]);
    assert!(output.status.success(), "{}", message(&output));
    let weight = &safetensors::load(&out, &Device::Cpu).unwrap()["weight"];
    let expected = &tensors("fit")["12.ridge-0.5.weight"];
    for half in [0, 32] {
        assert!(relative(&weight.narrow(0, half, 32).unwrap(), expected) < 1e-5);
    }
}

#[test]
fn every_wrong_fit_has_its_message() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("f.safetensors");
    let check = |width: usize, changes: &[(&str, Value)], flags: &[&str], expected: &[&str]| {
        let path = config(temp.path(), width, changes);
        let output = limber(&["fit", "--out", out.to_str().unwrap()], &path, flags);
        let message = message(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(expected.iter().all(|part| message.contains(part)), "{message}");
        assert!(!out.exists());
    };
    check(12, &[("/data", Value::Null)], &[], &["no section \"data\""]);
    check(
        12,
        &[("/stitch", json!({"kind": "mlp"}))],
        &[],
        &["a plain linear map", "\"mlp\"", "expected the kind \"linear\""],
    );
    check(12, &[("/stitch/layer_norm", json!(true))], &[], &["ln.bias, ln.weight", "without layer_norm"]);
    check(12, &[], &["--lambda=-1"], &["--lambda -1 is not allowed"]);
    // 30 items cannot determine 40 columns.
    check(
        40,
        &[],
        &["--lambda", "0", "--limit", "30"],
        &["30 items do not determine a map from 40 numbers with lambda 0"],
    );
    let data = fs::read_to_string(folder("fit/data-12.jsonl")).unwrap();
    let data = data.replace("features-12", folder("fit/features-12").to_str().unwrap()).replace("#07", "#no");
    fs::write(temp.path().join("bad.jsonl"), data).unwrap();
    let bad = ("/data/path", json!(temp.path().join("bad.jsonl")));
    check(
        12,
        &[bad.clone(), ("/data/max_skipped", json!(0.0))],
        &[],
        &["1 items of 60 could not be read", "max_skipped 0"],
    );
    let path = config(temp.path(), 12, &[bad]);
    let output = limber(&["fit", "--json", "--out", out.to_str().unwrap()], &path, &[]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["items"], &told["skipped"]), (&json!(59), &json!(1)));
}
