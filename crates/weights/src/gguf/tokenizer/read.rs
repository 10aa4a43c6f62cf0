//! What a file says of its tokenizer, as the `tokenizer.json` of the `tokenizers` crate.

use super::splitters::{self, Splitter};
use super::vocabulary::{Kind, Vocabulary};
use super::{MERGES, charsmap};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;

/// How SentencePiece writes a space.
const SPACE: &str = "\u{2581}";
const PRE: &str = "tokenizer.ggml.pre";

/// The `tokenizer.json`; `warn` takes what the user should know of it.
///
/// # Errors
/// A model or a splitter that is not known.
pub fn tokenizer(vocabulary: &Vocabulary, warn: &dyn Fn(&str)) -> Result<String, String> {
    let parts = match vocabulary.text("tokenizer.ggml.model").unwrap_or("none") {
        "gpt2" => byte_pairs(vocabulary, splitter(vocabulary, warn)?)?,
        "gemma4" => {
            byte_pairs(vocabulary, splitters::named("gemma4").ok_or("the splitter gemma4 is not in the table")?)?
        }
        "llama" => merged(vocabulary),
        "t5" => unigram(vocabulary)?,
        other => {
            return Err(format!(
                "tokenizer.ggml.model is {other:?}, supported are gpt2, gemma4, llama and t5; a tokenizer.json as tokenizer.huggingface.json is read instead"
            ));
        }
    };
    let [model, normalizer, splitting, decoder] = parts;
    let all = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added(vocabulary), "normalizer": normalizer,
        "pre_tokenizer": splitting, "post_processor": null, "decoder": decoder, "model": model,
    });
    Ok(all.to_string())
}

/// Whether llama.cpp adds the token `bos` or `eos` by default.
pub fn adds(vocabulary: &Vocabulary, name: &str) -> bool {
    let pre = vocabulary.text(PRE).unwrap_or("");
    match (vocabulary.text("tokenizer.ggml.model").unwrap_or("none"), name) {
        ("llama", "bos") | ("t5", "eos") | ("gemma4", "bos") => true,
        ("gpt2", "bos") => {
            splitters::named(pre).is_some_and(|s| s.names[0] == "llama-bpe") || ["tekken", "chameleon"].contains(&pre)
        }
        _ => false,
    }
}

fn splitter(vocabulary: &Vocabulary, warn: &dyn Fn(&str)) -> Result<&'static Splitter, String> {
    let pre = vocabulary.text(PRE).unwrap_or("");
    if ["", "default"].contains(&pre) {
        let how = if pre.is_empty() { "is missing" } else { "is \"default\"" };
        warn(&format!(
            "{PRE} {how}: texts are split by llama.cpp's default, which is that of no published model; with the model's own splitter it would read texts as it was trained to"
        ));
        return Ok(&splitters::SPLITTERS[0]);
    }
    splitters::named(pre).ok_or_else(|| format!("{PRE} is {pre:?}, known are {}", splitters::names()))
}

/// Model, normalizer, pre-tokenizer and decoder.
type Parts = [Json; 4];

/// A BPE whose merges the file lists.
fn byte_pairs(vocabulary: &Vocabulary, splitter: &Splitter) -> Result<Parts, String> {
    let ids = ids(vocabulary);
    let merges = vocabulary.list(MERGES).and_then(|list| list.texts());
    let merges = merges.ok_or_else(|| format!("{MERGES} is missing or no list of texts"))?;
    // A merge of what is no token is never made.
    let known = |(left, right): &(&str, &str)| {
        [*left, *right, &format!("{left}{right}")].iter().all(|text| ids.contains_key(*text))
    };
    let merges: Vec<Json> =
        merges.filter_map(split_merge).filter(known).map(|(left, right)| json!([left, right])).collect();
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": !splitter.is_byte_level, "ignore_merges": splitter.ignores_merges,
        "vocab": ids, "merges": merges,
    });
    let normalizer = if splitter.escapes_spaces { spaces(false) } else { Json::Null };
    let decoder = if splitter.is_byte_level { byte_level() } else { joined(splitter.escapes_spaces, false) };
    Ok([model, normalizer, splitting(splitter), decoder])
}

/// The pre-tokenizer of a splitter.
pub fn splitting(splitter: &Splitter) -> Json {
    let one = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let mut all: Vec<Json> = splitter.patterns.iter().map(one).collect();
    if splitter.is_byte_level {
        all.push(byte_level());
    }
    json!({"type": "Sequence", "pretokenizers": all})
}

/// GPT-2's alphabet of bytes alone.
fn byte_level() -> Json {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})
}

/// Two tokens with a space between; the first may begin with one.
fn split_merge(merge: &str) -> Option<(&str, &str)> {
    let first = merge.chars().next()?.len_utf8();
    let at = merge[first..].find(' ')? + first;
    Some((&merge[..at], &merge[at + 1..]))
}

