//! Tokenizers of GGUF files against llama.cpp and transformers: `tests/golden/gguf_tokenizers`.

use super::golden::{folder, lists};
use limber::core::WeightSource;
use limber::text::Tokenizer;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

fn open(path: &Path) -> Arc<dyn WeightSource> {
    limber::weights::open(&path.to_str().unwrap().parse().unwrap(), &[], Path::new(".")).unwrap()
}

/// `file` with the metadata entry `key` of the text `from` set to `to`.
fn with_text(file: &[u8], key: &str, from: &str, to: &str) -> Vec<u8> {
    let entry = |text: &str| {
        let length = (text.len() as u64).to_le_bytes();
        [key.as_bytes(), &8u32.to_le_bytes(), &length, text.as_bytes()].concat()
    };
    let old = entry(from);
    let at = file.windows(old.len()).position(|window| window == old).unwrap();
    // Data begin at the next multiple of 32: there is room behind them for whatever that is.
    [&file[..at], &entry(to), &file[at + old.len()..], &[0; 64]].concat()
}

fn texts(expected: &Value, key: &str) -> Vec<String> {
    expected[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_string()).collect()
}

/// Holds `tokenizer` to the ids that `list` of `expected` gives for `texts`.
fn check(what: &str, tokenizer: &Tokenizer, texts: &[String], expected: &Value) {
    for (text, ids) in texts.iter().zip(expected.as_array().unwrap()) {
        let ids: Vec<u32> = ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{what}: {text:?}");
    }
}

#[test]
fn byte_level_tokenizers_split_as_llama_cpp_does_under_every_name() {
    let expected = lists("gguf_tokenizers");
    let texts: Vec<String> = [texts(&expected, "texts"), texts(&expected, "marked")].concat();
    let file = std::fs::read(folder("gguf_tokenizers").join("bytes.gguf")).unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("m.gguf");
    let mut held = 0;
    for (name, list) in expected["llama.cpp"].as_object().unwrap() {
        if name.ends_with(".gguf") {
            continue;
        }
        let bytes = match name.as_str() {
            // The entry is missing under this name.
            "" => {
                let at = file.windows(20).position(|w| w == b"tokenizer.ggml.pre\x08\0").unwrap();
                [&file[..at + 17], b"x", &file[at + 18..]].concat()
            }
            name => with_text(&file, "tokenizer.ggml.pre", "default", name),
        };
        std::fs::write(&path, bytes).unwrap();
        let tokenizer = Tokenizer::from_source(open(&path).as_ref()).unwrap();
        assert_eq!(tokenizer.eos(), tokenizer.token_id("<|end|>"));
        for text in &texts {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), *text, "{name}");
        }
        // A version of llama.cpp that does not know the name gives no ids.
        let Some(list) = list.as_u64() else { continue };
        held += 1;
        check(name, &tokenizer, &texts, &expected["lists"][list as usize]);
        if let Some(list) = expected["published"][name].as_u64() {
            check(name, &tokenizer, &texts, &expected["lists"][list as usize]);
        }
    }
    assert!(held > 80, "{held}");
}

#[test]
fn sentencepiece_models_give_the_ids_of_llama_cpp_and_transformers() {
    let expected = lists("gguf_tokenizers");
    let texts: Vec<String> = [texts(&expected, "texts"), texts(&expected, "marked")].concat();
    for (name, eos) in [("merged", 2), ("plain", 2), ("unigram", 2), ("characters", 1)] {
        let source = open(&folder("gguf_tokenizers").join(format!("{name}.gguf")));
        let tokenizer = Tokenizer::from_source(source.as_ref()).unwrap();
        let list = |group: &str, name: &str| expected[group][name].as_u64().map(|at| &expected["lists"][at as usize]);
        check(name, &tokenizer, &texts, list("llama.cpp", &format!("{name}.gguf")).unwrap());
        if let Some(ids) = list("sentencepiece", name) {
            check(name, &tokenizer, &texts, ids);
        }
        assert_eq!((tokenizer.eos(), tokenizer.token_id("<|extra|>").is_some()), (Some(eos), true));
        if name == "unigram" {
            continue;
        }
        // Bytes stand for what is no piece; a prefix is taken away again.
        for text in ["naïve 日本 😀", "  two\n\tlines ", "a<|extra|> b"] {
            let ids = tokenizer.encode(text).unwrap();
            let back = tokenizer.decode(&ids, false).unwrap();
            // After a token that is recognised the prefix stands again.
            let expected = if name == "merged" { text.replace("<|extra|>", "<|extra|> ") } else { text.to_string() };
            assert_eq!(back, expected, "{name}");
        }
    }
}

