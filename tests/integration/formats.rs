//! Data as people have them: every format gives the items of the JSON lines, conversations have their loss on the answers
//! alone, and what does not fit is refused at the start.

use super::golden::folder;
use super::train::{config, fails, log, numbers, trained};
use limber::config as configs;
use limber::model::Model;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// The items of `tests/golden/train`: file name and caption.
fn items() -> Vec<(String, String)> {
    let text = fs::read_to_string(folder("train/data.jsonl")).unwrap();
    let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    entries
        .map(|v| (v["image"].as_str().unwrap()[9..].to_string(), v["caption"].as_str().unwrap().to_string()))
        .collect()
}

fn lines(entries: impl Iterator<Item = Value>) -> String {
    entries.map(|entry| format!("{entry}\n")).collect()
}

/// Trains three steps on each of `sets` (name and settings of the section `data`); all must be the run on JSON lines.
fn equal(at: &Path, more: &[(&str, Value)], sets: &[(&str, Vec<(&str, Value)>)]) {
    let run = |name: &str, data: &[(&str, Value)]| {
        let output = at.join(name);
        let steps = [("/train/steps", json!(3))];
        trained(&config(&output, &[&steps, more, data].concat()), &[]);
        numbers(&output)
    };
    let expected = run("reference", &[]);
    assert_eq!(expected.len(), 3);
    for (name, data) in sets {
        assert_eq!(run(name, data), expected, "{name}");
    }
}

fn set<'a>(format: &str, path: &Path, more: &[(&'a str, Value)]) -> Vec<(&'a str, Value)> {
    [&[("/data/format", json!(format)), ("/data/path", json!(path))], more].concat()
}

#[test]
fn every_format_gives_the_items_of_the_lines() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let (items, features) = (items(), folder("train/features"));
    // Names in other lists, images elsewhere.
    fs::write(at("named.jsonl"), lines(items.iter().map(|(i, c)| json!({"file_name": i, "text": c})))).unwrap();
    fs::write(at("own.jsonl"), lines(items.iter().map(|(i, c)| json!({"pic": i, "alt": [c], "text": "no"})))).unwrap();
    // Hugging Face's folders, the split below.
    for (name, metadata) in [
        ("lines/train", ("metadata.jsonl", lines(items.iter().map(|(i, c)| json!({"file_name": i, "text": c}))))),
        (
            "table",
            ("metadata.csv", items.iter().fold("file_name,text\n".into(), |all, (i, c)| format!("{all}{i},{c}\n"))),
        ),
    ] {
        fs::create_dir_all(at(name)).unwrap();
        fs::write(at(name).join(metadata.0), metadata.1).unwrap();
        items.iter().for_each(|(i, _)| assert!(fs::copy(features.join(i), at(name).join(i)).unwrap() > 0));
    }
    // LLaVA's, as a list and as lines; one entry has no image.
    let talk = |(i, c): &(String, String)| {
        let turns = json!([{"from": "human", "value": "<image>"}, {"from": "gpt", "value": c}]);
        json!({"id": i, "image": i, "conversations": turns})
    };
    let mut list: Vec<Value> = items.iter().map(talk).collect();
    list.insert(
        3,
        json!({"id": "text", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}),
    );
    fs::write(at("llava.json"), serde_json::to_string_pretty(&list).unwrap()).unwrap();
    fs::write(at("llava.jsonl"), lines(list.into_iter())).unwrap();
    // COCO's with texts and numbers of many digits as ids, in the lines' order.
    let id = |n: usize| if n < 7 { json!(n) } else { json!(format!("x/{n:02}")) };
    let images: Vec<Value> = items.iter().enumerate().map(|(n, (i, _))| json!({"id": id(n), "file_name": i})).collect();
    let notes: Vec<Value> = items
        .iter()
        .enumerate()
        .map(|(n, (_, c))| json!({"image_id": id(n).as_u64().map_or(id(n), |n| json!(n.to_string())), "caption": c}))
        .collect();
    fs::write(at("coco.json"), json!({"images": images, "annotations": notes}).to_string()).unwrap();
    let huge = |n: usize| format!("98765432109876543210987{n:02}");
    let images: Vec<String> =
        items.iter().enumerate().map(|(n, (i, _))| format!("{{\"id\": {}, \"file_name\": {i:?}}}", huge(n))).collect();
    let notes: Vec<String> = items
        .iter()
        .enumerate()
        .map(|(n, (_, c))| format!("{{\"image_id\": {}, \"caption\": {c:?}}}", huge(n)))
        .collect();
    let text = format!("{{\"images\": [{}], \"annotations\": [{}]}}", images.join(","), notes.join(","));
    fs::write(at("huge.json"), text).unwrap();

    let there = [("/data/images", json!(features))];
    let own = [("/data/image_column", json!("pic")), ("/data/caption_column", json!("alt"))];
    let hub = [("/data/image_column", json!("picture")), ("/data/caption_column", json!("blip_caption"))];
    let parquet = |name: &str| folder("parquet").join(name);
    equal(
        temp.path(),
        &[],
        &[
            ("named", set("jsonl", &at("named.jsonl"), &there)),
            ("own", set("jsonl", &at("own.jsonl"), &[&there[..], &own].concat())),
            ("folder", set("imagefolder", &at("lines"), &[])),
            ("folder-csv", set("imagefolder", &at("table"), &[])),
            ("llava", set("llava", &at("llava.json"), &there)),
            ("llava-lines", set("llava", &at("llava.jsonl"), &there)),
            ("coco", set("coco", &at("coco.json"), &there)),
            ("coco-huge", set("coco", &at("huge.json"), &there)),
            ("parquet", set("parquet", &parquet("bytes.parquet"), &[])),
            ("parquet-folder", set("parquet", &parquet("data"), &[])),
            ("parquet-pattern", set("parquet", &parquet("data/train-*.parquet"), &[])),
            ("parquet-paths", set("parquet", &parquet("paths.parquet"), &hub)),
            ("parquet-talk", set("parquet", &parquet("talk.parquet"), &[])),
        ],
    );
    // Shuffled, with threads, from the middle of row groups: each item is the same wherever it is read from.
    let lively = [("/data/shuffle", json!(true)), ("/data/workers", json!(3)), ("/train/batch", json!(5))];
    let lively_set = set("parquet", &parquet("bytes.parquet"), &[]);
    equal(&at("lively"), &lively, &[("parquet", lively_set)]);
}

