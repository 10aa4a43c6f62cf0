//! A decoder's checkpoint to GGUF, or to a folder that transformers opens: what a file says of the decoder is read off its
//! registered component.

use crate::built_in;
use anyhow::{Context, Result, bail};
use limber_core::registry::Role;
use limber_core::{ModelConfig, WeightSource};
use limber_text::Tokenizer;
use limber_weights::{
    Checkpoint, Container, ConvertOptions, ConvertProgress, ConvertSummary, DecoderDocuments, convert,
};
use serde_json::{Value, json};
use std::path::Path;

const CONFIG: &str = "tokenizer_config.json";
/// Transformers' classes by `model_type`, for a description that does not say.
const CLASSES: [(&str, &str); 18] = [
    ("gemma", "GemmaForCausalLM"),
    ("gemma2", "Gemma2ForCausalLM"),
    ("gemma3_text", "Gemma3ForCausalLM"),
    ("gpt2", "GPT2LMHeadModel"),
    ("gpt_neox", "GPTNeoXForCausalLM"),
    ("gptj", "GPTJForCausalLM"),
    ("granite", "GraniteForCausalLM"),
    ("falcon", "FalconForCausalLM"),
    ("llama", "LlamaForCausalLM"),
    ("mistral", "MistralForCausalLM"),
    ("mpt", "MptForCausalLM"),
    ("olmo2", "Olmo2ForCausalLM"),
    ("phi3", "Phi3ForCausalLM"),
    ("qwen2", "Qwen2ForCausalLM"),
    ("qwen3", "Qwen3ForCausalLM"),
    ("smollm3", "SmolLM3ForCausalLM"),
    ("stablelm", "StableLmForCausalLM"),
    ("starcoder2", "Starcoder2ForCausalLM"),
];

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
    let documents = documents(checkpoint)?;
    limber_weights::convert_to_gguf(checkpoint, &documents, to, options, progress)
}

/// Resolved settings of the decoder, and its tokenizer.
fn documents(source: &dyn WeightSource) -> Result<DecoderDocuments> {
    let registry = built_in::registry()?;
    let entry = registry.detect(Role::Decoder, source)?;
    let prepared = registry.decoder(&entry.kind, Value::Null, source)?;
    let Value::Object(settings) = prepared.settings else { bail!("{} has no settings", entry.kind) };
    let tokenizer = match source.document("tokenizer.json")? {
        // What cannot be read is not left out.
        Some(_) => Tokenizer::from_source(source)?.to_json(),
        None => Tokenizer::from_source(source).ok().and_then(|tokenizer| tokenizer.to_json()),
    };
    Ok(DecoderDocuments { settings, tokenizer })
}

/// Writes the decoder in `checkpoint` to the folder `to`, as transformers' `save_pretrained` does: `model.safetensors`,
/// `config.json`, the tokenizer, `generation_config.json` where there is one.
///
/// # Errors
/// A checkpoint that is no decoder's, or that lies in `to`; quantised tensors without a type to write them in.
pub fn to_folder(
    checkpoint: &Checkpoint,
    to: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(ConvertProgress),
) -> Result<ConvertSummary> {
    let source: &dyn WeightSource = checkpoint;
    let tokenizer = documents(source)?.tokenizer;
    std::fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let own = checkpoint.folder().and_then(|folder| folder.canonicalize().ok());
    if own.is_some_and(|own| to.canonicalize().is_ok_and(|to| to == own)) {
        bail!("{} is the folder of the checkpoint itself, expected another one", to.display())
    }
    let options = ConvertOptions { to: Container::Transformers, ..options.clone() };
    let summary = convert(checkpoint, &to.join("model.safetensors"), &options, progress)?;
    let mut texts = Vec::new();
    if let Some(config) = ModelConfig::read(source)? {
        let class = config.model_type().and_then(|kind| CLASSES.iter().find(|(name, _)| *name == kind));
        let mut tree = config.into_tree();
        if let (Some((_, class)), None) = (class, tree.get("architectures")) {
            tree["architectures"] = json!([class]);
        }
        texts.push(("config.json", format!("{tree:#}")));
    }
    // A GGUF file says all in the former.
    let generation = source.document("generation_config.json")?.filter(|text| text.trim() != "{}");
    texts.extend(generation.map(|text| ("generation_config.json", text)));
    if let Some(tokenizer) = tokenizer {
        let mut config = ModelConfig::document(source, CONFIG)?.map_or_else(|| json!({}), ModelConfig::into_tree);
        // The one that reads tokenizer.json as it stands.
        config["tokenizer_class"] = json!("PreTrainedTokenizerFast");
        texts.extend([("tokenizer.json", tokenizer), (CONFIG, format!("{config:#}"))]);
    }
    for (name, text) in texts {
        limber_weights::replace(&to.join(name), text.as_bytes())?;
    }
    Ok(summary)
}
