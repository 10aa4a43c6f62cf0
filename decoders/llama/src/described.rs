//! What `config.json` says, in the names and with the defaults of transformers' `LlamaConfig`, `MistralConfig` and
//! `Qwen2Config`; what this decoder cannot do is refused by name.

use crate::settings::{Config, Family};
use anyhow::Result;
use limber_core::ModelConfig;
use limber_core::decoder_family::LayerType;
use limber_core::model_config::TokenIds;

const PART: &str = "the decoder llama";

/// The sizes of a `config.json` that leaves them out.
fn reference(family: Family) -> Config {
    let (vocab, positions, inner, keys, eos) = match family {
        // As many key heads as query heads.
        Family::Llama => (32_000, 2048, 11_008, None, vec![2]),
        Family::Mistral => (32_000, 131_072, 14_336, Some(8), vec![2]),
        Family::Qwen2 => (151_936, 32_768, 22_016, Some(32), vec![]),
    };
    Config {
        num_key_value_heads: keys,
        eos_token_id: Some(TokenIds(eos)),
        ..Config::sized(vocab, positions, [4096, inner, 32, 32, 32])
    }
}

/// The settings that `config.json` gives.
pub(super) fn described(config: &ModelConfig) -> Result<Config> {
    config.refuse(PART, &["use_mrope"])?;
    let family = match config.model_type() {
        Some("mistral") => Family::Mistral,
        Some("qwen2") => Family::Qwen2,
        _ => Family::Llama,
    };
    let skip =
        ["use_sliding_window", "sliding_window", "max_window_layers", "layer_types", "attention_bias", "mlp_bias"];
    let found = Config::read(config, PART, &reference(family), &skip)?;
    let found = Config { model_type: Some(family), ..found };
    match family {
        Family::Llama => with_biases(found, config),
        Family::Mistral => with_one_window(found, config),
        Family::Qwen2 => with_windows(found, config),
    }
}

/// A Llama has biases where it says so, and no window: transformers reads no key of windows here.
fn with_biases(found: Config, config: &ModelConfig) -> Result<Config> {
    Ok(Config { attention_bias: config.flag("attention_bias")?, mlp_bias: config.flag("mlp_bias")?, ..found })
}

/// Keys of the window: 4096 where the file says nothing, none where it says null.
fn window(config: &ModelConfig) -> Result<Option<usize>> {
    match config.size("sliding_window")? {
        None if config.is_null("sliding_window") => Ok(None),
        width => Ok(Some(width.unwrap_or(4096))),
    }
}

/// A Mistral has one window for all layers and no biases: transformers reads no `layer_types` and no switch of biases here.
fn with_one_window(found: Config, config: &ModelConfig) -> Result<Config> {
    let sliding_window = window(config)?;
    Ok(Config { use_sliding_window: Some(sliding_window.is_some()), sliding_window, ..found })
}

/// A Qwen2 has a window where `use_sliding_window` says so, from layer `max_window_layers` on, and the biases of a Qwen2.
fn with_windows(found: Config, config: &ModelConfig) -> Result<Config> {
    let layer_types = match config.value("layer_types") {
        None => None,
        Some(list) => match serde_json::from_value::<Vec<LayerType>>(list.clone()) {
            Ok(types) => Some(types),
            Err(_) => {
                let expected = "expected a list of \"full_attention\" and \"sliding_attention\"";
                return Err(config.refusal("layer_types", expected));
            }
        },
    };
    let wanted = config.flag("use_sliding_window")?.unwrap_or(false);
    let sliding_window = window(config)?;
    let slides = layer_types.as_ref().is_some_and(|types| types.contains(&LayerType::SlidingAttention));
    if slides && !(wanted && sliding_window.is_some()) {
        return Err(config.refusal("layer_types", "but use_sliding_window and sliding_window give no window"));
    }
    if !wanted || sliding_window.is_none() {
        return Ok(Config { use_sliding_window: Some(false), ..found });
    }
    let max_window_layers = match layer_types {
        Some(_) => None,
        None => Some(config.size("max_window_layers")?.unwrap_or(28)),
    };
    Ok(Config { use_sliding_window: Some(true), sliding_window, max_window_layers, layer_types, ..found })
}
