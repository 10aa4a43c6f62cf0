//! Scores against the field's own scripts, and the files that `limber metrics` reads.

use super::golden::folder;
use super::program::{fails, lines, stdout};
use limber::eval::metrics::{self, Scores, ptb, vqa};
use serde_json::{Value, json};

fn read(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder(path)).unwrap()).unwrap()
}

fn texts(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Candidates and references of the golden captions.
fn captions() -> (Vec<String>, Vec<Vec<String>>) {
    let cases = read("captions/cases.json");
    let cases = cases.as_array().unwrap();
    assert!(cases.len() >= 500);
    let candidate = |case: &Value| case["candidate"].as_str().unwrap().to_string();
    (cases.iter().map(candidate).collect(), cases.iter().map(|case| texts(&case["references"])).collect())
}

/// Every item within 1e-4 and the whole likewise: the scripts sum in another order.
fn check_scores(scores: &Scores, name: &str, value: &Value, items: &Value) {
    let (_, measure) = scores.iter().find(|(other, _)| other == name).unwrap();
    let expected: Vec<f64> = serde_json::from_value(items.clone()).unwrap();
    assert_eq!(measure.len(), expected.len());
    for (i, (got, want)) in measure.items().iter().zip(&expected).enumerate() {
        assert!((got - want).abs() < 1e-4, "{name}, item {i}: {got} {want}");
    }
    let want = value.as_f64().unwrap();
    assert!((measure.value() - want).abs() < 1e-4, "{name}: {} {want}", measure.value());
}

#[test]
fn captions_are_tokenised_as_the_coco_tools_do() {
    let (candidates, references) = captions();
    let expected = read("captions/expected.json");
    for (i, item) in metrics::tokenise(&candidates, &references).iter().enumerate() {
        let wanted = texts(&expected["tokens"][i]);
        assert_eq!(item.candidate, wanted[0], "{:?}", candidates[i]);
        assert_eq!(item.references, wanted[1..], "{:?}", references[i]);
    }
}

#[test]
fn a_stop_depends_on_what_follows() {
    // Stanford's rule: a letter with a stop before a word that begins sentences ends one.
    let check = |captions: &[&str], expected: &[&str]| assert_eq!(ptb::tokenise(captions), expected);
    check(&["plan B.", "A dog"], &["plan b", "a dog"]);
    check(&["plan B.", "a dog"], &["plan b.", "a dog"]);
    check(&["plan B."], &["plan b."]);
    // What would shift the reference's lines parts words here.
    check(&["a\rb\u{2028}c\nd", ""], &["a b c d", ""]);
    check(&[], &[]);
}

#[test]
fn caption_scores_equal_pycocoevalcap() {
    let (candidates, references) = captions();
    let expected = read("captions/expected.json");
    let items = metrics::tokenise(&candidates, &references);
    let (scores, _) = metrics::caption_scores(&items, None, None);
    for name in ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr", "CIDEr_plain"] {
        let wanted = &expected["scores"][name];
        check_scores(&scores, name, &wanted["value"], &wanted["items"]);
    }
}

#[test]
fn frequencies_of_a_file_give_the_same_scores() {
    let (candidates, references) = captions();
    let items = metrics::tokenise(&candidates, &references);
    let (scores, own) = metrics::caption_scores(&items, None, None);
    let own = own();
    assert_eq!(own.documents, items.len() as u64);
    // A part of the items, whose own references would give other frequencies.
    let indices: Vec<usize> = (0..items.len()).step_by(3).collect();
    let part: Vec<_> = indices.iter().map(|i| items[*i].clone()).collect();
    let (with_file, _) = metrics::caption_scores(&part, Some(&own), None);
    let (without, _) = metrics::caption_scores(&part, None, None);
    let value = |scores: &Scores| scores.iter().find(|(name, _)| name == "CIDEr").unwrap().1.clone();
    let (all, with_file, without) = (value(&scores).select(&indices), value(&with_file), value(&without));
    for (got, want) in with_file.items().iter().zip(all.items()) {
        assert!((got - want).abs() < 1e-9);
    }
    assert!((without.value() - with_file.value()).abs() > 1e-3);
}

#[test]
fn answers_equal_the_official_script() {
    let (annotations, results) = (read("vqa/annotations.json"), read("vqa/results.json"));
    let expected = read("vqa/expected.json");
    let items: Vec<(String, vqa::Answers)> = annotations["annotations"]
        .as_array()
        .unwrap()
        .iter()
        .zip(results.as_array().unwrap())
        .map(|(truth, result)| {
            assert_eq!(truth["question_id"], result["question_id"]);
            let said = |a: &Value| a["answer"].as_str().unwrap().to_string();
            let answers = truth["answers"].as_array().unwrap().iter().map(said).collect();
            (said(result), vqa::Answers { answers, ..vqa::Answers::default() })
        })
        .collect();
    assert!(items.len() >= 500);
    let scores = vqa::answer_scores(items.iter().map(|(said, truth)| (said.as_str(), truth)));
    check_scores(&scores, "accuracy", &expected["accuracy"]["overall"], &expected["items"]);
    for (text, wanted) in expected["normalised"].as_object().unwrap() {
        assert_eq!(vqa::normalise(text), wanted.as_str().unwrap(), "{text:?}");
    }
}

