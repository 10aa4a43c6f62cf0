//! Runs of `limber train` from their start to their folder: where they start, what they keep, how they go on.

use super::golden::{folder, largest};
use super::program::contains;
use super::train::{config, fails, log, numbers, stitch, trained};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn limber(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_limber")).args(arguments).env("HF_HUB_OFFLINE", "1").output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn image() -> String {
    folder("train/features/03.npy").display().to_string()
}

/// The log-probabilities of a caption of `run`.
fn logprobs(arguments: &[&str]) -> Value {
    let output = limber(&[&["caption", "--json", "--max-tokens", "3", &image()], arguments].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["logprobs"].clone()
}

fn held() -> Value {
    json!({"format": "jsonl", "path": folder("train/data.jsonl"), "shuffle": false})
}

#[test]
fn a_run_folder_is_a_model() {
    let place = tempfile::tempdir().unwrap();
    let run = place.path().join("run");
    let validate = json!({"data": held(), "every": 5, "items": 6, "captions": 0});
    let changes = [
        ("/train/steps", json!(20)),
        ("/train/save_every", json!(5)),
        ("/train/keep", json!(9)),
        ("/train/validate", validate),
    ];
    let path = config(&run, &changes);
    trained(&path, &[]);
    let at = run.to_str().unwrap();
    let of = |stitch: &Path| {
        let set = format!("stitch.weights={}", stitch.display());
        logprobs(&["--config", path.to_str().unwrap(), "--set", &set])
    };
    assert_eq!(logprobs(&["--run", at]), of(&run.join("stitch.safetensors")));
    let tenth = logprobs(&["--run", &format!("{at}@step-10")]);
    assert_eq!(tenth, of(&run.join("checkpoints/step-00000010/stitch.safetensors")));
    assert_ne!(tenth, logprobs(&["--run", at]));
    // The best is the one of the lowest validation loss.
    let text = fs::read_to_string(run.join("validation.jsonl")).unwrap();
    let looks: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let best = looks.iter().min_by(|a, b| a["loss"].as_f64().partial_cmp(&b["loss"].as_f64()).unwrap()).unwrap();
    let kept: Value = serde_json::from_slice(&fs::read(run.join("checkpoints/best/best.json")).unwrap()).unwrap();
    assert_eq!((&kept["step"], &kept["loss"]), (&best["step"], &best["loss"]));
    assert_eq!(logprobs(&["--run", &format!("{at}@best")]), of(&run.join("checkpoints/best/stitch.safetensors")));
    // So does the library.
    let captioner = limber::Captioner::options().set("generate.max_tokens=3").run(&format!("{at}@step-10")).unwrap();
    let caption = captioner.caption(Path::new(&image())).unwrap();
    let first: Vec<f64> = caption.logprobs.iter().take(3).map(|p| f64::from(*p)).collect();
    let expected: Vec<f64> = serde_json::from_value(tenth).unwrap();
    assert!(first.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{first:?} {expected:?}");
    // Its config means the same from any folder, and the other subcommands take it too.
    let output = Command::new(env!("CARGO_BIN_EXE_limber"))
        .args(["score", "--run", "run", "--image", &image(), "--text", "a"])
        .current_dir(place.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    for (run, expected) in [
        (
            format!("{at}@step-7"),
            "the run has step-5, step-10, step-15, step-20, best; train.keep says how many are kept",
        ),
        (format!("{at}@last"), "is not allowed, expected DIR, DIR@best or DIR@step-N"),
        (String::new(), "names no folder, expected DIR, DIR@best or DIR@step-N"),
        (place.path().display().to_string(), "is no folder of a run, it has no config.yaml"),
    ] {
        let output = limber(&["caption", "--run", &run, &image()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    assert_eq!(limber(&["caption", "--run", at, "--config", "c.yaml", &image()]).status.code(), Some(2));
    // A run that has not finished is used as far as it got.
    fs::remove_file(run.join("stitch.safetensors")).unwrap();
    let output = limber(&["caption", "--run", at, "--max-tokens", "1", &image()]);
    assert!(stderr(&output).contains("has not finished; its stitch after step 20 is used"), "{}", stderr(&output));
}

#[test]
fn a_copy_of_a_run_goes_on_in_its_own_folder() {
    let place = tempfile::tempdir().unwrap();
    let (run, copy) = (place.path().join("run"), place.path().join("copy"));
    let changes = [("/train/steps", json!(5)), ("/train/schedule", json!("constant"))];
    trained(&config(&run, &changes), &[]);
    let copied = Command::new("cp").args(["-r", run.to_str().unwrap(), copy.to_str().unwrap()]).status().unwrap();
    assert!(copied.success());
    let before = fs::read(run.join("log.jsonl")).unwrap();
    let at = copy.to_str().unwrap();
    let resumed = limber(&["train", "--run", at, "--resume", "--set", "train.steps=12"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert_eq!(String::from_utf8_lossy(&resumed.stdout).trim(), copy.join("stitch.safetensors").display().to_string());
    assert!(copy.join("checkpoints/step-00000012").is_dir() && !run.join("checkpoints/step-00000012").exists());
    assert_eq!((log(&copy).len(), fs::read(run.join("log.jsonl")).unwrap() == before), (12, true));
    // Another output still takes precedence over the run's own folder.
    let other = place.path().join("other");
    let set = format!("train.output={}", other.display());
    let output = limber(&["train", "--run", at, "--set", &set, "--set", "train.steps=1"]);
    assert!(output.status.success() && other.join("stitch.safetensors").is_file(), "{}", stderr(&output));
    let output = limber(&["train", "--run", &format!("{at}@step-12"), "--resume"]);
    let expected = "--resume goes on from the newest checkpoint, but --run names one";
    assert!(output.status.code() == Some(1) && stderr(&output).contains(expected), "{}", stderr(&output));
    // As a resumed run leaves it that is killed before its end: checkpoints newer than the stitch.
    fs::copy(run.join("stitch.safetensors"), copy.join("stitch.safetensors")).unwrap();
    let output = limber(&["caption", "--run", at, "--max-tokens", "1", &image()]);
    let note = "has not finished; its stitch after step 12 is used";
    assert!(output.status.success() && stderr(&output).contains(note), "{}", stderr(&output));
}

#[test]
fn a_run_starts_where_it_is_told_to() {
    let place = tempfile::tempdir().unwrap();
    let first = |name: &str, changes: &[(&str, Value)]| {
        let output = place.path().join(name);
        let mut all = vec![("/train/steps", json!(1)), ("/train/lr", json!(0.0))];
        all.extend_from_slice(changes);
        trained(&config(&output, &all), &[]);
        (stitch(&output), log(&output)[0]["loss"].as_f64().unwrap())
    };
    let start = candle_core::safetensors::load(folder("train/start.safetensors"), &candle_core::Device::Cpu).unwrap();
    let same = |a: &std::collections::HashMap<String, candle_core::Tensor>| {
        ["weight", "bias"].iter().all(|name| largest(&a[*name], &start[*name]) == 0.0)
    };
    // A learning rate of 0 keeps the start. The default is the stitch that is named.
    assert!(same(&first("stitch", &[]).0));
    let (random, loss) = first("random", &[("/train/start", json!("random"))]);
    assert!(!same(&random));
    let nowhere = json!(place.path().join("no.safetensors"));
    assert_eq!(first("nowhere", &[("/train/start", json!("random")), ("/stitch/weights", nowhere.clone())]).1, loss);
    assert_eq!(first("none", &[("/stitch/weights", Value::Null)]).1, loss);
    let path = config(&place.path().join("missing"), &[("/stitch/weights", nowhere)]);
    fails(&path, &[], &["section \"stitch\", key \"weights\": there is no file or folder", "no.safetensors"]);
    // A fit is what `limber fit` solves.
    let (fitted, _) = first("fit", &[("/train/start", json!("fit"))]);
    let out = place.path().join("fitted.safetensors");
    let output = limber(&["fit", "--config", path.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    let solved = candle_core::safetensors::load(&out, &candle_core::Device::Cpu).unwrap();
    for name in ["weight", "bias"] {
        assert_eq!(largest(&fitted[name], &solved[name]), 0.0, "{name}");
    }
    let path =
        config(&place.path().join("mlp"), &[("/train/start", json!("fit")), ("/stitch", json!({"kind": "mlp"}))]);
    fails(&path, &[], &["train.start: fit", "expected the kind \"linear\""]);
}

#[test]
fn standardised_features_are_folded_into_the_file() {
    let place = tempfile::tempdir().unwrap();
    let changes = |more: &[(&'static str, Value)]| {
        let mut all = super::train::lively();
        all.extend([("/train/standardise", json!(true)), ("/train/match_norm", json!(true))]);
        all.extend([("/train/keep", json!(9)), ("/train/save_every", json!(7))]);
        all.extend_from_slice(more);
        all
    };
    // With a learning rate of 0 a stitch that is named stays what it was, up to rounding.
    let kept = place.path().join("kept");
    let start = folder("train/start.safetensors");
    trained(&config(&kept, &changes(&[("/train/lr", json!(0.0)), ("/stitch/weights", json!(start))])), &[]);
    let before = candle_core::safetensors::load(&start, &candle_core::Device::Cpu).unwrap();
    for name in ["weight", "bias"] {
        // Twice rounded to f32, values below 1.
        assert!(largest(&stitch(&kept)[name], &before[name]) < 1e-5, "{name}");
    }
    // The validation loss of the run is that of its file without any of this.
    let whole = place.path().join("whole");
    let validate = json!({"data": held(), "every": 100, "items": 9, "captions": 0});
    let path = config(&whole, &changes(&[("/train/validate", validate.clone())]));
    trained(&path, &[]);
    let again = place.path().join("again");
    let plain = [
        ("/stitch/weights", json!(whole.join("stitch.safetensors"))),
        ("/train/steps", json!(1)),
        ("/train/lr", json!(0.0)),
        ("/train/validate", validate),
    ];
    trained(&config(&again, &plain), &[]);
    let look = |output: &Path, at: usize| {
        let text = fs::read_to_string(output.join("validation.jsonl")).unwrap();
        serde_json::from_str::<Value>(text.lines().nth(at).unwrap()).unwrap()["loss"].as_f64().unwrap()
    };
    let (own, other) = (look(&whole, 1), look(&again, 0));
    // Folding rounds to f32.
    assert!((own - other).abs() < 1e-4, "{own} {other}");
    // A run in pieces is the run in one.
    let bytes = fs::read(whole.join("stitch.safetensors")).unwrap();
    let lines = numbers(&whole);
    fs::remove_file(whole.join("stitch.safetensors")).unwrap();
    for step in [23, 21] {
        fs::remove_dir_all(whole.join(format!("checkpoints/step-{step:08}"))).unwrap();
    }
    trained(&path, &["--resume"]);
    assert!(fs::read(whole.join("stitch.safetensors")).unwrap() == bytes);
    assert_eq!(numbers(&whole), lines);
}

#[test]
fn a_prompt_lies_between_prefix_and_caption() {
    let place = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(folder("train/data.jsonl")).unwrap();
    let spaced = place.path().join("spaced.jsonl");
    let text = text.replace("features/", &format!("{}/", folder("train/features").display()));
    fs::write(&spaced, text.replace("\"caption\": \"", "\"caption\": \" ")).unwrap();
    let first = |name: &str, changes: &[(&str, Value)]| {
        let output = place.path().join(name);
        trained(&config(&output, &[&[("/train/steps", json!(1))], changes].concat()), &[]);
        (log(&output)[0]["loss"].as_f64().unwrap(), log(&output)[0]["tokens"].clone())
    };
    let asked = ("/train/prompt", json!("A picture of"));
    let with_spaces = ("/data/path", json!(spaced));
    let (plain, tokens) = first("plain", std::slice::from_ref(&with_spaces));
    let after = first("after", &[asked.clone(), with_spaces]);
    // The prompt has no targets of its own, and changes what the caption's are worth.
    assert_eq!(after.1, tokens);
    assert!((after.0 - plain).abs() > 1e-3, "{plain} {}", after.0);
    // A caption behind it begins with a space, whether the data have one or not.
    assert_eq!(first("spaced", &[asked]), after);
    let output = place.path().join("other");
    let path = config(&output, &[("/train/steps", json!(1)), ("/train/prompt", json!("Q:"))]);
    let told = limber(&["train", "--config", path.to_str().unwrap()]);
    let expected =
        "the stitch learns captions after \"Q:\" (train.prompt) and is asked for them after \"A picture of\" (prompt)";
    assert!(stderr(&told).contains(expected), "{}", stderr(&told));
}

#[test]
fn a_run_tells_what_it_is_and_warns() {
    let place = tempfile::tempdir().unwrap();
    let path = config(&place.path().join("run"), &[("/train/steps", json!(4)), ("/train/warmup", json!(4))]);
    let told = limber(&["train", "--config", path.to_str().unwrap()]);
    let message = stderr(&told);
    let expected = [
        " items, 4 steps of 6 samples (",
        "step 1/4: under way\n",
        " epochs); 800 parameters trained; about 0.0 GB of memory; prefix norm ",
        ", word norm ",
        "note: the warm-up of 4 steps (train.warmup) is not shorter than the run of 4 steps (train.steps)",
    ];
    contains(&message, &expected);
    // A start at the words' norm, on features as they are and standardised.
    for (name, standardise) in [("norm", false), ("both", true)] {
        let changes = [
            ("/train/steps", json!(1)),
            ("/train/start", json!("random")),
            ("/train/match_norm", json!(true)),
            ("/train/standardise", json!(standardise)),
        ];
        let path = config(&place.path().join(name), &changes);
        let message = stderr(&limber(&["train", "--config", path.to_str().unwrap()]));
        let norm = |what: &str| {
            let text = message.split_once(&format!("{what} norm ")).unwrap().1;
            text.split([',', '\n']).next().unwrap().parse::<f64>().unwrap()
        };
        assert!((norm("prefix") - norm("word")).abs() <= 0.01 && norm("word") > 0.1, "{message}");
    }
}

#[test]
fn a_run_goes_on_with_more_steps_where_its_schedule_allows_it() {
    let place = tempfile::tempdir().unwrap();
    let run = |name: &str, schedule: &str, steps: usize| {
        let output = place.path().join(name);
        let changes = [("/train/steps", json!(steps)), ("/train/schedule", json!(schedule))];
        (config(&output, &changes), output)
    };
    for schedule in ["constant", "warmup"] {
        let (path, whole) = run(&format!("whole-{schedule}"), schedule, 12);
        trained(&path, &[]);
        let (path, pieces) = run(&format!("pieces-{schedule}"), schedule, 5);
        trained(&path, &[]);
        let (path, _) = run(&format!("pieces-{schedule}"), schedule, 12);
        trained(&path, &["--resume"]);
        assert_eq!(numbers(&pieces), numbers(&whole));
        assert!(
            fs::read(pieces.join("stitch.safetensors")).unwrap() == fs::read(whole.join("stitch.safetensors")).unwrap()
        );
        // Fewer than are done are no run at all.
        let (path, _) = run(&format!("pieces-{schedule}"), schedule, 3);
        fails(&path, &["--resume"], &["it stands after step 12, beyond train.steps, which is 3"]);
    }
    let (path, output) = run("decay", "cosine", 5);
    trained(&path, &[]);
    let (path, _) = run("decay", "cosine", 12);
    let expected = [
        "train.steps was 5 and is 12 now",
        "the schedule \"cosine\" spreads its decay over train.steps",
        "--set train.start=stitch",
        &format!("--set stitch.weights={}", output.join("stitch.safetensors").display()),
    ];
    fails(&path, &["--resume"], &expected);
}
