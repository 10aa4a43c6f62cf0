//! The tokenizer: a file's metadata to the files that lie beside a checkpoint, and back.
//!
//! `tokenizer.huggingface.json` is a whole `tokenizer.json`. Without it, `tokenizer.json` is made of what llama.cpp reads:
//! byte-level BPEs (`tokenizer.ggml.model` is `gpt2`) with the splitter that `tokenizer.ggml.pre` names, BPEs of
//! SentencePiece with bytes to fall back to (`llama`), unigram models (`t5`).
//! Source followed: llama.cpp's `src/llama-vocab.cpp`.

mod charsmap;
mod read;
mod splitters;
mod vocabulary;
mod write;

pub(crate) use charsmap::check as check_charsmap;
pub(crate) use read::ranked_merges;
pub(crate) use vocabulary::Kind;
pub(super) use vocabulary::Vocabulary;
pub(super) use write::entries;

use super::header::Header;
use limber_core::weights::SharedBytes;
use serde_json::{Map, Value as Json, json};
use std::sync::atomic::{AtomicBool, Ordering};

/// The whole `tokenizer.json`.
const WHOLE: &str = "tokenizer.huggingface.json";
/// The merges of a BPE.
const MERGES: &str = "tokenizer.ggml.merges";
/// The file of the chat template.
const CHAT: &str = "chat_template.jinja";
/// Files that say nothing where the file says all: another model's may lie in the same folder.
const SILENT: [&str; 5] =
    ["special_tokens_map.json", "added_tokens.json", "generation_config.json", "vocab.json", "merges.txt"];

/// Gives a text of a checkpoint's folder by its name.
pub(super) type Documents = Box<dyn Fn(&str) -> Result<Option<String>, String> + Send + Sync>;

/// The tokenizer's files that the metadata of the file `bytes` stands for; they are made when they are asked for.
pub(super) fn documents(bytes: SharedBytes) -> Documents {
    let warned = AtomicBool::new(false);
    Box::new(move |name: &str| {
        if !["tokenizer.json", "tokenizer_config.json", CHAT].contains(&name) && !SILENT.contains(&name) {
            return Ok(None);
        }
        let header = Header::read((*bytes).as_ref())?;
        let Some(vocabulary) = Vocabulary::read(&header) else {
            let whole = header.metadata.get(WHOLE).and_then(|v| v.text());
            return Ok(whole.filter(|_| name == "tokenizer.json").map(str::to_string));
        };
        // A list of tokens alone is no tokenizer.
        let is_bare = vocabulary.text("tokenizer.ggml.model") == Some("gpt2") && vocabulary.list(MERGES).is_none();
        if is_bare && vocabulary.text(WHOLE).is_none() {
            return Ok(None);
        }
        let warn = |message: &str| {
            if !warned.swap(true, Ordering::Relaxed) {
                tracing::warn!("{message}");
            }
        };
        match name {
            "tokenizer.json" => match vocabulary.text(WHOLE) {
                Some(whole) => Ok(Some(whole.to_string())),
                None => read::tokenizer(&vocabulary, &warn).map(Some),
            },
            "tokenizer_config.json" => Ok(Some(settings(&vocabulary))),
            // An empty one is none: that of the folder may be another model's.
            CHAT => Ok(Some(vocabulary.text("tokenizer.chat_template").unwrap_or_default().to_string())),
            _ => Ok(SILENT[..3].contains(&name).then(|| "{}".to_string())),
        }
    })
}

/// `tokenizer_config.json`: the names of special tokens. Beginning and end of text are added to no text here, whatever the
/// file asks for; what it asks for is kept.
fn settings(vocabulary: &Vocabulary) -> String {
    let mut out = Map::new();
    for name in ["bos", "eos"] {
        if let Some(id) = vocabulary.special(name) {
            out.insert(format!("{name}_token"), json!(vocabulary.texts[id as usize]));
        }
        let key = format!("tokenizer.ggml.add_{name}_token");
        out.insert(format!("add_{name}_token"), json!(vocabulary.flag(&key, read::adds(vocabulary, name))));
    }
    Json::Object(out).to_string()
}
