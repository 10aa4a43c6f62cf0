//! Settings of `gpt2`: Hugging Face's own names, read off `config.json` where they are not set.

use anyhow::{Result, bail};
use limber_core::model_config::{self, TokenIds};
use limber_core::ops::{Activation, Heads};
use limber_core::{DecoderSpec, Init, ModelConfig, WeightSource, settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Name, D, L, H of the published models; all have 50,257 rows and 1024 positions.
const MODELS: [(&str, usize, usize, usize); 5] = [
    ("gpt2", 768, 12, 12),
    ("gpt2-medium", 1024, 24, 16),
    ("gpt2-large", 1280, 36, 20),
    ("gpt2-xl", 1600, 48, 25),
    ("distilgpt2", 768, 6, 12),
];

/// Names that `GPT2Config` takes as well: (other, own).
const OTHER_NAMES: [(&str, &str); 4] = [
    ("hidden_size", "n_embd"),
    ("max_position_embeddings", "n_positions"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
];

/// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A model by name, for weights without `config.json`: gpt2, gpt2-medium, gpt2-large, gpt2-xl or distilgpt2.
    pub model: Option<String>,
    /// Vocabulary rows V.
    pub vocab_size: Option<usize>,
    /// Context length in positions.
    pub n_positions: Option<usize>,
    /// LM width D.
    pub n_embd: Option<usize>,
    /// Layers L.
    pub n_layer: Option<usize>,
    /// Heads H.
    pub n_head: Option<usize>,
    /// Width of the MLP; 4 D where it is not set.
    pub n_inner: Option<usize>,
    /// The MLP's activation.
    pub activation_function: Option<Activation>,
    /// Epsilon of the layer norms.
    pub layer_norm_epsilon: Option<f64>,
    /// Whether scores are divided by the square root of a head's width.
    pub scale_attn_weights: Option<bool>,
    /// Whether the scores of layer i, counted from 0, are divided by i + 1 as well.
    pub scale_attn_by_inverse_layer_idx: Option<bool>,
    /// Whether the head's matrix is the word embeddings'.
    pub tie_word_embeddings: Option<bool>,
    /// End-of-sequence id, or a list of them.
    pub eos_token_id: Option<TokenIds>,
    /// Standard deviation of random weights; those that write to the residual stream have it over sqrt(2 L).
    pub initializer_range: Option<f32>,
}

/// All sizes, checked.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    pub(super) spec: DecoderSpec,
    pub(super) inner: usize,
    pub(super) activation: Activation,
    pub(super) eps: f64,
    pub(super) tied: bool,
    scaled: bool,
    scaled_by_layer: bool,
    std: f32,
}

impl Sizes {
    /// The heads of a layer, counted from 0.
    pub(super) fn heads(&self, layer: usize) -> Heads {
        let dim = self.spec.head_dim;
        let scale = if self.scaled { 1.0 / (dim as f64).sqrt() } else { 1.0 };
        let by = if self.scaled_by_layer { (layer + 1) as f64 } else { 1.0 };
        Heads { queries: self.spec.kv_heads, keys: self.spec.kv_heads, dim, scale: scale / by }
    }

    /// How matrices are drawn.
    pub(super) fn init(&self) -> Init {
        Init::normal(self.std)
    }

    /// How the two matrices of a layer are drawn that write to the residual stream.
    pub(super) fn residual_init(&self) -> Init {
        Init::normal(self.std / (2.0 * self.spec.layers as f32).sqrt())
    }
}

impl Config {
    /// Settings first, then `config.json` or the named model, then `GPT2Config`'s defaults.
    pub(super) fn resolve(mut self, source: &dyn WeightSource) -> Result<Self> {
        let preset = self.model.take().map(|name| preset(&name).map(|preset| (name, preset))).transpose()?;
        let preset = preset.as_ref().map(|(name, preset)| (name.as_str(), preset));
        let describe = |config: &ModelConfig| described(config, source);
        let config = model_config::resolved(&self, preset, source, describe, &defaults())?;
        config.sizes()?;
        Ok(config)
    }

    /// The sizes of resolved settings.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let need = |value: Option<usize>, key: &str| settings::size("gpt2", key, value);
        let (width, heads) = (need(self.n_embd, "n_embd")?, need(self.n_head, "n_head")?);
        if width % heads != 0 {
            bail!("gpt2: n_embd {width} is not a multiple of n_head {heads}")
        }
        Ok(Sizes {
            spec: DecoderSpec {
                width,
                vocab: need(self.vocab_size, "vocab_size")?,
                layers: need(self.n_layer, "n_layer")?,
                kv_heads: heads,
                head_dim: width / heads,
                context: need(self.n_positions, "n_positions")?,
                eos: self.eos_token_id.clone().map_or(vec![], |ids| ids.0),
            },
            inner: need(self.n_inner.or(Some(4 * width)), "n_inner")?,
            activation: self.activation_function.unwrap_or(Activation::GeluNew),
            eps: self.layer_norm_epsilon.unwrap_or(1e-5),
            tied: self.tie_word_embeddings.unwrap_or(true),
            scaled: self.scale_attn_weights.unwrap_or(true),
            scaled_by_layer: self.scale_attn_by_inverse_layer_idx.unwrap_or(false),
            std: self.initializer_range.unwrap_or(0.02),
        })
    }
}

/// The sizes of a published model.
fn preset(name: &str) -> Result<Config> {
    let Some((_, width, layers, heads)) = MODELS.iter().find(|m| m.0.eq_ignore_ascii_case(name)) else {
        bail!("unknown gpt2 model {name:?}; known models: {}", MODELS.map(|m| m.0).join(", "))
    };
    Ok(Config { n_embd: Some(*width), n_layer: Some(*layers), n_head: Some(*heads), ..Config::default() })
}

/// `GPT2Config`'s defaults: the smallest model.
fn defaults() -> Config {
    Config {
        vocab_size: Some(50_257),
        n_positions: Some(1024),
        n_embd: Some(768),
        n_layer: Some(12),
        n_head: Some(12),
        activation_function: Some(Activation::GeluNew),
        layer_norm_epsilon: Some(1e-5),
        scale_attn_weights: Some(true),
        scale_attn_by_inverse_layer_idx: Some(false),
        tie_word_embeddings: Some(true),
        eos_token_id: Some(TokenIds(vec![50_256])),
        initializer_range: Some(0.02),
        ..Config::default()
    }
}

/// What `config.json` says; what this decoder cannot do is refused by name.
fn described(config: &ModelConfig, source: &dyn WeightSource) -> Result<Config> {
    let part = "the decoder gpt2";
    config.expect_type(part, &["gpt2"])?;
    config.refuse(part, &["add_cross_attention", "pruned_heads", "quantization_config", "adapters"])?;
    // `reorder_and_upcast_attn` is about half precision: scores are f32 here in any case.
    config.expect("is_causal", &[json!(true)])?;
    Ok(Config {
        model: None,
        eos_token_id: model_config::eos_ids(source)?.map(TokenIds),
        ..config.settings(&OTHER_NAMES)?
    })
}
