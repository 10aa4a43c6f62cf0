//! `tokenizer.model` of SentencePiece and tiktoken, and tokens that configs describe: `tests/golden/tokenizer_models`.

use super::golden::{folder, lists};
use limber::text::Tokenizer;
use serde_json::Value;
use std::path::Path;

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The files of a case in a folder of their own: a model, or the byte-level tokenizer under other configs.
fn folder_of(case: &Value) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    match case["model"].as_str() {
        Some(model) => {
            let model = folder("tokenizer_models").join(format!("{model}.model"));
            std::fs::copy(model, place.path().join("tokenizer.model")).unwrap();
        }
        None => {
            let json = folder("tokenizer/json/tokenizer.json");
            std::fs::copy(json, place.path().join("tokenizer.json")).unwrap();
        }
    }
    for (name, value) in case["files"].as_object().unwrap() {
        std::fs::write(place.path().join(name), value.to_string()).unwrap();
    }
    place
}

/// Holds a tokenizer to transformers' ids and texts.
fn check(tokenizer: &Tokenizer, case: &Value) {
    let name = &case["name"];
    assert_eq!(tokenizer.eos().map(Value::from).unwrap_or_default(), case["eos"], "{name}");
    for row in case["rows"].as_array().unwrap() {
        let text = row["text"].as_str().unwrap();
        let ids = ids(&row["ids"]);
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{name}: {text:?}");
        for (skip, decoded) in [false, true].into_iter().zip(row["decoded"].as_array().unwrap()) {
            assert_eq!(&tokenizer.decode(&ids, skip).unwrap(), decoded, "{name}: {text:?} {skip}");
        }
    }
}

#[test]
fn models_and_configs_give_transformers_ids_and_texts() {
    let cases = lists("tokenizer_models")["cases"].as_array().unwrap().clone();
    assert_eq!(cases.len(), 18);
    for case in &cases {
        let place = folder_of(case);
        check(&Tokenizer::from_folder(place.path()).unwrap(), case);
    }
}

#[test]
fn a_model_lies_beside_weights_or_is_named_itself() {
    let cases = lists("tokenizer_models")["cases"].as_array().unwrap().clone();
    let case = cases.iter().find(|case| case["name"] == "llama").unwrap();
    let place = folder_of(case);
    std::fs::copy(folder("llama/bare/model.safetensors"), place.path().join("model.safetensors")).unwrap();
    let spec = place.path().to_str().unwrap().parse().unwrap();
    let source = limber::weights::open(&spec, &["model.safetensors"], Path::new(".")).unwrap();
    check(&Tokenizer::from_source(source.as_ref()).unwrap(), case);
    // Without a config beside it, it is read as it says itself.
    let own = cases.iter().find(|case| case["name"] == "own").unwrap();
    check(&Tokenizer::from_bytes(&std::fs::read(folder("tokenizer_models/bpe.model")).unwrap()).unwrap(), own);
    std::fs::write(place.path().join("tokenizer.model"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let message = Tokenizer::from_folder(place.path()).unwrap_err().to_string();
    assert!(message.contains("tokenizer.model: neither a model of SentencePiece"), "{message}");
}

#[test]
fn bytes_that_stand_for_characters_are_put_together_and_held_back() {
    let expected = &lists("tokenizer_models")["prepend"];
    let place = tempfile::tempdir().unwrap();
    std::fs::copy(folder("tokenizer_models/prepend.json"), place.path().join("tokenizer.json")).unwrap();
    let config = expected["files"]["tokenizer_config.json"].to_string();
    std::fs::write(place.path().join("tokenizer_config.json"), config).unwrap();
    let tokenizer = Tokenizer::from_folder(place.path()).unwrap();
    check(&tokenizer, expected);
    for row in expected["raw"].as_array().unwrap() {
        assert_eq!(tokenizer.decode(&ids(&row["ids"]), false).unwrap(), row["decoded"].as_str().unwrap(), "{row}");
    }
    for row in expected["streams"].as_array().unwrap() {
        let (mut stream, mut text, mut whole) = (tokenizer.stream(false), String::new(), "");
        for (id, prefix) in ids(&row["ids"]).iter().zip(row["prefixes"].as_array().unwrap()) {
            text.push_str(&stream.push(*id).unwrap());
            // Half a character behind whole ones makes none of them in transformers, where nothing has been shown yet.
            let prefix = prefix.as_str().unwrap();
            whole = if prefix.ends_with('\u{fffd}') { whole } else { prefix };
            assert_eq!(text, whole, "{row}");
        }
        assert_eq!(text + &stream.finish().unwrap(), row["text"].as_str().unwrap());
    }
}