#[test]
fn a_question_is_a_prompt_and_has_no_loss() {
    let temp = tempfile::tempdir().unwrap();
    let features = folder("train/features");
    let prompt = "A picture of";
    let talk = |(i, c): (String, String)| json!({"image": i, "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": c}]});
    let marked = |(i, c): (String, String)| {
        let turns = json!([{"from": "human", "value": format!("<image>{prompt}")}, {"from": "gpt", "value": c}]);
        json!({"image": i, "conversations": turns})
    };
    let of = |name: &str, entries: Vec<Value>| {
        let path = temp.path().join(name);
        fs::write(&path, lines(entries.into_iter())).unwrap();
        path
    };
    let there = [("/data/images", json!(features))];
    // The same ids, with the same loss: a caption behind a prompt, spaced like it.
    let sets = [("marked", set("llava", &of("m.jsonl", items().into_iter().map(marked).collect()), &there))];
    equal(temp.path(), &[("/train/prompt", json!(prompt))], &sets);
    // Without a mark the image and a line break go before the question.
    let sets = [("bare", set("jsonl", &of("b.jsonl", items().into_iter().map(talk).collect()), &there))];
    equal(&temp.path().join("b"), &[("/train/prompt", json!(format!("\n{prompt}")))], &sets);
}

/// The loss of one step on one conversation, and what the model itself gives its answers: mean of -log p.
fn loss_of(at: &Path, turns: Value, before: &str, after: &[(&str, bool)]) {
    let path = at.join("talk.jsonl");
    fs::write(&path, lines([json!({"image": "03.npy", "conversations": turns})].into_iter())).unwrap();
    let more = [
        ("/data/images", json!(folder("train/features"))),
        ("/train/steps", json!(1)),
        ("/train/batch", json!(1)),
        ("/train/accumulate", json!(1)),
    ];
    let output = at.join("out");
    let _ = fs::remove_dir_all(&output);
    let file = config(&output, &set("llava", &path, &more));
    trained(&file, &[]);
    let model =
        Model::load(&configs::load(&file, &[]).unwrap().config, &limber::built_in::registry().unwrap()).unwrap();
    let input = model.input(folder("train/features/03.npy").to_str().unwrap()).unwrap();
    let prefix = model.prefix(&model.features(&[input]).unwrap()).unwrap().detach();
    let words = |text: &str| model.tokenizer().encode(text).unwrap();
    let start = match before.is_empty() {
        true => prefix,
        false => candle_core::Tensor::cat(&[&model.language().embed(&words(before)).unwrap(), &prefix], 1).unwrap(),
    };
    let (mut ids, mut learned) = (Vec::new(), Vec::new());
    for (text, is_learned) in after {
        ids.extend(words(text));
        ids.extend(is_learned.then(|| model.language().eos()[0]));
        learned.resize(ids.len(), *is_learned);
    }
    let all = model.language().score(&start, &ids).unwrap();
    let own: Vec<f32> = all.iter().zip(&learned).filter(|(_, learned)| **learned).map(|(p, _)| -p).collect();
    let line = &log(&output)[0];
    assert_eq!(line["tokens"], json!(own.len()));
    let mean = own.iter().map(|p| f64::from(*p)).sum::<f64>() / own.len() as f64;
    // One pass over a row against another with other positions: f32 sums in the same order.
    assert!((line["loss"].as_f64().unwrap() - mean).abs() < 1e-5, "{line} and {mean}");
}

