//! `tokenizer.model`: a vocabulary of SentencePiece or of tiktoken as a `tokenizer.json`, where a folder has no such file.
//!
//! Source followed: transformers' `convert_slow_tokenizer.py` (`SpmConverter`, `TikTokenConverter`) and its classes
//! `LlamaTokenizer` and `GemmaTokenizer`, which read models of theirs in a way of their own.

mod build;
mod proto;
mod tiktoken;

use serde_json::{Value, json};

/// Names of such a file, in the order in which they are looked for.
pub(super) const NAMES: [&str; 2] = ["tokenizer.model", "tiktoken.model"];

/// The `tokenizer.json` and the `tokenizer_config.json` that the file `bytes` stands for; `config` is the latter as it lies
/// beside it, null where there is none, `model_type` that of `config.json`.
///
/// # Errors
/// Bytes that are neither's, a model of a type that `tokenizers` has not.
pub fn documents(bytes: &[u8], config: &Value, model_type: Option<&str>) -> Result<(String, String), String> {
    let mut config = if config.is_object() { config.clone() } else { json!({}) };
    if tiktoken::is_one(bytes) {
        return Ok((tiktoken::tokenizer(bytes, &config)?, config.to_string()));
    }
    let model = proto::Model::read(bytes)?;
    let class = build::Class::of(&config, model_type);
    let tokenizer = build::tokenizer(&model, &config, class)?;
    // What ends a text is in the model; a class has names of its own.
    let end = if class == build::Class::Gemma { "<eos>" } else { &model.end };
    if config.get("eos_token").is_none() {
        config["eos_token"] = json!(end);
    }
    Ok((tokenizer, config.to_string()))
}
