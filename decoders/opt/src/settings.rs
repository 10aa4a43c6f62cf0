//! Settings of `opt`: Hugging Face's own names, read off `config.json` where they are not set.

use anyhow::{Result, bail};
use limber_core::model_config::{self, TokenIds};
use limber_core::ops::{Activation, Heads};
use limber_core::{DecoderSpec, Init, ModelConfig, WeightSource, settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Name, width of the blocks, L, H of the published models; the MLP is four times as wide.
const MODELS: [(&str, usize, usize, usize); 8] = [
    ("opt-125m", 768, 12, 12),
    ("opt-350m", 1024, 24, 16),
    ("opt-1.3b", 2048, 24, 32),
    ("opt-2.7b", 2560, 32, 32),
    ("opt-6.7b", 4096, 32, 32),
    ("opt-13b", 5120, 40, 40),
    ("opt-30b", 7168, 48, 56),
    ("opt-66b", 9216, 64, 72),
];

/// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A model by name, opt-125m to opt-66b, for weights without `config.json`.
    pub model: Option<String>,
    /// Vocabulary rows V.
    pub vocab_size: Option<usize>,
    /// Width of the blocks.
    pub hidden_size: Option<usize>,
    /// LM width D, that of the word embeddings and of a stitch's prefix; that of the blocks where it is not set.
    pub word_embed_proj_dim: Option<usize>,
    /// Layers L.
    pub num_hidden_layers: Option<usize>,
    /// Heads H.
    pub num_attention_heads: Option<usize>,
    /// Width of the MLP.
    pub ffn_dim: Option<usize>,
    /// Context length in positions; the table has two rows more.
    pub max_position_embeddings: Option<usize>,
    /// The MLP's activation.
    pub activation_function: Option<Activation>,
    /// Whether layer norms stand before attention and MLP, and one at the end; else after each, and none at the end.
    pub do_layer_norm_before: Option<bool>,
    /// Whether the norm at the end is left out: models that were fine-tuned before transformers 4.20.1.
    #[serde(rename = "_remove_final_layer_norm")]
    pub remove_final_layer_norm: Option<bool>,
    /// Whether attention and MLP have biases.
    pub enable_bias: Option<bool>,
    /// Whether layer norms have parameters.
    pub layer_norm_elementwise_affine: Option<bool>,
    /// Whether the head's matrix is the word embeddings'.
    pub tie_word_embeddings: Option<bool>,
    /// End-of-sequence id, or a list of them.
    pub eos_token_id: Option<TokenIds>,
    /// Standard deviation of random weights.
    pub init_std: Option<f32>,
}

/// All sizes, checked.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    pub(super) spec: DecoderSpec,
    /// Width of the blocks.
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) activation: Activation,
    pub(super) norm_first: bool,
    /// Whether a norm follows the last block.
    pub(super) final_norm: bool,
    pub(super) bias: bool,
    pub(super) affine: bool,
    pub(super) tied: bool,
    pub(super) std: f32,
}

impl Sizes {
    pub(super) fn heads(&self) -> Heads {
        let (heads, dim) = (self.spec.kv_heads, self.spec.head_dim);
        Heads { queries: heads, keys: heads, dim, scale: 1.0 / (dim as f64).sqrt() }
    }

    /// How matrices are drawn.
    pub(super) fn init(&self) -> Init {
        Init::normal(self.std)
    }
}

impl Config {
    /// Settings first, then `config.json` or the named model, then `OPTConfig`'s defaults.
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
        let need = |value: Option<usize>, key: &str| settings::size("opt", key, value);
        let hidden = need(self.hidden_size, "hidden_size")?;
        let heads = need(self.num_attention_heads, "num_attention_heads")?;
        if hidden % heads != 0 {
            bail!("opt: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
        }
        let norm_first = self.do_layer_norm_before.unwrap_or(true);
        Ok(Sizes {
            spec: DecoderSpec {
                width: need(self.word_embed_proj_dim.or(Some(hidden)), "word_embed_proj_dim")?,
                vocab: need(self.vocab_size, "vocab_size")?,
                layers: need(self.num_hidden_layers, "num_hidden_layers")?,
                kv_heads: heads,
                head_dim: hidden / heads,
                context: need(self.max_position_embeddings, "max_position_embeddings")?,
                eos: self.eos_token_id.clone().map_or(vec![], |ids| ids.0),
            },
            hidden,
            inner: need(self.ffn_dim, "ffn_dim")?,
            activation: self.activation_function.unwrap_or(Activation::Relu),
            norm_first,
            final_norm: norm_first && !self.remove_final_layer_norm.unwrap_or(false),
            bias: self.enable_bias.unwrap_or(true),
            affine: self.layer_norm_elementwise_affine.unwrap_or(true),
            tied: self.tie_word_embeddings.unwrap_or(true),
            std: self.init_std.unwrap_or(0.02),
        })
    }
}

/// The sizes of a published model.
fn preset(name: &str) -> Result<Config> {
    let Some((name, width, layers, heads)) = MODELS.iter().find(|m| m.0.eq_ignore_ascii_case(name)) else {
        bail!("unknown opt model {name:?}; known models: {}", MODELS.map(|m| m.0).join(", "))
    };
    // The one whose words are narrower than its blocks and whose norms come after.
    let odd = *name == "opt-350m";
    Ok(Config {
        hidden_size: Some(*width),
        word_embed_proj_dim: Some(if odd { 512 } else { *width }),
        num_hidden_layers: Some(*layers),
        num_attention_heads: Some(*heads),
        ffn_dim: Some(4 * width),
        do_layer_norm_before: Some(!odd),
        ..Config::default()
    })
}

/// `OPTConfig`'s defaults: the smallest model.
fn defaults() -> Config {
    Config {
        vocab_size: Some(50_272),
        hidden_size: Some(768),
        num_hidden_layers: Some(12),
        num_attention_heads: Some(12),
        ffn_dim: Some(3072),
        max_position_embeddings: Some(2048),
        activation_function: Some(Activation::Relu),
        do_layer_norm_before: Some(true),
        remove_final_layer_norm: Some(false),
        enable_bias: Some(true),
        layer_norm_elementwise_affine: Some(true),
        tie_word_embeddings: Some(true),
        eos_token_id: Some(TokenIds(vec![2])),
        init_std: Some(0.02),
        ..Config::default()
    }
}

/// What `config.json` says; what this decoder cannot do is refused by name.
fn described(config: &ModelConfig, source: &dyn WeightSource) -> Result<Config> {
    let part = "the decoder opt";
    config.expect_type(part, &["opt"])?;
    config.refuse(part, &["quantization_config", "adapters", "scale_embeddings"])?;
    config.expect("learned_embeddings", &[json!(true)])?;
    config.expect("is_causal", &[json!(true)])?;
    let found: Config = config.settings(&[])?;
    Ok(Config {
        model: None,
        word_embed_proj_dim: found.word_embed_proj_dim.or(found.hidden_size).or(defaults().hidden_size),
        eos_token_id: model_config::eos_ids(source)?.map(TokenIds),
        ..found
    })
}
