//! The tokenizer: a file's metadata to the files that lie beside a checkpoint, and back.
//!
//! `tokenizer.huggingface.json` is a whole `tokenizer.json`. Without it, byte-level BPEs (`tokenizer.ggml.model` is `gpt2`)
//! become `vocab.json` and `merges.txt`. A sentencepiece vocabulary alone is no tokenizer here.

use super::config::Entry;
use super::header::{Header, Value};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// The whole `tokenizer.json`.
const WHOLE: &str = "tokenizer.huggingface.json";
/// Kinds of tokens in `tokenizer.ggml.token_type`.
const NORMAL: i64 = 1;
const CONTROL: i64 = 3;
const USER: i64 = 4;
const UNUSED: i64 = 5;
/// Splitters that are GPT-2's, as `tokenizer.ggml.pre` names them.
const GPT2: [&str; 3] = ["gpt-2", "gpt2", "default"];

/// Gives a text of a checkpoint's folder by its name.
pub(super) type Documents = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The tokenizer's files that the metadata stands for; they are made when they are asked for.
pub(super) fn documents(header: &Header) -> Documents {
    let text = |key: &str| header.metadata.get(key).and_then(Value::text).map(str::to_string);
    if let Some(whole) = text(WHOLE) {
        return Box::new(move |name: &str| (name == "tokenizer.json").then(|| whole.clone()));
    }
    let list = |key: &str| -> Option<Vec<String>> {
        Some(header.metadata.get(key)?.texts()?.into_iter().map(str::to_string).collect())
    };
    let (Some("gpt2"), Some(tokens), Some(merges)) =
        (text("tokenizer.ggml.model").as_deref(), list("tokenizer.ggml.tokens"), list("tokenizer.ggml.merges"))
    else {
        return Box::new(|_: &str| None);
    };
    let kinds: Vec<i64> = match header.metadata.get("tokenizer.ggml.token_type") {
        Some(Value::List(kinds)) => kinds.iter().map(|k| k.whole().map_or(NORMAL, |n| n as i64)).collect(),
        _ => Vec::new(),
    };
    let pre = text("tokenizer.ggml.pre").filter(|pre| !GPT2.contains(&pre.as_str()));
    let eos = header.metadata.get("tokenizer.ggml.eos_token_id").and_then(Value::whole);
    Box::new(move |name: &str| {
        let kind = |id: usize| kinds.get(id).copied().unwrap_or(NORMAL);
        match name {
            "vocab.json" => {
                let used = tokens.iter().enumerate().filter(|(id, _)| kind(*id) != UNUSED);
                Some(json!(used.map(|(id, token)| (token, id)).collect::<BTreeMap<_, _>>()).to_string())
            }
            "merges.txt" => Some(format!("#version: 0.2\n{}\n", merges.join("\n"))),
            "tokenizer_config.json" => {
                let mut config = Map::new();
                // Another splitter than GPT-2's is refused by this name.
                config.insert("tokenizer_class".into(), json!(pre.as_deref().unwrap_or("GPT2Tokenizer")));
                if let Some(eos) = eos.and_then(|id| tokens.get(id as usize)) {
                    config.insert("eos_token".into(), json!(eos));
                }
                let added = tokens.iter().enumerate().filter(|(id, _)| [CONTROL, USER].contains(&kind(*id)));
                let added = added.map(|(id, token)| {
                    (id.to_string(), json!({"content": token, "special": kind(id) == CONTROL, "normalized": false}))
                });
                config.insert("added_tokens_decoder".into(), Json::Object(added.collect()));
                Some(Json::Object(config).to_string())
            }
            _ => None,
        }
    })
}

/// The metadata of a `tokenizer.json`: the whole text, and for a byte-level BPE what llama.cpp reads, filled up to
/// `vocab` rows.
pub(super) fn entries(text: &str, architecture: &str, vocab: usize) -> Result<Vec<Entry>, String> {
    let tree: Json = serde_json::from_str(text).map_err(|e| format!("tokenizer.json: {e}"))?;
    let mut out = Vec::new();
    if let Some(list) = byte_level(&tree, architecture, vocab) {
        out.extend(list);
    }
    out.push((WHOLE.to_string(), Value::Text(text.to_string())));
    Ok(out)
}

fn byte_level(tree: &Json, architecture: &str, vocab: usize) -> Option<Vec<Entry>> {
    let is_bpe = tree["model"]["type"].as_str().is_none_or(|kind| kind == "BPE");
    if !is_bpe || tree["decoder"]["type"] != "ByteLevel" {
        return None;
    }
    let mut tokens: BTreeMap<u64, (String, i64)> = BTreeMap::new();
    for (token, id) in tree["model"]["vocab"].as_object()? {
        tokens.insert(id.as_u64()?, (token.clone(), NORMAL));
    }
    for token in tree["added_tokens"].as_array()? {
        let kind = if token["special"] == true { CONTROL } else { USER };
        tokens.insert(token["id"].as_u64()?, (token["content"].as_str()?.to_string(), kind));
    }
    let rows = (*tokens.last_key_value()?.0 as usize + 1).max(vocab);
    let row = |id: usize| tokens.get(&(id as u64)).cloned().unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED));
    let all: Vec<(String, i64)> = (0..rows).map(row).collect();
    let merge = |merge: &Json| match merge {
        Json::String(text) => Some(text.clone()),
        pair => Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?)),
    };
    let merges: Option<Vec<String>> = tree["model"]["merges"].as_array()?.iter().map(merge).collect();
    let texts = |list: Vec<String>| Value::List(list.into_iter().map(Value::Text).collect());
    let pre = if architecture == "qwen2" { "qwen2" } else { "gpt-2" };
    Some(vec![
        ("tokenizer.ggml.model".into(), Value::Text("gpt2".into())),
        ("tokenizer.ggml.pre".into(), Value::Text(pre.into())),
        ("tokenizer.ggml.token_type".into(), Value::List(all.iter().map(|(_, kind)| Value::Signed(*kind)).collect())),
        ("tokenizer.ggml.tokens".into(), texts(all.into_iter().map(|(token, _)| token).collect())),
        ("tokenizer.ggml.merges".into(), texts(merges?)),
    ])
}
