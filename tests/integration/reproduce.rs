//! `reproduce` at a size of seconds: every stage, going on after a stop, and a stitch that fits its real encoder.

use limber::PrefixEncoder;
use limber::built_in;
use limber::config;
use limber_reproduce::{CONDITIONS, Options, Plan, findings, reproduce};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

fn configs() -> PathBuf {
    Path::new(crate::ROOT).join("configs/world")
}

/// Far too little to learn anything.
fn plan() -> Plan {
    Plan {
        train_scenes: 20,
        held_scenes: 5,
        seeds: vec![1],
        steps: Some(2),
        shots: vec![0, 2],
        draws: 40,
        ..Plan::quick()
    }
}

fn run(out: &Path, plan: Plan, stop: bool) -> anyhow::Result<(limber_reproduce::Outcome, Vec<String>)> {
    let mut stages = Vec::new();
    let options = Options { out: out.to_path_buf(), configs: configs(), plan, stop: &AtomicBool::new(stop) };
    let outcome = reproduce(&options, &built_in::registry()?, &mut |stage| stages.push(stage.to_string()))?;
    Ok((outcome, stages))
}

#[test]
fn the_experiment_goes_through_every_stage_and_on_after_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let stopped = run(&out, plan(), true).unwrap_err().to_string();
    assert!(stopped.contains("the same command goes on"), "{stopped}");
    let (outcome, _) = run(&out, plan(), false).unwrap();

    let names: Vec<&str> = outcome.table.rows.keys().map(String::as_str).collect();
    assert!(CONDITIONS.iter().all(|c| names.contains(&c.name)) && names.contains(&"text_alone"), "{names:?}");
    for condition in &CONDITIONS {
        for score in ["CIDEr", "Bleu_4", "exact_match", "shape.f1", "colour.recall", "relation.precision", "accuracy.2"]
        {
            let value = outcome.table.get(condition.name, score).unwrap();
            assert!(value.low <= value.value && value.value <= value.high, "{}, {score}: {value:?}", condition.name);
        }
    }
    assert_eq!(outcome.findings, findings(&outcome.table));
    let report = fs::read(&outcome.report).unwrap();
    let text = String::from_utf8_lossy(&report);
    for part in ["## What holds", "## Captions", "## Questions", "## Which words", "## Samples", "files/scene-4.png"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    for file in ["report.html", "scores.json", "files/loss.svg", "files/captions.svg", "files/scene-0.png"] {
        assert!(out.join(file).is_file(), "{file}");
    }

    // What is lost is made again, and what is there is not touched.
    let kept = out.join("runs/beit/seed-1/said.json");
    let before = fs::metadata(&kept).unwrap().modified().unwrap();
    let answers = fs::read(out.join("runs/nfrn50/seed-1/said.json")).unwrap();
    fs::remove_dir_all(out.join("runs/nfrn50")).unwrap();
    fs::remove_file(&outcome.report).unwrap();
    let (again, stages) = run(&out, plan(), false).unwrap();
    assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), before);
    assert_eq!(fs::read(out.join("runs/nfrn50/seed-1/said.json")).unwrap(), answers);
    assert_eq!(fs::read(&again.report).unwrap(), report);
    assert_eq!(stages.len(), 2 + 2 * CONDITIONS.len());

    let other = run(&out, Plan { seeds: vec![2], ..plan() }, false).unwrap_err().to_string();
    assert!(other.contains("another plan") && other.contains("name another folder"), "{other}");

    a_folded_stitch_fits_its_encoder(&out);
}

/// The prefix of an image through the real encoder and the folded stitch is that of its standardised features.
fn a_folded_stitch_fits_its_encoder(out: &Path) {
    let registry = built_in::registry().unwrap();
    for (name, tokens, width) in [("clip", 16, 768), ("nfrn50", 1, 320), ("beit_random", 16, 128)] {
        let stitch =
            |file: &str| format!("stitch.weights={}", out.join(format!("runs/{name}/seed-1/{file}")).display());
        let config = configs().join(CONDITIONS.iter().find(|c| c.name == name).unwrap().config);
        let load = |sets: &[String]| {
            let config = config::load(&config, sets).unwrap().config;
            PrefixEncoder::load(&config, &registry).unwrap()
        };
        let prefix = |model: &PrefixEncoder, path: PathBuf| -> Vec<f32> {
            let input = model.preprocessor().input(path.to_str().unwrap()).unwrap();
            let features = model.vision().features(&[input]).unwrap();
            model.prefix(&features).unwrap().flatten_all().unwrap().to_vec1().unwrap()
        };
        let real = prefix(&load(&[stitch("proj.safetensors")]), out.join("world/val/images/00000/00000003.png"));
        let encoder = format!("encoder={{kind: features, tokens: {tokens}, width: {width}}}");
        let stored = load(&[encoder, stitch("stitch.safetensors")]);
        let stored = prefix(&stored, out.join(format!("features/{name}/val/000003.npy")));
        let largest = real.iter().fold(0.0f32, |a, x| a.max(x.abs()));
        let apart = real.iter().zip(&stored).fold(0.0f32, |a, (x, y)| a.max((x - y).abs()));
        // Channels that hardly move are divided by small numbers, so sums of large terms cancel.
        assert!(real.len() == 16 * 160 && apart < 2e-4 * largest, "{name}: {apart} of {largest}");
    }
}

#[test]
fn the_program_takes_a_relative_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_limber"))
        .current_dir(folder.path())
        .args(["reproduce", "--quick", "--out", "here", "--train-scenes", "8", "--held-scenes", "2", "--steps", "1"])
        .args(["--json", "--configs"])
        .arg(configs())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let result: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert!(result["scores"]["beit"]["CIDEr"]["value"].is_number(), "{result}");
    assert!(folder.path().join("here/report.md").is_file());
}

#[test]
fn a_folder_without_the_worlds_configs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        out: folder.path().join("out"),
        configs: folder.path().join("nowhere"),
        plan: plan(),
        stop: &AtomicBool::new(false),
    };
    let error = reproduce(&options, &built_in::registry().unwrap(), &mut |_| ()).unwrap_err().to_string();
    assert!(error.contains("nowhere is no folder") && error.contains("configs/world"), "{error}");
}
