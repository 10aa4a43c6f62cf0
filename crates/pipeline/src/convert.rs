//! A decoder's checkpoint to GGUF: what the file says of the decoder is read off its registered component.

use crate::built_in;
use anyhow::{Result, bail};
use limber_core::WeightSource;
use limber_core::registry::Role;
use limber_text::Tokenizer;
use limber_weights::{Checkpoint, ConvertOptions, ConvertProgress, ConvertSummary, DecoderDocuments};
use serde_json::Value;
use std::path::Path;

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