#[test]
fn unknown_names_are_refused_and_ends_of_turns_end_a_text() {
    let file = std::fs::read(folder("gguf_tokenizers").join("bytes.gguf")).unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("m.gguf");
    let message = |bytes: Vec<u8>| {
        std::fs::write(&path, bytes).unwrap();
        format!("{:#}", Tokenizer::from_source(open(&path).as_ref()).unwrap_err())
    };
    let unknown = message(with_text(&file, "tokenizer.ggml.pre", "default", "gpt-9"));
    assert!(unknown.contains("m.gguf: tokenizer.ggml.pre is \"gpt-9\", known are a.x-4.0, "), "{unknown}");
    assert!(unknown.contains("smollm") && unknown.contains("tekken"), "{unknown}");
    let words = message(with_text(&file, "tokenizer.ggml.model", "gpt2", "bert"));
    assert!(words.contains("tokenizer.ggml.model is \"bert\", supported are gpt2"), "{words}");
    // The id of <|extra|>, under the names of an end of turn and of message; the separator's name is as long.
    let eos = |key: &str| {
        let at = file.windows(29).position(|w| w == b"tokenizer.ggml.eos_token_id\x04\0").unwrap();
        let mut bytes = file.clone();
        let value = at + 31;
        let end = u32::from_le_bytes(bytes[value..value + 4].try_into().unwrap());
        bytes[at + 15..at + 18].copy_from_slice(key.as_bytes());
        bytes[value..value + 4].copy_from_slice(&(end + 1).to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let config = open(&path).document("config.json").unwrap().unwrap();
        (serde_json::from_str::<Value>(&config).unwrap()["eos_token_id"].clone(), end + 1)
    };
    for key in ["eos", "eot", "eom"] {
        let (ids, own) = eos(key);
        assert_eq!(ids, serde_json::json!([own, own - 1]), "{key}");
    }
}

#[test]
fn a_missing_splitter_is_warned_of_once_and_the_right_name_is_written() {
    let file = std::fs::read(folder("gguf_tokenizers").join("bytes.gguf")).unwrap();
    let place = tempfile::tempdir().unwrap();
    let (path, out) = (place.path().join("m.gguf"), place.path().join("out.gguf"));
    let at = file.windows(20).position(|w| w == b"tokenizer.ggml.pre\x08\0").unwrap();
    let missing = [&file[..at + 17], b"x", &file[at + 18..]].concat();
    for (bytes, warning, name) in [
        (missing, "tokenizer.ggml.pre is missing", "default"),
        (file.clone(), "tokenizer.ggml.pre is \"default\"", "default"),
        (with_text(&file, "tokenizer.ggml.pre", "default", "starcoder"), "", "smollm"),
        (with_text(&file, "tokenizer.ggml.pre", "default", "tekken"), "", "tekken"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let output = super::program::limber(&["convert", path.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{message}");
        let warnings = message.matches("WARN").count();
        assert_eq!(warnings, usize::from(!warning.is_empty()), "{message}");
        assert!(message.contains(warning), "{message}");
        // Nobody sees colours in a pipe.
        assert!(!message.contains('\u{1b}'), "{message:?}");
        let written = std::fs::read(&out).unwrap();
        let entry = [b"tokenizer.ggml.pre\x08\0\0\0".as_slice(), &(name.len() as u64).to_le_bytes(), name.as_bytes()];
        let entry = entry.concat();
        assert!(written.windows(entry.len()).any(|w| w == entry), "{name}");
    }
}

#[test]
fn models_of_sentencepiece_are_written_and_read_again() {
    let expected = lists("gguf_tokenizers");
    let texts = texts(&expected, "texts");
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out.gguf");
    for name in ["merged", "plain"] {
        let from = folder("gguf_tokenizers").join(format!("{name}.gguf"));
        super::program::stdout(&["convert", from.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        // Without the whole tokenizer.json, that is as llama.cpp reads it.
        let mut written = std::fs::read(&out).unwrap();
        let whole = b"tokenizer.huggingface.json";
        let at = written.windows(whole.len()).position(|w| w == whole).unwrap();
        written[at] = b'x';
        std::fs::write(&out, written).unwrap();
        let tokenizer = Tokenizer::from_source(open(&out).as_ref()).unwrap();
        let list = expected["llama.cpp"][format!("{name}.gguf")].as_u64().unwrap();
        check(name, &tokenizer, &texts, &expected["lists"][list as usize]);
    }
    let from = folder("gguf_tokenizers").join("unigram.gguf");
    super::program::fails(
        &["convert", from.to_str().unwrap(), "--out", out.to_str().unwrap()],
        &["a model of the type \"Unigram\", which is not written to GGUF"],
    );
}
