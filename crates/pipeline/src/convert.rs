//! A checkpoint to a folder with its documents, or a decoder's to GGUF: what the file says of the decoder is read off its
//! registered component.

use crate::built_in;
use anyhow::{Context, Result, bail};
use limber_core::WeightSource;
use limber_core::registry::Role;
use limber_text::Tokenizer;
use limber_weights::{Checkpoint, ConvertOptions, ConvertProgress, ConvertSummary, DecoderDocuments};
use serde_json::Value;
use std::path::Path;

/// The weights in a folder that is written.
const WEIGHTS: &str = "model.safetensors";

/// Documents that lie beside weights and are read again where a folder is opened.
const DOCUMENTS: [&str; 12] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "open_clip_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];

/// Whether a checkpoint has documents beside its weights, without which a file of them is no model.
///
/// # Errors
/// A document that cannot be read.
pub fn has_documents(checkpoint: &Checkpoint) -> Result<bool> {
    Ok(checkpoint.document(DOCUMENTS[0])?.is_some())
}

/// Writes the folder `to`: all tensors of `checkpoint` as one safetensors file, which appears when it is complete, and the
/// documents beside them, so that it opens as the checkpoint does.
///
/// # Errors
/// The checkpoint's own folder; otherwise as [`limber_weights::convert`].
pub fn to_folder(
    checkpoint: &Checkpoint,
    to: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(ConvertProgress),
) -> Result<ConvertSummary> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make the folder {}", to.display()))?;
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    if checkpoint.folder().and_then(real).is_some_and(|own| Some(own) == real(to)) {
        bail!("{} is the folder that is read, expected another one", to.display())
    }
    for name in DOCUMENTS {
        let path = to.join(name);
        match checkpoint.document(name)?.filter(|text| !text.trim().is_empty()) {
            Some(text) => limber_weights::replace(&path, text.as_bytes())?,
            // What an earlier conversion left would be read with these weights.
            None if path.is_file() => {
                std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
            None => {}
        }
    }
    limber_weights::convert(checkpoint, &to.join(WEIGHTS), options, progress)
}

/// Writes the decoder in `checkpoint` to the GGUF file `to`, which appears when it is complete.
///
/// # Errors
/// A checkpoint that is no decoder's; otherwise as [`limber_weights::convert_to_gguf`].
pub fn to_gguf(
    checkpoint: &Checkpoint,
    to: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(ConvertProgress),
) -> Result<ConvertSummary> {
    let registry = built_in::registry()?;
    let source: &dyn WeightSource = checkpoint;
    let entry = registry.detect(Role::Decoder, source)?;
    let prepared = registry.decoder(&entry.kind, Value::Null, source)?;
    let Value::Object(settings) = prepared.settings else { bail!("{} has no settings", entry.kind) };
    let tokenizer = match source.document("tokenizer.json")? {
        // What cannot be read is not left out.
        Some(_) => Tokenizer::from_source(source)?.to_json(),
        None => Tokenizer::from_source(source).ok().and_then(|tokenizer| tokenizer.to_json()),
    };
    let documents = DecoderDocuments { settings, tokenizer };
    limber_weights::convert_to_gguf(checkpoint, &documents, to, options, progress)
}
