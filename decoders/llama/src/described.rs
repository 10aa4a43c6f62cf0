//! What `config.json` says, in the names and with the defaults of transformers' `LlamaConfig`, `MistralConfig` and
//! `Qwen2Config`; what this decoder cannot do is refused by name.

use crate::settings::{Config, Family, LayerType};
use anyhow::Result;
use limber_core::model_config::{self, TokenIds};
use limber_core::ops::Activation;
use limber_core::rope::Rope;
use limber_core::{ModelConfig, WeightSource};
use serde_json::json;

const PART: &str = "the decoder llama";

/// The defaults of one `model_type`.
struct Defaults {
    vocab: usize,
    inner: usize,
    /// None is as many as query heads.
    keys: Option<usize>,
    positions: usize,
    eos: &'static [u32],
}

fn defaults(family: Family) -> Defaults {
    match family {
        Family::Llama => Defaults { vocab: 32_000, inner: 11_008, keys: None, positions: 2048, eos: &[2] },
        Family::Mistral => Defaults { vocab: 32_000, inner: 14_336, keys: Some(8), positions: 131_072, eos: &[2] },
        Family::Qwen2 => Defaults { vocab: 151_936, inner: 22_016, keys: Some(32), positions: 32_768, eos: &[] },
    }
}

impl Config {
    /// The settings that `config.json` gives.
    pub(super) fn described(config: &ModelConfig, source: &dyn WeightSource) -> Result<Self> {
        config.expect_type(PART, &Family::NAMES)?;
        let family = match config.model_type() {
            Some("mistral") => Family::Mistral,
            Some("qwen2") => Family::Qwen2,
            _ => Family::Llama,
        };
        config.refuse(PART, &["quantization_config", "adapters", "use_mrope"])?;
        let defaults = defaults(family);
        let size = |key: &str, default: usize| Ok::<_, anyhow::Error>(Some(config.size(key)?.unwrap_or(default)));
        let keys = match config.size("num_key_value_heads")? {
            None if config.is_null("num_key_value_heads") => None,
            found => found.or(defaults.keys),
        };
        let hidden_act = match config.text("hidden_act")? {
            None => None,
            Some(name) => match Activation::named(&name) {
                None => return Err(config.refusal("hidden_act", format!("supported is {}", Activation::NAMES))),
                activation => activation,
            },
        };
        let positions = config.size("max_position_embeddings")?.unwrap_or(defaults.positions);
        let rope = Rope::read(PART, config, positions)?;
        if let Some(part) = rope.part.filter(|part| *part != 1.0) {
            anyhow::bail!("{}: partial_rotary_factor is {part}, supported is 1", config.place())
        }
        let eos = if config.is_null("eos_token_id") { &[] } else { defaults.eos };
        let described = Self {
            model: None,
            model_type: Some(family),
            vocab_size: size("vocab_size", defaults.vocab)?,
            hidden_size: size("hidden_size", 4096)?,
            intermediate_size: size("intermediate_size", defaults.inner)?,
            num_hidden_layers: size("num_hidden_layers", 32)?,
            num_attention_heads: size("num_attention_heads", 32)?,
            num_key_value_heads: keys,
            head_dim: config.size("head_dim")?,
            max_position_embeddings: Some(positions),
            hidden_act,
            rms_norm_eps: config.number("rms_norm_eps")?,
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            attention_bias: None,
            mlp_bias: None,
            use_sliding_window: None,
            sliding_window: None,
            max_window_layers: None,
            layer_types: None,
            tie_word_embeddings: config.flag("tie_word_embeddings")?,
            eos_token_id: Some(TokenIds(model_config::eos_ids(source)?.unwrap_or_else(|| eos.to_vec()))),
            initializer_range: config.number("initializer_range")?.map(|x| x as f32),
        };
        match family {
            Family::Llama => described.with_biases(config),
            Family::Mistral => described.with_one_window(config),
            Family::Qwen2 => described.with_windows(config),
        }
    }

    /// A Llama has biases where it says so, and no window.
    fn with_biases(self, config: &ModelConfig) -> Result<Self> {
        config.refuse("a llama", &["use_sliding_window", "sliding_window", "layer_types"])?;
        Ok(Self { attention_bias: config.flag("attention_bias")?, mlp_bias: config.flag("mlp_bias")?, ..self })
    }

    /// A Mistral has one window for all layers: 4096 keys where the file says nothing, none where it says null.
    fn with_one_window(self, config: &ModelConfig) -> Result<Self> {
        config.refuse("a mistral", &["attention_bias", "mlp_bias", "layer_types"])?;
        let sliding_window = match config.size("sliding_window")? {
            None if config.is_null("sliding_window") => None,
            width => Some(width.unwrap_or(4096)),
        };
        Ok(Self { use_sliding_window: Some(sliding_window.is_some()), sliding_window, ..self })
    }

    /// A Qwen2 has a window where `use_sliding_window` says so, from layer `max_window_layers` on.
    fn with_windows(self, config: &ModelConfig) -> Result<Self> {
        config.refuse("a qwen2", &["mlp_bias"])?;
        config.expect("attention_bias", &[json!(true)])?;
        let types = match config.value("layer_types") {
            None => None,
            Some(list) => match serde_json::from_value::<Vec<LayerType>>(list.clone()) {
                Ok(types) => Some(types),
                Err(_) => {
                    let allowed = "allowed is a list of \"full_attention\" and \"sliding_attention\"";
                    return Err(config.refusal("layer_types", allowed));
                }
            },
        };
        let wanted = config.flag("use_sliding_window")?.unwrap_or(false);
        let sliding_window = match config.size("sliding_window")? {
            None if config.is_null("sliding_window") => None,
            width => Some(width.unwrap_or(4096)),
        };
        let slides = types.as_ref().is_some_and(|types| types.contains(&LayerType::SlidingAttention));
        if slides && !(wanted && sliding_window.is_some()) {
            return Err(config.refusal("layer_types", "but use_sliding_window and sliding_window give no window"));
        }
        if !wanted || sliding_window.is_none() {
            return Ok(Self { use_sliding_window: Some(false), ..self });
        }
        let max_window_layers = match types {
            Some(_) => None,
            None => Some(config.size("max_window_layers")?.unwrap_or(28)),
        };
        Ok(Self { use_sliding_window: Some(true), sliding_window, max_window_layers, layer_types: types, ..self })
    }
}
