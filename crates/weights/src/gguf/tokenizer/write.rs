//! A `tokenizer.json` as the metadata that llama.cpp reads, beside the whole text.
//!
//! A byte-level BPE takes the name of the splitter that cuts a probing text into the same pieces; a BPE of SentencePiece's
//! kind takes scores that make llama.cpp merge in the same order. What GGUF has no name for is refused.

use super::WHOLE;
use super::read::splitting;
use super::splitters::SPLITTERS;
use super::vocabulary::Kind;
use crate::gguf::entries::Entry;
use crate::gguf::value::{List, Value};
use serde_json::{Value as Json, json};
use std::collections::{BTreeMap, HashMap};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

/// What splitters disagree about: contractions, cases, digits, signs, spaces, line ends, scripts and marks.
const PROBE: &str = "I'm I'M you'll WE'RE it's_O'd don'tt  HelloWorld helloWorld ABCdef camelCase42x a1b22c333 1234567 12345678 3.14 1,000,000 ٣٤٥ ½² x=y+z; a<=b ~/x !~ #tag @me $5 `code` \"q\" (p) [l] {b} a/b\\c -- ... ?! €5 → ∑ ©\n\n\n  indented\n\t\ttabs \t \r\n\r\nend.  \n /path\n/\n <sentinel:12> IMGIMGABZ     five    four   three  two one  日本語テスト 中文，字。 한국어 ㄱㅏ Привет МИР Ёлка ελληνικά ΩΣ العربية، نص। हिन्दी में ไทย é é ñ Æ ß ŉ ǅ ʼ𐐀 😀👍🏽 👨‍👩‍👧\u{a0}nbsp\u{3000}wide\u{2028}line   ";

/// The metadata of a `tokenizer.json`, filled up to `vocab` rows.
///
/// # Errors
/// A text that is none, a tokenizer that GGUF has no name for.
pub fn entries(text: &str, vocab: usize) -> Result<Vec<Entry>, String> {
    let tree: Json = serde_json::from_str(text).map_err(|e| format!("tokenizer.json: {e}"))?;
    let model = &tree["model"];
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") || model["merges"].as_array().is_none() {
        return Err(format!(
            "tokenizer.json holds a model of the type {}, which is not written to GGUF; BPE is",
            model["type"]
        ));
    }
    for key in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[key].as_str().is_some_and(|text| !text.is_empty()) {
            return Err(format!("tokenizer.json: {key} is {}, which GGUF cannot say", model[key]));
        }
    }
    let is_byte_level = tree["decoder"]["type"] == "ByteLevel";
    let (tokens, kinds) = tokens(&tree, vocab, is_byte_level)?;
    let mut out = if is_byte_level { byte_level(&tree)? } else { sentence_piece(&tree, &tokens, &kinds)? };
    let numbers = kinds.iter().map(|kind| kind.number());
    out.push(("tokenizer.ggml.token_type".into(), Value::List(List::of_numbers(numbers)?)));
    out.push(("tokenizer.ggml.tokens".into(), Value::List(List::of_texts(tokens.iter().map(String::as_str)))));
    out.extend(around(&tree, &tokens));
    out.push((WHOLE.to_string(), Value::Text(text.to_string().into())));
    Ok(out)
}

/// The tokens by id and their kinds.
fn tokens(tree: &Json, vocab: usize, is_byte_level: bool) -> Result<(Vec<String>, Vec<Kind>), String> {
    let broken = || "tokenizer.json: the vocabulary is no map of tokens to ids".to_string();
    let mut all: BTreeMap<u64, (String, Kind)> = BTreeMap::new();
    for (token, id) in tree["model"]["vocab"].as_object().ok_or_else(broken)? {
        let is_byte = !is_byte_level && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        let kind = if is_byte { Kind::Byte } else { Kind::Normal };
        all.insert(id.as_u64().ok_or_else(broken)?, (token.clone(), kind));
    }
    for token in tree["added_tokens"].as_array().into_iter().flatten() {
        let kind = if token["special"] == true { Kind::Control } else { Kind::User };
        let (Some(id), Some(text)) = (token["id"].as_u64(), token["content"].as_str()) else { return Err(broken()) };
        let kind = if tree["model"]["unk_token"] == text && !is_byte_level { Kind::Unknown } else { kind };
        all.insert(id, (text.to_string(), kind));
    }
    let last = all.last_key_value().map_or(0, |(id, _)| *id);
    let rows = usize::try_from(last).ok().and_then(|id| id.checked_add(1)).filter(|rows| *rows < 1 << 31);
    let rows = rows.ok_or_else(|| format!("tokenizer.json: a token has id {last}"))?.max(vocab);
    let row = |id: usize| all.get(&(id as u64)).cloned().unwrap_or_else(|| (format!("[PAD{id}]"), Kind::Unused));
    Ok((0..rows).map(row).unzip())
}

