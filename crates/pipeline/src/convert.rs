//! A decoder's checkpoint to GGUF, any to a folder that opens as it does: what a file says of the decoder is read off its
//! registered component.

use crate::built_in;
use anyhow::{Context, Result, bail};
use limber_core::registry::Role;
use limber_core::{ModelConfig, WeightSource, WeightType};
use limber_text::Tokenizer;
use limber_weights::{
    Checkpoint, Container, Conversion, ConvertOptions, ConvertSummary, DecoderDocuments, StoredTensor, convert,
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

/// Documents beside weights that are written as they are; a tokenizer is written anew.
const DOCUMENTS: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "open_clip_config.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Writes a decoder to the GGUF file `to`, which appears when it is complete.
///
/// # Errors
/// A checkpoint that is no decoder's; otherwise as [`limber_weights::convert_to_gguf`].
pub fn to_gguf(conversion: Conversion<'_>, to: &Path) -> Result<ConvertSummary> {
    let documents = documents(conversion.checkpoint)?;
    limber_weights::convert_to_gguf(conversion, &documents, to)
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

/// Whether a checkpoint has documents beside its weights, without which a file of them is no model.
///
/// # Errors
/// A document that cannot be read.
pub fn has_documents(checkpoint: &Checkpoint) -> Result<bool> {
    Ok(checkpoint.document("config.json")?.is_some())
}

/// Whether quantised tensors are written of a checkpoint.
pub fn is_quantised(checkpoint: &Checkpoint, options: &ConvertOptions) -> bool {
    let own = |tensor: &StoredTensor| tensor.element.weight_type().is_some_and(WeightType::is_quantised);
    options.dtype.map_or_else(|| checkpoint.stored().values().any(own), WeightType::is_quantised)
}

/// Writes a checkpoint to the folder `to`, which opens as the checkpoint does: `model.safetensors` and the documents beside
/// the weights. A decoder's is as transformers' `save_pretrained` writes it, unless it holds quantised tensors, which
/// transformers does not read.
///
/// # Errors
/// A checkpoint that lies in `to`; otherwise as [`limber_weights::convert`].
pub fn to_folder(conversion: Conversion<'_>, to: &Path) -> Result<ConvertSummary> {
    let Conversion { checkpoint, options, progress } = conversion;
    let source: &dyn WeightSource = checkpoint;
    let is_decoder = built_in::registry()?.detect(Role::Decoder, source).is_ok();
    let tokenizer = if is_decoder { documents(source)?.tokenizer } else { None };
    std::fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let own = checkpoint.folder().and_then(|folder| folder.canonicalize().ok());
    if own.is_some_and(|own| to.canonicalize().is_ok_and(|to| to == own)) {
        bail!("{} is the folder of the checkpoint itself, expected another one", to.display())
    }
    let container = match is_decoder && !is_quantised(checkpoint, &options) {
        true => Container::Transformers,
        false => Container::Safetensors,
    };
    let options = ConvertOptions { to: container, ..options };
    let summary = convert(Conversion { checkpoint, options, progress }, &to.join("model.safetensors"))?;
    let mut texts = Vec::new();
    for name in DOCUMENTS {
        // A GGUF file says all in its config.json.
        let text = source.document(name)?.filter(|text| !matches!(text.trim(), "" | "{}"));
        texts.extend(text.map(|text| (name, text)));
    }
    if let Some(config) = ModelConfig::read(source)?.filter(|_| is_decoder) {
        let class = config.model_type().and_then(|kind| CLASSES.iter().find(|(name, _)| *name == kind));
        let mut tree = config.into_tree();
        if let (Some((_, class)), None) = (class, tree.get("architectures")) {
            tree["architectures"] = json!([class]);
        }
        texts.push(("config.json", format!("{tree:#}")));
    }
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