/// The merges of SentencePiece's BPE: of any two pieces that make a third, all of them normal, the pair whose piece has the
/// highest score comes first.
pub fn ranked_merges(texts: &[String], kinds: &[Kind], scores: &[f64]) -> Vec<Json> {
    let normal = |(_, (_, kind)): &(usize, (&String, &Kind))| **kind == Kind::Normal;
    let normal = texts.iter().zip(kinds).enumerate().filter(normal);
    let ids: HashMap<&str, usize> = normal.map(|(id, (text, _))| (text.as_str(), id)).collect();
    let mut merges: Vec<(f64, usize, &str, &str)> = Vec::new();
    for (text, id) in &ids {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if [left, right].iter().all(|part| ids.contains_key(*part)) {
                merges.push((scores.get(*id).copied().unwrap_or(0.0), *id, left, right));
            }
        }
    }
    // At one score, longer pieces on the left come first, as in transformers' conversion.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.len().cmp(&b.2.len())));
    merges.iter().map(|(_, _, left, right)| json!([left, right])).collect()
}

/// SentencePiece's BPE.
fn merged(vocabulary: &Vocabulary) -> Parts {
    let (ids, merges) = (ids(vocabulary), ranked_merges(&vocabulary.texts, &vocabulary.kinds, &vocabulary.scores));
    let has_bytes = vocabulary.kinds.contains(&Kind::Byte);
    let unknown = vocabulary.unknown().map(|id| vocabulary.texts[id as usize].as_str());
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": has_bytes, "ignore_merges": false,
        "vocab": ids, "merges": merges,
    });
    let prefix = vocabulary.flag("tokenizer.ggml.add_space_prefix", true);
    [model, spaces(prefix), Json::Null, joined(true, prefix)]
}

/// SentencePiece's unigram model: the most probable pieces.
fn unigram(vocabulary: &Vocabulary) -> Result<Parts, String> {
    if vocabulary.scores.is_empty() {
        return Err("tokenizer.ggml.scores is missing or shorter than the list of tokens".into());
    }
    let unknown = vocabulary.unknown();
    let pieces: Vec<Json> =
        vocabulary.texts.iter().zip(&vocabulary.scores).map(|(text, score)| json!([text, score])).collect();
    let model = json!({"type": "Unigram", "unk_id": unknown, "vocab": pieces, "byte_fallback": vocabulary.kinds.contains(&Kind::Byte)});
    let mut normalizers = Vec::new();
    if let Some(map) = vocabulary.list("tokenizer.ggml.precompiled_charsmap") {
        let bytes: Vec<u8> = map.iter().map(|v| v.signed().unwrap_or(0) as u8).collect();
        if !bytes.is_empty() {
            charsmap::check(&bytes)?;
            normalizers.push(json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(&bytes)}));
        }
    }
    if vocabulary.flag("tokenizer.ggml.remove_extra_whitespaces", false) {
        normalizers.push(json!({"type": "Strip", "strip_left": true, "strip_right": true}));
        normalizers.push(json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}));
    }
    let prefix = vocabulary.flag("tokenizer.ggml.add_space_prefix", false);
    normalizers.push(spaces(prefix));
    Ok([model, json!({"type": "Sequence", "normalizers": normalizers}), Json::Null, joined(true, prefix)])
}

/// Spaces as SentencePiece writes them, with one in front where `prefix` says so.
fn spaces(prefix: bool) -> Json {
    let mut all = Vec::new();
    if prefix {
        all.push(json!({"type": "Prepend", "prepend": SPACE}));
    }
    all.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
    json!({"type": "Sequence", "normalizers": all})
}

/// Pieces and bytes joined to a text.
fn joined(escapes_spaces: bool, prefix: bool) -> Json {
    let mut all = Vec::new();
    if escapes_spaces {
        all.push(json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}));
    }
    all.extend([json!({"type": "ByteFallback"}), json!({"type": "Fuse"})]);
    if prefix {
        all.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": all})
}

/// Ids by text; rows that fill the table up are no tokens of a text.
fn ids<'v>(vocabulary: &'v Vocabulary) -> HashMap<&'v str, u32> {
    let all = vocabulary.texts.iter().zip(&vocabulary.kinds).enumerate();
    all.filter(|(_, (_, kind))| **kind != Kind::Unused).map(|(id, (text, _))| (text.as_str(), id as u32)).collect()
}

/// Tokens that are recognised in a text.
fn added(vocabulary: &Vocabulary) -> Vec<Json> {
    let name = vocabulary.text("general.name").unwrap_or("").to_lowercase();
    // As llama.cpp, for transformers' file of Phi-3 says so and GGUF cannot.
    let is_phi3 = ["phi-3", "phi3"].iter().any(|part| name.contains(part));
    let all = vocabulary.texts.iter().zip(&vocabulary.kinds).enumerate();
    all.filter(|(_, (_, kind))| matches!(kind, Kind::Control | Kind::User | Kind::Unknown))
        .map(|(id, (text, kind))| {
            let mut token = Map::new();
            token.insert("id".into(), json!(id));
            token.insert("content".into(), json!(text));
            for flag in ["single_word", "lstrip", "normalized"] {
                token.insert(flag.into(), json!(false));
            }
            let strips = is_phi3 && !["<unk>", "<s>", "<|endoftext|>"].contains(&text.as_str());
            token.insert("rstrip".into(), json!(strips));
            token.insert("special".into(), json!(*kind != Kind::User));
            Json::Object(token)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_may_begin_with_a_space() {
        assert_eq!(split_merge("a b"), Some(("a", "b")));
        assert_eq!(split_merge("  a"), Some((" ", "a")));
        assert_eq!(split_merge("Ġ Ġa"), Some(("Ġ", "Ġa")));
        assert_eq!((split_merge("ab"), split_merge("")), (None, None));
    }
}