/// Two tokens of a merge, however it is written.
fn merge(merge: &Json) -> Option<(&str, &str)> {
    match merge {
        Json::String(text) => text.split_once(' '),
        pair => Some((pair[0].as_str()?, pair[1].as_str()?)),
    }
}

fn merges(tree: &Json) -> Result<Vec<(&str, &str)>, String> {
    let all = tree["model"]["merges"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().map(|m| merge(m).ok_or_else(|| format!("tokenizer.json: the merge {m} is no pair of tokens"))).collect()
}

/// Model, splitter and merges of a byte-level BPE.
fn byte_level(tree: &Json) -> Result<Vec<Entry>, String> {
    // llama.cpp composes no characters, whatever the model's own tokenizer does.
    if !tree["normalizer"].is_null() && tree["normalizer"]["type"] != "NFC" {
        return Err(format!("tokenizer.json: the normalizer is {}, which GGUF cannot say", tree["normalizer"]));
    }
    let ignores = tree["model"]["ignore_merges"] == true;
    let found = pieces(&tree["pre_tokenizer"])?;
    // The default's name is the last to be taken: llama.cpp warns of it.
    let in_order = SPLITTERS.iter().skip(1).chain(&SPLITTERS[..1]);
    let mut known = in_order.filter(|s| s.is_byte_level && s.ignores_merges == ignores);
    let fits = |splitter: &&super::splitters::Splitter| pieces(&splitting(splitter)).as_ref() == Ok(&found);
    let splitter = known.find(fits).ok_or_else(|| {
        format!(
            "tokenizer.json splits texts as none of GGUF's splitters does{}; its pre_tokenizer is {}",
            if ignores { " that ignore merges" } else { "" },
            tree["pre_tokenizer"]
        )
    })?;
    let merges: Vec<String> = merges(tree)?.iter().map(|(left, right)| format!("{left} {right}")).collect();
    Ok(vec![
        ("tokenizer.ggml.model".into(), Value::Text("gpt2".into())),
        ("tokenizer.ggml.pre".into(), Value::Text(splitter.names[0].into())),
        ("tokenizer.ggml.merges".into(), Value::List(List::of_texts(merges.iter().map(String::as_str)))),
    ])
}

/// The pieces that a pre-tokenizer cuts the probing text into.
fn pieces(splitting: &Json) -> Result<Vec<String>, String> {
    let mut text = PreTokenizedString::from(PROBE);
    if !splitting.is_null() {
        let splitter: PreTokenizerWrapper =
            serde_json::from_value(splitting.clone()).map_err(|e| format!("tokenizer.json: pre_tokenizer: {e}"))?;
        splitter.pre_tokenize(&mut text).map_err(|e| format!("tokenizer.json: pre_tokenizer: {e}"))?;
    }
    let all = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Ok(all.into_iter().map(|(piece, ..)| piece.to_string()).collect())
}

/// Model and scores of a BPE of SentencePiece's kind.
fn sentence_piece(tree: &Json, tokens: &[String], kinds: &[Kind]) -> Result<Vec<Entry>, String> {
    let prefix = prefix(tree)?;
    let merges = merges(tree)?;
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
    let normal = |text: &str| ids.get(text).filter(|id| kinds[**id] == Kind::Normal).copied();
    // The rank of a token is that of its first merge, and its merges follow each other.
    let mut ranks: HashMap<usize, usize> = HashMap::new();
    let mut made = 0;
    let other =
        || "tokenizer.json merges in an order that scores of tokens cannot say, as SentencePiece has them".to_string();
    let mut last = None;
    for (left, right) in &merges {
        let Some(id) = normal(&format!("{left}{right}")) else { continue };
        if last != Some(id) && ranks.insert(id, ranks.len()).is_some() {
            return Err(other());
        }
        last = Some(id);
        made += 1;
    }
    // llama.cpp merges whatever two tokens make a third.
    let possible: usize = ids
        .iter()
        .filter(|(_, id)| kinds[**id] == Kind::Normal)
        .map(|(text, _)| {
            let splits = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
            splits.filter(|(left, right)| normal(left).is_some() && normal(right).is_some()).count()
        })
        .sum();
    if possible != made {
        return Err(other());
    }
    let scores = (0..tokens.len()).map(|id| match (kinds[id], ranks.get(&id)) {
        (Kind::Normal, Some(rank)) => -(*rank as f32),
        (Kind::Normal, None) => -(merges.len() as f32),
        _ => 0.0,
    });
    let mut out: Vec<Entry> = vec![
        ("tokenizer.ggml.model".into(), Value::Text("llama".into())),
        ("tokenizer.ggml.pre".into(), Value::Text("default".into())),
        ("tokenizer.ggml.scores".into(), Value::List(List::of_floats(scores))),
        ("tokenizer.ggml.add_space_prefix".into(), Value::Flag(prefix)),
    ];
    if let Some(id) = tree["model"]["unk_token"].as_str().and_then(|token| ids.get(token)) {
        out.push(("tokenizer.ggml.unknown_token_id".into(), Value::Whole(*id as u64)));
    }
    Ok(out)
}

/// Whether a text begins with a space, of normalizers and a pre-tokenizer that do no more than write spaces.
fn prefix(tree: &Json) -> Result<bool, String> {
    let (normalizer, splitting) = (&tree["normalizer"], &tree["pre_tokenizer"]);
    let refuse = |key: &str| Err(format!("tokenizer.json: {key} is {}, which GGUF cannot say", tree[key]));
    let one = [normalizer.clone()];
    let all = normalizer["normalizers"].as_array().map_or(&one[..], Vec::as_slice);
    let (mut prefix, mut spaces) = (false, false);
    for step in all.iter().filter(|step| !step.is_null()) {
        match step["type"].as_str() {
            Some("Prepend") if step["prepend"] == "\u{2581}" => prefix = true,
            Some("Replace") if step["pattern"] == json!({"String": " "}) && step["content"] == "\u{2581}" => {
                spaces = true
            }
            _ => return refuse("normalizer"),
        }
    }
    match splitting["type"].as_str() {
        None if splitting.is_null() && spaces => Ok(prefix),
        // Of words apart, no token holds a space within.
        Some("Metaspace") if splitting["split"] == false || splitting["split"].is_null() => {
            let scheme = splitting["prepend_scheme"].as_str();
            Ok(prefix || scheme.map_or(splitting["add_prefix_space"] != false, |scheme| scheme != "never"))
        }
        // Gemma's splits at spaces, which the normalizer has taken away.
        Some("Split") if spaces && splitting["pattern"] == json!({"String": " "}) => Ok(prefix),
        _ => refuse("pre_tokenizer"),
    }
}

/// The tokens that stand in front of every text and behind it.
fn around(tree: &Json, tokens: &[String]) -> Vec<Entry> {
    let processor = &tree["post_processor"];
    let one = [processor.clone()];
    let all = processor["processors"].as_array().map_or(&one[..], Vec::as_slice);
    let template = all.iter().find(|step| step["type"] == "TemplateProcessing");
    let single = template.and_then(|step| step["single"].as_array());
    let id = |piece: Option<&Json>| {
        let text = piece?["SpecialToken"]["id"].as_str()?;
        tokens.iter().position(|token| token == text)
    };
    let (first, last) = single.map_or((None, None), |all| (id(all.first()), id(all.last())));
    let mut out = vec![
        ("tokenizer.ggml.add_bos_token".to_string(), Value::Flag(first.is_some())),
        ("tokenizer.ggml.add_eos_token".to_string(), Value::Flag(last.is_some())),
    ];
    out.extend(first.map(|id| ("tokenizer.ggml.bos_token_id".to_string(), Value::Whole(id as u64))));
    out
}

#[cfg(test)]
mod tests {
    use super::super::splitters::named;
    use super::*;

    fn byte_level_with(splitting: Json, ignores: bool) -> Json {
        json!({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]],
            "ignore_merges": ignores}, "pre_tokenizer": splitting, "decoder": {"type": "ByteLevel"}})
    }

    fn pre(tree: &Json) -> Result<String, String> {
        let all = entries(&tree.to_string(), 4)?;
        let value = all.into_iter().find(|(key, _)| key == "tokenizer.ggml.pre").map(|(_, value)| value);
        Ok(value.and_then(|v| v.text().map(str::to_string)).unwrap_or_default())
    }

    #[test]
    fn every_splitter_is_found_by_its_pieces() {
        for splitter in SPLITTERS.iter().filter(|s| s.is_byte_level) {
            let found = pre(&byte_level_with(splitting(splitter), splitter.ignores_merges));
            // These two say the same in other words.
            let name = match splitter.names[0] {
                "minicpm5" => "llama-bpe",
                "bailingmoe" => "qwen2",
                own => own,
            };
            assert_eq!(found.as_deref(), Ok(name), "{:?}", splitter.patterns);
        }
        // As GPT-2's and SmolLM2's files say it.
        let gpt2 = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        assert_eq!(pre(&byte_level_with(gpt2.clone(), false)).unwrap(), "gpt-2");
        let digits =
            json!({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": true}, gpt2]});
        assert_eq!(pre(&byte_level_with(digits, false)).unwrap(), "smollm");
        assert_eq!(named("smollm").unwrap().names[0], "smollm");
    }

    #[test]
    fn what_has_no_name_is_refused() {
        let spaces = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        assert!(pre(&byte_level_with(spaces, false)).unwrap_err().contains("as none of GGUF's splitters does"));
        let mut lower = byte_level_with(splitting(named("gpt-2").unwrap()), false);
        lower["normalizer"] = json!({"type": "Lowercase"});
        assert!(pre(&lower).unwrap_err().contains("the normalizer is"));
        let mut words = lower.clone();
        words["model"]["type"] = json!("WordLevel");
        assert!(pre(&words).unwrap_err().contains("\"WordLevel\", which is not written"));
        let mut suffix = lower.clone();
        suffix["model"]["end_of_word_suffix"] = json!("</w>");
        assert!(pre(&suffix).unwrap_err().contains("end_of_word_suffix"));
    }

    #[test]
    fn merges_become_scores_where_they_can() {
        let tree = |merges: Json| {
            json!({"model": {"type": "BPE", "byte_fallback": true, "unk_token": "<unk>", "merges": merges,
            "vocab": {"<unk>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5, "abc": 6, "<0x0A>": 7}},
            "added_tokens": [{"id": 0, "content": "<unk>", "special": true}], "decoder": {"type": "Sequence"},
            "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"}})
        };
        let good = tree(json!([["b", "c"], ["ab", "c"], ["a", "bc"], ["a", "b"]]));
        let all: BTreeMap<String, Value> = entries(&good.to_string(), 9).unwrap().into_iter().collect();
        let scores: Vec<f64> = all["tokenizer.ggml.scores"].list().unwrap().iter().filter_map(|v| v.real()).collect();
        assert_eq!(scores, [0.0, -4.0, -4.0, -4.0, -2.0, 0.0, -1.0, 0.0, 0.0]);
        let kinds: Vec<i64> =
            all["tokenizer.ggml.token_type"].list().unwrap().iter().filter_map(|v| v.signed()).collect();
        assert_eq!(kinds, [2, 1, 1, 1, 1, 1, 1, 6, 5]);
        assert_eq!(all["tokenizer.ggml.add_space_prefix"], Value::Flag(false));
        for merges in
            [json!([["b", "c"], ["ab", "c"], ["a", "b"]]), json!([["ab", "c"], ["b", "c"], ["a", "bc"], ["a", "b"]])]
        {
            assert!(entries(&tree(merges).to_string(), 9).unwrap_err().contains("scores of tokens cannot say"));
        }
    }
}