#[test]
fn the_loss_of_a_conversation_is_that_of_its_answers() {
    let temp = tempfile::tempdir().unwrap();
    let turn = |from: &str, value: &str| json!({"from": from, "value": value});
    let several = json!([
        turn("human", "<image>\nwhat is it"),
        turn("gpt", "a circle"),
        turn("human", "is it red"),
        turn("gpt", "no"),
    ]);
    let after = [("\nwhat is it", false), (" a circle", true), ("is it red", false), (" no", true)];
    loss_of(temp.path(), several, "", &after);
    let behind = json!([turn("human", "what is it\n<image>"), turn("gpt", "a circle")]);
    loss_of(temp.path(), behind, "what is it\n", &[("a circle", true)]);
    let between =
        json!([turn("system", "S"), turn("human", "see <image> here"), turn("gpt", "a circle"), turn("human", "so")]);
    loss_of(temp.path(), between, "S\nsee ", &[(" here", false), (" a circle", true)]);
}

#[test]
fn what_does_not_fit_is_refused_at_the_start() {
    let temp = tempfile::tempdir().unwrap();
    let check = |name: &str, format: &str, path: PathBuf, expected: &[&str]| {
        fails(&config(&temp.path().join(name), &set(format, &path, &[])), &[], expected);
    };
    let file = |name: &str, text: &str| {
        fs::write(temp.path().join(name), text).unwrap();
        temp.path().join(name)
    };
    let expected = ["expected an image (image, image_path, ", "and a caption (caption, title, text, captions)"];
    let names = |found: &'static str| [&[found], &expected[..]].concat();
    check(
        "a",
        "jsonl",
        file("a.jsonl", "{\"img\": \"a\", \"txt\": \"b\"}\n"),
        &names("item 1: found the keys \"img\", \"txt\""),
    );
    check("b", "jsonl", file("b.jsonl", "a,b\n1,2\n"), &["b.jsonl, item 1: it is no JSON"]);
    check("c", "csv", file("c.csv", "x,y\n1,2\n"), &names("names no image and caption"));
    check("d", "llava", file("d.json", "{\"images\": []}"), &["found '{' at byte 0, expected a JSON list"]);
    check("e", "coco", file("e.json", "[]"), &["expected COCO's captions"]);
    check("f", "parquet", folder("parquet/labels.parquet"), &names("found the columns \"img\", \"label\""));
    check("g", "parquet", file("g.parquet", "PAR1 is not enough"), &["g.parquet"]);
    check("h", "imagefolder", folder("train/features"), &["found no metadata.jsonl, metadata.csv"]);
    check("i", "parquet", temp.path().join("none-*.parquet"), &["found no .parquet file"]);
    let talk = "[{\"image\": \"a\", \"conversations\": [{\"from\": \"human\", \"value\": \"Q\"}]}]";
    check("j", "llava", file("j.json", talk), &["item 1: its conversation of 1 turns has no answer"]);
    // Marks are looked for where the texts are made.
    let two = "[{\"image\": \"a\", \"conversations\": [{\"from\": \"human\", \"value\": \"<image><image>\"}, {\"from\": \"gpt\", \"value\": \"A\"}]}]";
    check("k", "llava", file("k.json", two), &["found 2 <image> marks in the questions"]);
}