/// A folder with the golden captions as COCO's tools read them, and a worse run.
fn coco(at: &std::path::Path) -> [String; 3] {
    let (candidates, references) = captions();
    let mut captions = Vec::new();
    let mut images = Vec::new();
    for (image, texts) in references.iter().enumerate() {
        let domain = ["in-domain", "near-domain", "out-domain"][image % 3];
        images.push(json!({"id": image, "file_name": format!("{image:012}.jpg"), "domain": domain}));
        captions.extend(texts.iter().map(|text| json!({"id": 7, "image_id": image, "caption": text})));
    }
    let results = |change: &dyn Fn(usize, &String) -> Value| -> Value {
        candidates.iter().enumerate().map(|(i, c)| change(i, c)).collect()
    };
    let good = results(&|i, c| json!({"image_id": i, "caption": c}));
    // Named by their files, as `limber caption --json` does, and every third caption another's.
    let worse = candidates.iter().enumerate().map(|(i, c)| {
        let text = if i % 3 == 0 { &candidates[(i + 1) % candidates.len()] } else { c };
        json!({"image": format!("val/{i:012}.jpg"), "text": text, "finish": "eos"}).to_string()
    });
    let write = |name: &str, text: String| {
        let path = at.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    [
        write("results.json", good.to_string()),
        write("captions.json", json!({"images": images, "annotations": captions}).to_string()),
        write("worse.jsonl", worse.collect::<Vec<_>>().join("\n")),
    ]
}

#[test]
fn the_program_scores_files() {
    let folder = tempfile::tempdir().unwrap();
    let [results, captions, worse] = coco(folder.path());
    let (items, own) = (folder.path().join("items.jsonl"), folder.path().join("df.json"));
    let (items, own) = (items.to_str().unwrap(), own.to_str().unwrap());
    let words = folder.path().join("words.json");
    std::fs::write(
        &words,
        json!({"nouns": ["dog", "cat", ["man", "people"]], "relations": ["on", "near"]}).to_string(),
    )
    .unwrap();
    let mut arguments = vec!["metrics", &results, &captions, "--json", "--compare", &worse, "--items", items];
    arguments.extend(["--save-frequencies", own, "--words", words.to_str().unwrap(), "--resamples", "200"]);
    let found = &lines(&arguments)[0];
    let expected = read("captions/expected.json");
    for name in ["Bleu_1", "Bleu_4", "ROUGE_L", "CIDEr"] {
        let value = found[name].as_f64().unwrap();
        assert!((value - expected["scores"][name]["value"].as_f64().unwrap()).abs() < 1e-4, "{name}");
        let interval: [f64; 2] = serde_json::from_value(found["intervals"][name].clone()).unwrap();
        assert!(interval[0] < value && value < interval[1], "{name} {value} {interval:?}");
        let compared = &found["compare"][name];
        assert!(compared["difference"].as_f64().unwrap() > 0.0 && compared["p"].as_f64().unwrap() < 0.01, "{compared}");
        let other = value - compared["difference"].as_f64().unwrap();
        assert!((other - compared["other"].as_f64().unwrap()).abs() < 1e-12);
    }
    assert_eq!(found["items"], 640);
    assert_eq!(found["domain"]["near-domain"]["items"], 213);
    assert!(found["nouns.recall"].as_f64().unwrap() > 0.5 && found["nouns/man.f1"].as_f64().unwrap() > 0.5);
    let listed: Vec<Value> =
        std::fs::read_to_string(items).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((listed.len(), &listed[3]["id"]), (640, &json!("3")));
    assert!(
        (listed[3]["CIDEr"].as_f64().unwrap() - expected["scores"]["CIDEr"]["items"][3].as_f64().unwrap()).abs() < 1e-4
    );
    // Frequencies that were saved score the same; a table says what the object says.
    let again = &lines(&["metrics", &results, &captions, "--json", "--frequencies", own, "--resamples", "0"])[0];
    assert!((again["CIDEr"].as_f64().unwrap() - found["CIDEr"].as_f64().unwrap()).abs() < 1e-9);
    assert!(again.get("intervals").is_none());
    let table = stdout(&["metrics", &results, &captions, "--resamples", "0", "--compare", &worse]);
    assert!(
        table.contains(&format!("ROUGE_L                  {:>10.4}\n", found["ROUGE_L"].as_f64().unwrap())),
        "{table}"
    );
    assert!(table.contains("domain out-domain, 213 items") && table.contains("against the other"), "{table}");

    let annotations = self::folder("vqa/annotations.json");
    let answers = self::folder("vqa/results.json");
    let found = &lines(&["metrics", answers.to_str().unwrap(), annotations.to_str().unwrap(), "--json"])[0];
    let expected = read("vqa/expected.json");
    for (by, name) in [("answer_type", "perAnswerType"), ("question_type", "perQuestionType")] {
        for (kind, value) in expected["accuracy"][name].as_object().unwrap() {
            let got = found[by][kind]["accuracy"].as_f64().unwrap();
            assert!((got - value.as_f64().unwrap()).abs() < 1e-4, "{kind}: {got} {value}");
        }
    }
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [results, captions, worse] = coco(folder.path());
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let check = |predictions: &str, references: &str, more: &[&str], expected: &[&str]| {
        fails(&[&["metrics", predictions, references], more].concat(), expected);
    };
    let few = write("few.jsonl", "{\"id\": 1, \"text\": \"a\"}\n{\"id\": 2, \"text\": \"b\"}\n");
    check(&few, &captions, &[], &["638 of 640 items have no prediction, the first is \"0\"", "--subset"]);
    assert_eq!(lines(&["metrics", &few, &captions, "--json", "--subset"])[0]["items"], 2);
    check(
        &results,
        &captions,
        &["--subset", "--compare", &few],
        &["640 and 2 predictions", "item \"0\"", "the same items"],
    );
    let unknown = write("unknown.jsonl", "{\"id\": \"x/9.jpg\", \"text\": \"a\"}");
    check(
        &unknown,
        &captions,
        &[],
        &["1 predictions are for items that the references do not have, the first is \"x/9.jpg\""],
    );
    let twice =
        write("twice.json", "[{\"image_id\": 1, \"caption\": \"a\"}, {\"image_id\": \"1\", \"caption\": \"b\"}]");
    check(&twice, &captions, &[], &["two predictions for \"1\", the second is number 2"]);
    let named =
        write("named.jsonl", "{\"id\": 1, \"text\": \"a\"}\n{\"image\": \"a/000000000001.jpg\", \"text\": \"b\"}");
    check(&named, &captions, &["--subset"], &["two predictions for \"1\", one of them named \"a/000000000001.jpg\""]);
    let no_text = write("no_text.json", "[{\"image_id\": 1}]");
    check(&no_text, &captions, &[], &["prediction 1 (\"1\") has no text"]);
    let no_id = write("no_id.json", "[{\"caption\": \"a\"}]");
    check(&no_id, &captions, &[], &["prediction 1 has no id"]);
    check(&write("bad_id.json", "[{\"id\": true, \"text\": \"a\"}]"), &captions, &[], &["the id true is not allowed"]);
    check(&write("broken.jsonl", "{\"id\": 1, \"text\": \"a\"}\n{\"id\""), &captions, &[], &["broken.jsonl: line 2"]);
    check(&captions, &captions, &[], &["a map is no file of predictions"]);
    check(&write("empty.json", "[]"), &captions, &[], &["it holds no prediction"]);
    check(&results, &results, &[], &["a list is a file of results"]);
    check(&results, "nowhere.json", &[], &["cannot read nowhere.json"]);
    check(&results, &write("none.json", "{\"images\": [], \"annotations\": []}"), &[], &["it holds no item"]);
    let orphan =
        write("orphan.json", "{\"images\": [{\"id\": 1}], \"annotations\": [{\"image_id\": 2, \"caption\": \"a\"}]}");
    check(&results, &orphan, &[], &["a caption names image \"2\", which is not listed"]);
    let double = write("double.json", "{\"images\": [{\"id\": 1}, {\"id\": 1}], \"annotations\": []}");
    check(&results, &double, &[], &["image \"1\" is listed twice"]);
    let asked = "{\"annotations\": [{\"question_id\": 1, \"answers\": [{\"answer\": \"a\"}]}, {\"question_id\": 1, \"answers\": [\"b\"]}]}";
    check(&results, &write("asked.json", asked), &[], &["question \"1\" is listed twice, as annotation 0 and 1"]);
    let silent = write("silent.json", "{\"annotations\": [{\"question_id\": 1, \"answers\": []}]}");
    check(&results, &silent, &[], &["question \"1\" has no answer"]);
    check(&results, &captions, &["--level", "1"], &["--level 1 is not allowed, it lies between 0 and 1"]);
    check(&results, &captions, &["--frequencies", &few], &["not document frequencies"]);
    check(&results, &captions, &["--words", &results], &["no lists of words"]);
    check(&worse, &captions, &["--items", "no/where.jsonl"], &["there is no folder no"]);
    let many = super::program::limber(&["metrics", &results, &captions, "--resamples", "1000001"]);
    assert_eq!(many.status.code(), Some(2), "{}", String::from_utf8_lossy(&many.stderr));
}

#[test]
fn a_caption_without_a_right_word_scores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).to_str().unwrap().to_string()
    };
    let predictions = write("p.jsonl", "{\"id\": 1, \"text\": \"four grey cats\"}\n");
    let references = write("r.jsonl", "{\"id\": 1, \"captions\": [\"a red ring\"]}\n");
    let scores = &lines(&["metrics", &predictions, &references, "--json"])[0];
    for name in ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr", "CIDEr_plain", "exact_match"] {
        assert_eq!((name, &scores[name]), (name, &json!(0.0)));
        assert_eq!((name, &scores["intervals"][name]), (name, &json!([0.0, 0.0])));
    }
}
