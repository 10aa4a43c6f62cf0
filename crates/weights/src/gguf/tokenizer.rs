//! The tokenizer: a file's metadata to the files that lie beside a checkpoint, and back.
//!
//! `tokenizer.huggingface.json` is a whole `tokenizer.json`. Without it, byte-level BPEs (`tokenizer.ggml.model` is `gpt2`)
//! become `vocab.json` and `merges.txt`. A sentencepiece vocabulary alone is no tokenizer here.

use super::config::Entry;
use super::header::Header;
use super::value::{List, Value};
use limber_core::weights::SharedBytes;
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

/// The tokenizer's files that the metadata of the file `bytes` stands for; they are made when they are asked for.
pub(super) fn documents(bytes: SharedBytes) -> Documents {
    Box::new(move |name: &str| {
        if !["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"].contains(&name) {
            return None;
        }
        document(&Header::read((*bytes).as_ref()).ok()?, name)
    })
}

fn document(header: &Header, name: &str) -> Option<String> {
    let text = |key: &str| header.metadata.get(key).and_then(Value::text);
    if let Some(whole) = text(WHOLE) {
        return (name == "tokenizer.json").then(|| whole.to_string());
    }
    let list = |key: &str| header.metadata.get(key).and_then(Value::list);
    let tokens: Vec<&str> = list("tokenizer.ggml.tokens")?.texts()?.collect();
    let merges = list("tokenizer.ggml.merges")?.texts()?;
    if text("tokenizer.ggml.model") != Some("gpt2") {
        return None;
    }
    let kinds = || {
        let told = list("tokenizer.ggml.token_type").map(|kinds| kinds.iter());
        let told = told.into_iter().flatten().map(|kind| kind.whole().map_or(NORMAL, |n| n as i64));
        tokens.iter().zip(told.chain(std::iter::repeat(NORMAL))).enumerate()
    };
    match name {
        "vocab.json" => {
            let used = kinds().filter(|(_, (_, kind))| *kind != UNUSED);
            Some(json!(used.map(|(id, (token, _))| (*token, id)).collect::<BTreeMap<_, _>>()).to_string())
        }
        "merges.txt" => {
            let mut all = "#version: 0.2".to_string();
            merges.for_each(|merge| all.extend(["\n", merge]));
            Some(all + "\n")
        }
        "tokenizer_config.json" => {
            let mut config = Map::new();
            // Another splitter than GPT-2's is refused by this name.
            let pre = text("tokenizer.ggml.pre").filter(|pre| !GPT2.contains(pre));
            config.insert("tokenizer_class".into(), json!(pre.unwrap_or("GPT2Tokenizer")));
            let eos = header.metadata.get("tokenizer.ggml.eos_token_id").and_then(Value::whole);
            if let Some(eos) = eos.and_then(|id| tokens.get(usize::try_from(id).ok()?)) {
                config.insert("eos_token".into(), json!(eos));
            }
            let added = kinds().filter(|(_, (_, kind))| [CONTROL, USER].contains(kind)).map(|(id, (token, kind))| {
                (id.to_string(), json!({"content": token, "special": kind == CONTROL, "normalized": false}))
            });
            config.insert("added_tokens_decoder".into(), Json::Object(added.collect()));
            Some(Json::Object(config).to_string())
        }
        _ => None,
    }
}

/// The metadata of a `tokenizer.json`: the whole text, and for a byte-level BPE what llama.cpp reads, filled up to
/// `vocab` rows.
pub(super) fn entries(text: &str, architecture: &str, vocab: usize) -> Result<Vec<Entry>, String> {
    let tree: Json = serde_json::from_str(text).map_err(|e| format!("tokenizer.json: {e}"))?;
    let mut out = Vec::new();
    if let Some(list) = byte_level(&tree, architecture, vocab) {
        out.extend(list);
    }
    out.push((WHOLE.to_string(), Value::Text(text.to_string().into())));
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
    let pre = if architecture == "qwen2" { "qwen2" } else { "gpt-2" };
    Some(vec![
        ("tokenizer.ggml.model".into(), Value::Text("gpt2".into())),
        ("tokenizer.ggml.pre".into(), Value::Text(pre.into())),
        ("tokenizer.ggml.token_type".into(), Value::List(List::of_numbers(all.iter().map(|(_, kind)| *kind)).ok()?)),
        ("tokenizer.ggml.tokens".into(), Value::List(List::of_texts(all.iter().map(|(token, _)| token.as_str())))),
        ("tokenizer.ggml.merges".into(), Value::List(List::of_texts(merges?.iter().map(String::as_str)))),
    ])
}
