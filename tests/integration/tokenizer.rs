//! Ids and texts as transformers gives them for GPT-2's, GPT-J's and OPT's folders: `tests/golden/tokenizer`.

use limber::text::Tokenizer;
use serde_json::Value;
use std::path::PathBuf;

fn golden() -> PathBuf {
    PathBuf::from(crate::ROOT).join("tests/golden/tokenizer")
}

fn expected() -> Value {
    serde_json::from_str(&std::fs::read_to_string(golden().join("expected.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The ids of a case are its texts, with special tokens and without.
fn decodes(tokenizer: &Tokenizer, case: &Value) {
    let ids = ids(&case["ids"]);
    for (skip_special, text) in [(false, "decoded"), (true, "decoded_skip_special")] {
        assert_eq!(tokenizer.decode(&ids, skip_special).unwrap(), case[text].as_str().unwrap(), "{case}");
    }
}

#[test]
fn ids_and_texts_are_those_of_transformers() {
    let expected = expected();
    for (folder, name) in [("bpe", "bpe"), ("json", "json"), ("extra", "extra"), ("opt", "opt"), ("opt-json", "opt")] {
        let tokenizer = Tokenizer::from_folder(golden().join(folder)).unwrap();
        let cases = expected[name].as_array().unwrap();
        assert!(cases.len() > 70);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let wanted = ids(&case["ids"]);
            assert_eq!(tokenizer.encode(text).unwrap(), wanted, "{folder} {text:?}");
            decodes(&tokenizer, case);
        }
    }
}

#[test]
fn sizes_and_special_ids() {
    let expected = expected();
    let number = |key: &str| expected[key].as_u64().unwrap() as usize;
    for (folder, size) in
        [("bpe", number("vocab_size")), ("json", number("json_size")), ("extra", number("extra_size"))]
    {
        let tokenizer = Tokenizer::from_folder(golden().join(folder)).unwrap();
        // GPT-J names the unused rows of its table `<|extratoken_N|>`; none of them is ever sampled.
        let limit = if folder == "extra" { number("vocab_size") } else { size };
        assert_eq!((tokenizer.len(), tokenizer.limit()), (size, limit), "{folder}");
        assert_eq!(tokenizer.eos().map(|id| id as usize), Some(number("eos_id")), "{folder}");
        assert_eq!(tokenizer.token_id(expected["eos"].as_str().unwrap()), tokenizer.eos());
        let image = (folder == "json").then(|| number("image_id") as u32);
        assert_eq!(tokenizer.token_id("<|image|>"), image, "{folder}");
    }
}

#[test]
fn what_a_tokenizer_is_told_to_put_in_front_is_written_out_or_not_there() {
    let expected = expected();
    let end = expected["opt_eos_id"].as_u64().unwrap() as u32;
    for folder in ["opt", "opt-json"] {
        let tokenizer = Tokenizer::from_folder(golden().join(folder)).unwrap();
        assert_eq!((tokenizer.eos(), tokenizer.token_id("</s>")), (Some(end), Some(end)));
        let size = expected["opt_size"].as_u64().unwrap() as usize;
        assert_eq!((tokenizer.len(), tokenizer.token_id("<|endoftext|>")), (size, None));
        // transformers' fast tokenizer gives the first of these for both texts, unless it is told to add nothing.
        let plain = tokenizer.encode("A picture of").unwrap();
        assert_ne!(plain[0], end);
        let written = tokenizer.encode("</s>A picture of").unwrap();
        assert_eq!((written[0], &written[1..]), (end, plain.as_slice()));
    }
}

#[test]
fn a_folder_without_tokenizer_json_reads_its_added_tokens() {
    let copy = tempfile::tempdir().unwrap();
    for name in ["vocab.json", "merges.txt", "added_tokens.json"] {
        std::fs::copy(golden().join("extra").join(name), copy.path().join(name)).unwrap();
    }
    let tokenizer = Tokenizer::from_folder(copy.path()).unwrap();
    for case in expected()["extra"].as_array().unwrap() {
        assert_eq!(tokenizer.encode(case["text"].as_str().unwrap()).unwrap(), ids(&case["ids"]), "{case}");
    }
}

#[test]
fn ids_that_make_no_utf8() {
    let tokenizer = Tokenizer::from_folder(golden().join("json")).unwrap();
    for case in expected()["raw"].as_array().unwrap() {
        decodes(&tokenizer, case);
    }
}

#[test]
fn a_stream_holds_back_half_characters() {
    let tokenizer = Tokenizer::from_folder(golden().join("json")).unwrap();
    for case in expected()["streams"].as_array().unwrap() {
        let mut stream = tokenizer.stream(false);
        let mut text = String::new();
        for (id, prefix) in ids(&case["ids"]).iter().zip(case["prefixes"].as_array().unwrap().iter().skip(1)) {
            text.push_str(&stream.push(*id).unwrap());
            assert_eq!(text, prefix.as_str().unwrap().trim_end_matches('\u{fffd}'), "{case}");
        }
        assert_eq!(text + &stream.finish().unwrap(), case["text"].as_str().unwrap());
    }
}

#[test]
fn an_empty_folder_names_what_was_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let message = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    for part in ["no tokenizer", "tokenizer.json", "vocab.json", "merges.txt", &folder.path().display().to_string()] {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}
