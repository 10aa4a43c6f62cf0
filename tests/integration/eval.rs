//! `limber eval`: prompts, predictions that survive kills, scores, manifests, and what it refuses.

use super::program::{fails, lines, stdout};
use limber::config::{self, Config};
use limber::eval::data::{Set, Task};
use limber::eval::prompts::{Options, Prompts};
use limber_world::{Split, WorldOptions, write_dataset};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A world of held-out scenes, or of those to learn from.
fn world(at: &Path, count: u64, split: Split) -> String {
    let options = WorldOptions { split, ..WorldOptions::new(count, 5, at) };
    write_dataset(&options, &mut |_| {}).unwrap();
    at.to_str().unwrap().to_string()
}

fn demo() -> Config {
    let path = Path::new(crate::ROOT).join("configs/demo.yaml");
    config::load(&path, &[]).unwrap().config
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn parsed(path: &Path) -> Vec<Value> {
    read(path).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn captions_are_those_of_caption_and_are_scored() {
    let folder = tempfile::tempdir().unwrap();
    let data = world(&folder.path().join("world"), 12, Split::Val);
    let out = folder.path().join("out");
    let arguments = ["eval", "caption", "--data", &data, "--out", out.to_str().unwrap(), "--json", "--batch", "5"];
    let scores = &lines(&arguments)[0];
    let predictions = parsed(&out.join("predictions.jsonl"));
    assert_eq!(predictions.len(), 12);
    let images: Vec<String> = (0..12).map(|i| format!("{data}/{}", limber_world::image_path(i))).collect();
    let captions =
        lines(&[&["caption", "--json"], &images.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
    for (at, (prediction, caption)) in predictions.iter().zip(&captions).enumerate() {
        assert_eq!((&prediction["id"], &prediction["text"]), (&json!(at.to_string()), &caption["text"]));
        assert_eq!(prediction["finish"], caption["finish"]);
    }
    // The demo captions its world well; without the image it cannot.
    assert!(scores["CIDEr"].as_f64().unwrap() > 1.0, "{scores}");
    let saved: Value = serde_json::from_str(&read(&out.join("scores.json"))).unwrap();
    assert_eq!(&saved, scores);
    assert_eq!(parsed(&out.join("items.jsonl")).len(), 12);
    let alone = &lines(&[
        "metrics",
        out.join("predictions.jsonl").to_str().unwrap(),
        &format!("{data}/captions.json"),
        "--json",
    ])[0];
    assert_eq!(alone["CIDEr"], scores["CIDEr"]);
    let manifest: Value = serde_json::from_str(&read(&out.join("manifest.json"))).unwrap();
    assert_eq!((&manifest["task"], &manifest["items"]), (&json!("caption"), &json!(12)));
    assert_eq!(manifest["sha256"].as_object().unwrap().len(), 1);

    for (flag, name) in [("--blind", "blind"), ("--shuffle-images", "shuffle")] {
        let out = folder.path().join(name);
        let control = &lines(&["eval", "caption", "--data", &data, "--out", out.to_str().unwrap(), "--json", flag])[0];
        assert!(control["CIDEr"].as_f64().unwrap() < scores["CIDEr"].as_f64().unwrap() - 0.5, "{flag}: {control}");
        let texts: std::collections::BTreeSet<String> =
            parsed(&out.join("predictions.jsonl")).iter().map(|p| p["text"].to_string()).collect();
        assert_eq!(texts.len() == 1, flag == "--blind", "{texts:?}");
    }
}

/// Runs the program and kills it once it has added `more` lines; whether it was killed before it was done.
fn killed(arguments: &[&str], predictions: &Path, more: usize) -> bool {
    let whole = || read(predictions).matches('\n').count();
    let before = whole();
    let mut child = Command::new(env!("CARGO_BIN_EXE_limber"))
        .args(arguments)
        .env("HF_HUB_OFFLINE", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return false;
        }
        assert!(start.elapsed() < Duration::from_secs(120));
        if whole() >= before.saturating_add(more) {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn ten_kills_and_resumes_give_the_file_of_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let data = world(&folder.path().join("world"), 120, Split::Val);
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    // Sampled texts depend on the row of the whole run that they belong to.
    let base =
        ["eval", "caption", "--data", &data, "--predict-only", "--temperature", "1", "--seed", "3", "--threads", "1"];
    let arguments = |out: &Path, more: &[&'static str]| -> Vec<String> {
        base.iter().chain(&["--out", out.to_str().unwrap()]).chain(more).map(|s| s.to_string()).collect()
    };
    let one = arguments(&whole, &["--batch", "4"]);
    stdout(&one.iter().map(String::as_str).collect::<Vec<_>>());
    let expected = read(&whole.join("predictions.jsonl"));
    assert_eq!(expected.lines().count(), 120);

    let predictions = broken.join("predictions.jsonl");
    let mut kills = 0;
    for turn in 0..60 {
        let more: &[&'static str] = if turn == 0 { &["--batch", "4"] } else { &["--batch", "2", "--resume"] };
        let arguments = arguments(&broken, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if !killed(&arguments, &predictions, if kills < 10 { 1 + turn % 3 } else { usize::MAX }) {
            break;
        }
        kills += 1;
        // What is there is never touched again; a line that a power cut left half written is dropped.
        let there = read(&predictions);
        assert!(expected.starts_with(&there[..there.rfind('\n').map_or(0, |end| end + 1)]), "after kill {kills}");
        if turn % 2 == 0 {
            let whole = &there[..there.rfind('\n').map_or(0, |end| end + 1)];
            std::fs::write(&predictions, format!("{whole}{{\"id\": \"9")).unwrap();
        }
    }
    assert!(kills >= 10, "{kills}");
    assert!(read(&predictions) == expected, "another file after {kills} kills");
}

#[test]
fn questions_are_asked_with_examples() {
    let folder = tempfile::tempdir().unwrap();
    let data = world(&folder.path().join("val"), 4, Split::Val);
    let train = world(&folder.path().join("train"), 6, Split::Train);
    let open = |path: &str| Set::open(Task::Vqa, Path::new(path), None, None).unwrap();
    let (set, examples) = (open(&data), open(&train));
    let fill =
        |options: Options, at: usize| Prompts::new(&demo(), &set, Some(&examples), options).unwrap().fill(at).unwrap();
    let question = set.items[3].question.clone().unwrap();
    let plain = fill(Options::default(), 3);
    assert_eq!((plain.text, plain.images), (format!("<image>Q: {question} A:"), vec![set.items[3].image.clone()]));

    let two = Options { shots: 2, seed: 7, ..Options::default() };
    let filled = fill(two, 3);
    let pieces: Vec<&str> = filled.text.split("<image>").collect();
    assert_eq!((pieces.len(), filled.images.len(), pieces[3]), (4, 3, format!("Q: {question} A:").as_str()));
    for (piece, image) in pieces[1..3].iter().zip(&filled.images) {
        let index = examples.items.iter().position(|item| {
            item.image == *image && piece.starts_with(&format!("Q: {} A: ", item.question.as_deref().unwrap()))
        });
        assert_eq!(
            *piece,
            format!(
                "Q: {} A: {} ",
                examples.items[index.unwrap()].question.as_deref().unwrap(),
                examples.said(index.unwrap()).unwrap()
            )
        );
    }
    // Examples are a function of seed and item; or the same for all.
    assert_eq!(fill(two, 3), filled);
    assert_ne!(fill(Options { seed: 8, ..two }, 3).text, filled.text);
    assert_ne!(fill(two, 4).images[..2], filled.images[..2]);
    let same = Options { same_examples: true, ..two };
    assert_eq!(fill(same, 3).images[..2], fill(same, 4).images[..2]);
    // The controls.
    let blind = fill(Options { blind: true, ..two }, 3);
    assert_eq!((blind.text, blind.images.len()), (filled.text.replace("<image>", ""), 0));
    let wrong = fill(Options { shuffle_images: true, ..two }, 3);
    assert_eq!((&wrong.text, &wrong.images[..2]), (&filled.text, &filled.images[..2]));
    assert_ne!(wrong.images[2], set.items[3].image);
    // An answer ends where the next question begins.
    let prompts = Prompts::new(&demo(), &set, None, Options::default()).unwrap();
    for (said, answer) in [(" red Q: What", "red"), ("\n\n two\nthree", "two"), ("yes.", "yes."), ("", "")] {
        assert_eq!(prompts.cut(said), answer);
    }

    let out = folder.path().join("out");
    let base = ["eval", "vqa", "--data", &data, "--train", &train, "--shots", "1", "--same-examples", "--json"];
    let scores = &lines(&[&base[..], &["--out", out.to_str().unwrap(), "--batch", "8"]].concat())[0];
    assert_eq!(scores["items"], set.items.len());
    assert!(scores["answer_type"]["number"]["accuracy"].is_number(), "{scores}");
    let predictions = parsed(&out.join("predictions.jsonl"));
    assert_eq!(predictions[3]["question"], question);
    // Prompts that share their examples say what each says alone.
    let alone = folder.path().join("alone");
    lines(&[&base[..], &["--out", alone.to_str().unwrap(), "--batch", "1", "--limit", "6"]].concat());
    assert_eq!(parsed(&alone.join("predictions.jsonl")), predictions[..6]);
}

#[test]
fn templates_of_the_config_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let data = world(&folder.path().join("val"), 2, Split::Val);
    let sets = [
        "eval.question=\"{question} <image> -> {answer};\"",
        "eval.separator=\"\"",
        "eval.caption=\"<image>I see {caption}.\"",
    ];
    let sets: Vec<String> = sets.map(String::from).to_vec();
    let path = Path::new(crate::ROOT).join("configs/demo.yaml");
    let config = config::load(&path, &sets).unwrap().config;
    let options = Options { shots: 1, ..Options::default() };
    for (task, ends) in [(Task::Vqa, " <image> ->"), (Task::Caption, "<image>I see")] {
        let set = Set::open(task, Path::new(&data), None, None).unwrap();
        let text = Prompts::new(&config, &set, Some(&set), options).unwrap().fill(0).unwrap().text;
        assert!(text.ends_with(ends) && text.matches("<image>").count() == 2, "{text}");
        let middle = if task == Task::Vqa { ";" } else { ".<image>I see" };
        assert!(text.contains(middle), "{text}");
    }
    fails(
        &["eval", "vqa", "--data", &data, "--out", "x", "--set", "eval.question=Q"],
        &["section \"eval\", key \"question\"", "expected {question} in it once"],
    );
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let data = world(&folder.path().join("world"), 3, Split::Val);
    let out = at("out");
    let caption = |more: &[&str], expected: &[&str]| {
        fails(&[&["eval", "caption", "--data", &data, "--out", &out], more].concat(), expected);
    };
    caption(&["--shots", "1"], &["1 examples are asked for", "no training split"]);
    caption(&["--shots", "3", "--train", &data], &["3 examples are asked for, the training split holds 3 items"]);
    caption(&["--limit", "0"], &["--limit 0 is not allowed"]);
    caption(&["--stream"], &["--stream is not allowed here"]);
    caption(&["--images", &out], &["no image \"images/00000/00000000.png\" in this folder"]);
    caption(&["--limit", "1", "--shuffle-images"], &["all items have the same image"]);
    assert!(!Path::new(&out).exists());
    stdout(&["eval", "caption", "--data", &data, "--out", &out, "--limit", "2"]);
    caption(&["--limit", "2"], &["holds predictions; --resume goes on with them, or name another folder"]);
    caption(&["--resume"], &["the predictions there were made with items 2, now it is 3"]);
    caption(
        &["--resume", "--limit", "2", "--blind"],
        &["the predictions there were made with options.blind false, now it is true"],
    );
    caption(&["--resume", "--limit", "2", "--max-tokens", "5"], &["config.generate.max_tokens 64, now it is 5"]);
    // Nothing is left to do; the batch may be another.
    stdout(&["eval", "caption", "--data", &data, "--out", &out, "--limit", "2", "--resume", "--batch", "3"]);
    let predictions = Path::new(&out).join("predictions.jsonl");
    let text = read(&predictions);
    std::fs::write(&predictions, text.replace("\"id\":\"0\"", "\"id\":\"7\"")).unwrap();
    caption(&["--resume", "--limit", "2"], &["line 1: it is of item \"7\", where the data have \"0\""]);

    let questions =
        |data: &str, expected: &[&str]| fails(&["eval", "vqa", "--data", data, "--out", &at("vqa")], expected);
    questions(&at("nowhere.json"), &["cannot read", "nowhere.json"]);
    questions(&format!("{data}/captions.json"), &["captions.json: not VQA questions"]);
    let write = |name: &str, value: Value| {
        std::fs::write(at(name), value.to_string()).unwrap();
        at(name)
    };
    let one = json!({"questions": [{"question_id": 1, "image_id": "a", "question": "Why?"}]});
    questions(&write("odd_questions.json", one), &["it is unknown which file image \"a\" is"]);
    let coco =
        json!({"data_subtype": "val2014", "questions": [{"question_id": 1, "image_id": 42, "question": "Why?"}]});
    let coco = write("v2_OpenEnded_mscoco_val2014_questions.json", coco);
    questions(
        &coco,
        &["image \"COCO_val2014_000000000042.jpg\" is in none of", "val2014", "--images names its folder"],
    );
    // Found where VQAv2's own files put it, and nothing to score against without annotations.
    std::fs::create_dir(at("val2014")).unwrap();
    std::fs::copy(format!("{data}/images/00000/00000000.png"), at("val2014/COCO_val2014_000000000042.jpg")).unwrap();
    questions(&coco, &["the data tell no answers to score against", "--predict-only"]);
    write("v2_mscoco_val2014_annotations.json", json!({"annotations": [{"question_id": 2, "answers": ["a"]}]}));
    questions(&coco, &["question \"1\" has no answers"]);
}
