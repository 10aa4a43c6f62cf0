//! A model of SentencePiece as a `tokenizer.json`, in the way of its class.

use super::proto::Model;
use crate::gguf::{Kind, check_charsmap, ranked_merges};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// How SentencePiece writes a space.
const SPACE: &str = "\u{2581}";

/// Transformers' classes that read a model in a way of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A space in front, nothing else is normalised.
    Llama,
    /// No space in front, nothing else is normalised.
    Gemma,
    /// As the model itself says.
    Other,
}

impl Class {
    /// The class that a folder names, or that its model has.
    pub fn of(config: &Value, model_type: Option<&str>) -> Self {
        match config["tokenizer_class"].as_str().map(|class| class.trim_end_matches("Fast")) {
            Some("LlamaTokenizer" | "CodeLlamaTokenizer") => Self::Llama,
            Some("GemmaTokenizer") => Self::Gemma,
            None if model_type.is_some_and(|kind| kind.starts_with("gemma")) => Self::Gemma,
            _ => Self::Other,
        }
    }
}

/// The `tokenizer.json`.
///
/// # Errors
/// A model of another algorithm than unigram and BPE, or whose spaces stand behind words.
pub fn tokenizer(model: &Model, config: &Value, class: Class) -> Result<String, String> {
    if model.suffixes {
        return Err("the model of SentencePiece writes spaces behind words, supported is in front".into());
    }
    if class != Class::Other && model.algorithm != 2 {
        return Err(format!("the model of SentencePiece is of type {}, its class takes 2, BPE", model.algorithm));
    }
    let user: Vec<&str> = model.of_kind(Kind::User).collect();
    let core = match model.algorithm {
        1 => unigram(model),
        2 => byte_pairs(model, class, !user.is_empty()),
        other => {
            return Err(format!("the model of SentencePiece is of type {other}, supported are 1, unigram, and 2, BPE"));
        }
    };
    let [normalizer, splitting, decoder] = match class {
        Class::Llama => llama(config),
        Class::Gemma => [replace(json!({"String": " "}), SPACE), Value::Null, joined(true, false)],
        Class::Other => other(model, config, &user)?,
    };
    // Tokens of a class are found in the text as it stands; the model's own are split off behind its normaliser.
    let added = added(model, class == Class::Other);
    let all = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": splitting, "post_processor": null, "decoder": decoder, "model": core,
    });
    Ok(all.to_string())
}

impl Model {
    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.texts.iter().zip(&self.kinds).filter(move |(_, k)| **k == kind).map(|(text, _)| text.as_str())
    }
}

fn unigram(model: &Model) -> Value {
    let pieces: Vec<Value> = model.texts.iter().zip(&model.scores).map(|(text, score)| json!([text, score])).collect();
    json!({"type": "Unigram", "unk_id": model.unknown_id, "vocab": pieces, "byte_fallback": model.byte_fallback})
}

fn byte_pairs(model: &Model, class: Class, has_own: bool) -> Value {
    let vocab: Map<String, Value> =
        model.texts.iter().enumerate().map(|(id, text)| (text.clone(), json!(id))).collect();
    json!({
        "type": "BPE", "dropout": null, "unk_token": model.unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": model.byte_fallback || class != Class::Other,
        // Pieces of the user are never put together of others.
        "ignore_merges": class == Class::Other && has_own, "vocab": vocab,
        "merges": ranked_merges(&model.texts, &model.kinds, &model.scores),
    })
}

/// Normalizer, pre-tokenizer and decoder of a `LlamaTokenizer`.
fn llama(config: &Value) -> [Value; 3] {
    let prefix = config["add_prefix_space"].as_bool().unwrap_or(true);
    let scheme = match (prefix, config["legacy"].as_bool()) {
        (false, _) => "never",
        (true, Some(true)) => "always",
        (true, _) => "first",
    };
    [Value::Null, metaspace(scheme), joined(true, prefix)]
}

/// Normalizer, pre-tokenizer and decoder as the model itself says.
fn other(model: &Model, config: &Value, user: &[&str]) -> Result<[Value; 3], String> {
    let legacy = config["legacy"].as_bool().unwrap_or(true);
    let mut normalizers = Vec::new();
    if !model.charsmap.is_empty() {
        check_charsmap(&model.charsmap)?;
        normalizers.push(json!({"type": "Precompiled", "precompiled_charsmap": STANDARD.encode(&model.charsmap)}));
    }
    if model.trims {
        normalizers.push(replace(json!({"Regex": r"\A +| +\z"}), ""));
        normalizers.push(replace(json!({"Regex": " {2,}"}), " "));
    }
    if model.escapes {
        normalizers.push(replace(json!({"String": " "}), SPACE));
    }
    let mut splitters = Vec::new();
    if model.prefix {
        if legacy {
            // A text that begins with a space has one more in front all the same.
            normalizers.push(replace(json!({"Regex": format!(r"\A{SPACE}")}), &SPACE.repeat(2)));
        }
        splitters.push(metaspace(if legacy { "always" } else { "first" }));
    }
    if !user.is_empty() {
        let mut pieces = user.to_vec();
        pieces.sort_by_key(|piece| std::cmp::Reverse(piece.chars().count()));
        let pattern = pieces.into_iter().map(escaped).collect::<Vec<_>>().join("|");
        splitters
            .push(json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false}));
    }
    let splitting =
        if splitters.is_empty() { Value::Null } else { json!({"type": "Sequence", "pretokenizers": splitters}) };
    let normalizer = json!({"type": "Sequence", "normalizers": normalizers});
    Ok([normalizer, splitting, joined(model.byte_fallback, model.prefix)])
}

/// A piece as a pattern that finds it alone.
fn escaped(piece: &str) -> String {
    let mut out = String::new();
    for c in piece.chars() {
        // Of other characters a backslash may make an assertion.
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn replace(pattern: Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

fn metaspace(scheme: &str) -> Value {
    json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": false})
}

/// Pieces and bytes joined to a text, without the space in front.
fn joined(has_bytes: bool, prefix: bool) -> Value {
    let mut all = vec![replace(json!({"String": SPACE}), " ")];
    if has_bytes {
        all.push(json!({"type": "ByteFallback"}));
    }
    if has_bytes || prefix {
        all.push(json!({"type": "Fuse"}));
    }
    if prefix {
        all.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": all})
}

/// Tokens that are found in a text: control pieces, and unless they are `split` off later, those of the user.
fn added(model: &Model, split: bool) -> Vec<Value> {
    let all = model.texts.iter().zip(&model.kinds).enumerate();
    all.filter(|(_, (_, kind))| matches!(kind, Kind::Control | Kind::Unknown) || !split && **kind == Kind::User)
        .map(|(id, (text, kind))| {
            json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind != Kind::User})
        })
        .collect()
}
