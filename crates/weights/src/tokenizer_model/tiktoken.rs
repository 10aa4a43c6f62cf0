//! tiktoken's lines of a token in base64 and its rank, as Meta publishes Llama 3's vocabulary, as a `tokenizer.json`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// How texts are split before they are merged: the pattern of `cl100k_base` and Llama 3.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Most ids of a vocabulary.
const MOST: u64 = 1 << 24;

/// Whether `bytes` begin as such a file does.
pub fn is_one(bytes: &[u8]) -> bool {
    let line = bytes[..bytes.len().min(1024)].split(|byte| *byte == b'\n').next().unwrap_or_default();
    std::str::from_utf8(line).is_ok_and(|line| entry(line.trim_end()).is_some())
}

/// A token and its rank.
fn entry(line: &str) -> Option<(Vec<u8>, u64)> {
    let (token, rank) = line.split_once(' ')?;
    let token = STANDARD.decode(token).ok().filter(|token| !token.is_empty())?;
    Some((token, rank.parse().ok().filter(|rank| *rank < MOST)?))
}

/// The `tokenizer.json`; `config` names tokens behind the ranks in `added_tokens_decoder`.
///
/// # Errors
/// A line that is no token and its rank.
pub fn tokenizer(bytes: &[u8], config: &Value) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("not UTF-8 at byte {}", e.valid_up_to()))?;
    let mut ranks: HashMap<Vec<u8>, u64> = HashMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let (token, rank) =
            entry(line).ok_or_else(|| format!("line {} is no token in base64 and its rank: {line:?}", at + 1))?;
        ranks.insert(token, rank);
    }
    let vocab: Map<String, Value> = ranks.iter().map(|(token, rank)| (spelled(token), json!(rank))).collect();
    let all = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added(&ranks, config),
        "normalizer": null, "post_processor": null, "decoder": level(true),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false}, level(false),
        ]},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocab, "merges": merges(&ranks)},
    });
    Ok(all.to_string())
}

fn level(splits: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": splits})
}

/// Every two tokens that make a third, by its rank, then by theirs.
fn merges(ranks: &HashMap<Vec<u8>, u64>) -> Vec<Value> {
    let mut all: Vec<(u64, u64, u64, &[u8], usize)> = Vec::new();
    for (token, rank) in ranks {
        for at in 1..token.len() {
            if let (Some(left), Some(right)) = (ranks.get(&token[..at]), ranks.get(&token[at..])) {
                all.push((*rank, *left, *right, token, at));
            }
        }
    }
    all.sort_unstable();
    all.into_iter().map(|(.., token, at)| json!([spelled(&token[..at]), spelled(&token[at..])])).collect()
}

/// Tokens behind the ranks: those that the config names, and a name for every id between.
fn added(ranks: &HashMap<Vec<u8>, u64>, config: &Value) -> Vec<Value> {
    let named: BTreeMap<u64, &Value> = config["added_tokens_decoder"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(id, token)| Some((id.parse().ok().filter(|id| *id < MOST)?, token)))
        .collect();
    let (first, last) = (ranks.len() as u64, named.keys().last().copied().unwrap_or(0));
    (first..=last)
        .map(|id| {
            let name = named.get(&id).and_then(|token| token["content"].as_str());
            let name = name.map_or_else(|| format!("<|reserved_token_{id}|>"), str::to_string);
            json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect()
}

/// Bytes in GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100 on.
fn spelled(bytes: &[u8]) -> String {
    let of = |byte: u8| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=0x20 => shifted(u32::from(byte)),
        0x7f..=0xa0 => shifted(u32::from(byte) - 0x7f + 0x21),
        0xad => shifted(0x43),
    };
    bytes.iter().map(|byte| of(*byte)).collect()
}

fn shifted(n: u32) -> char {
    char::from_u32(0x100 + n).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_from_other_files_and_broken_ones_are_named() {
        assert!(is_one(b"IQ== 0\nIg== 1\n") && is_one(b"IQ== 0\r\n"));
        for bytes in [&b""[..], b"{}", b"\n\x0e\n\x05<unk>", b"IQ== x\n", b"IQ==\n"] {
            assert!(!is_one(bytes), "{bytes:?}");
        }
        let message = tokenizer(b"IQ== 0\nIg== one\n", &Value::Null).unwrap_err();
        assert_eq!(message, "line 2 is no token in base64 and its rank: \"Ig== one\"");
    }

    #[test]
    fn merges_are_ranked_and_ids_behind_them_named() {
        // a, b, ab, the byte 0, and a token of ours two ids on.
        let config = json!({"added_tokens_decoder": {"5": {"content": "<|end|>"}}});
        let text = tokenizer(b"YQ== 0\nYg== 1\nYWI= 2\nAA== 3\n", &config).unwrap();
        let tree: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(tree["model"]["merges"], json!([["a", "b"]]));
        assert_eq!(tree["model"]["vocab"], json!({"a": 0, "b": 1, "ab": 2, "\u{100}": 3}));
        let names: Vec<&str> =
            tree["added_tokens"].as_array().unwrap().iter().filter_map(|t| t["content"].as_str()).collect();
        assert_eq!(names, ["<|reserved_token_4|>", "<|end|>"]);
        assert_eq!(spelled(&[0xad, 0x20, 0x7f, 0xa0, b'x']), "\u{143}\u{120}\u{121}\u{142}x");
    }
}
