//! Settings of `gptj`: Hugging Face's own names, read off `config.json` where they are not set.

use anyhow::{Result, bail};
use limber_core::{DecoderSpec, ModelConfig, WeightSource, model_config, settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The settings. What is not set is read off `config.json` beside the weights; without one, gpt-j-6b's sizes hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Vocabulary rows V.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Context length in positions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_positions: Option<usize>,
    /// LM width D.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_embd: Option<usize>,
    /// Layers L.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_layer: Option<usize>,
    /// Heads H.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_head: Option<usize>,
    /// Elements of each head that the rotary embedding turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotary_dim: Option<usize>,
    /// Width of the MLP; 4 D where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_inner: Option<usize>,
    /// Epsilon of the layer norms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_norm_epsilon: Option<f64>,
    /// Whether the head's matrix is the word embeddings'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tie_word_embeddings: Option<bool>,
    /// End-of-sequence id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos_token_id: Option<u32>,
    /// Standard deviation of random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initializer_range: Option<f32>,
}

/// All sizes, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    vocab: usize,
    positions: usize,
    width: usize,
    layers: usize,
    heads: usize,
    pub(super) rotary: usize,
    pub(super) inner: usize,
    pub(super) eps: f64,
    pub(super) tied: bool,
    pub(super) init_std: f32,
    eos: u32,
}

impl Sizes {
    pub(super) fn spec(&self) -> DecoderSpec {
        DecoderSpec {
            width: self.width,
            vocab: self.vocab,
            layers: self.layers,
            kv_heads: self.heads,
            head_dim: self.width / self.heads,
            context: self.positions,
            eos: vec![self.eos],
        }
    }
}

impl Config {
    /// Settings first, then `config.json`, then gpt-j-6b's.
    pub(super) fn resolve(mut self, source: &dyn WeightSource) -> Result<Self> {
        if let Some(config) = ModelConfig::read(source)? {
            self.fill(&config)?;
            // GPT-J's one id; of a list the first counts.
            let eos = model_config::eos_ids(source)?.and_then(|ids| ids.first().copied());
            self.eos_token_id = self.eos_token_id.or(eos);
        }
        self.vocab_size.get_or_insert(50_400);
        self.n_positions.get_or_insert(2048);
        let width = *self.n_embd.get_or_insert(4096);
        self.n_layer.get_or_insert(28);
        self.n_head.get_or_insert(16);
        self.rotary_dim.get_or_insert(64);
        self.n_inner.get_or_insert(4 * width);
        self.layer_norm_epsilon.get_or_insert(1e-5);
        self.tie_word_embeddings.get_or_insert(false);
        self.eos_token_id.get_or_insert(50_256);
        self.initializer_range.get_or_insert(0.02);
        self.sizes()?;
        Ok(self)
    }

    /// What `config.json` says, in transformers' `GPTJConfig` names; what this decoder cannot do is refused by name.
    fn fill(&mut self, config: &ModelConfig) -> Result<()> {
        let part = "the decoder gptj";
        config.expect_type(part, &["gptj"])?;
        config.expect("activation_function", &[json!("gelu_new"), json!("gelu_pytorch_tanh"), json!("gelu_fast")])?;
        if config.is_null("rotary_dim") {
            return Err(config.refusal("rotary_dim", "supported is a number of elements of each head"));
        }
        config.refuse(part, &["rope_scaling", "quantization_config", "adapters"])?;
        self.vocab_size = self.vocab_size.or(config.size("vocab_size")?);
        self.n_positions = self.n_positions.or(config.size("n_positions")?);
        self.n_embd = self.n_embd.or(config.size("n_embd")?);
        self.n_layer = self.n_layer.or(config.size("n_layer")?);
        self.n_head = self.n_head.or(config.size("n_head")?);
        self.rotary_dim = self.rotary_dim.or(config.size("rotary_dim")?);
        self.n_inner = self.n_inner.or(config.size("n_inner")?);
        self.layer_norm_epsilon = self.layer_norm_epsilon.or(config.number("layer_norm_epsilon")?);
        self.tie_word_embeddings = self.tie_word_embeddings.or(config.flag("tie_word_embeddings")?);
        self.initializer_range = self.initializer_range.or(config.number("initializer_range")?.map(|x| x as f32));
        Ok(())
    }

    /// The sizes of resolved settings.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let need = |value: Option<usize>, key: &str| settings::size("gptj", key, value);
        let (width, heads) = (need(self.n_embd, "n_embd")?, need(self.n_head, "n_head")?);
        if width % heads != 0 {
            bail!("gptj: n_embd {width} is not a multiple of n_head {heads}")
        }
        let rotary = need(self.rotary_dim, "rotary_dim")?;
        if rotary % 2 != 0 || rotary > width / heads {
            bail!("gptj: rotary_dim {rotary} is not allowed, it is even and at most a head's width {}", width / heads)
        }
        Ok(Sizes {
            vocab: need(self.vocab_size, "vocab_size")?,
            positions: need(self.n_positions, "n_positions")?,
            width,
            layers: need(self.n_layer, "n_layer")?,
            heads,
            rotary,
            inner: need(self.n_inner, "n_inner")?,
            eps: self.layer_norm_epsilon.unwrap_or(1e-5),
            tied: self.tie_word_embeddings.unwrap_or(false),
            init_std: self.initializer_range.unwrap_or(0.02),
            eos: self.eos_token_id.unwrap_or(50_256),
        })
    }
}
