//! Settings of `llama`: Hugging Face's own names, read off `config.json` where they are not set.

use anyhow::{Result, bail};
use limber_core::model_config::TokenIds;
use limber_core::ops::Activation;
use limber_core::rope::RopeScaling;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The models of the family: transformers' `model_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Llama; biases as `attention_bias` and `mlp_bias` say, no window.
    Llama,
    /// Mistral: no biases, one window for all layers.
    Mistral,
    /// Qwen2 and Qwen2.5: biases of queries, keys and values, a window from some layer on.
    Qwen2,
}

impl Family {
    /// The names, in the order of the variants.
    pub const NAMES: [&'static str; 3] = ["llama", "mistral", "qwen2"];
}

/// Which keys a layer's positions see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LayerType {
    /// All up to their own.
    FullAttention,
    /// The last `sliding_window` of them.
    SlidingAttention,
}

/// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A model by name, such as llama-3.2-1b, mistral-7b-v0.1 or qwen2.5-0.5b, for weights without `config.json`.
    pub model: Option<String>,
    /// llama, mistral or qwen2.
    pub model_type: Option<Family>,
    /// Vocabulary size V.
    pub vocab_size: Option<usize>,
    /// LM width D.
    pub hidden_size: Option<usize>,
    /// Width of the MLP.
    pub intermediate_size: Option<usize>,
    /// Layers L.
    pub num_hidden_layers: Option<usize>,
    /// Query heads.
    pub num_attention_heads: Option<usize>,
    /// Key and value heads; as many as query heads by default.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / num_attention_heads` by default.
    pub head_dim: Option<usize>,
    /// Context length in positions, before any scaling of the rotary frequencies.
    pub max_position_embeddings: Option<usize>,
    /// The MLP's activation.
    pub hidden_act: Option<Activation>,
    /// Epsilon of the norms.
    pub rms_norm_eps: Option<f64>,
    /// Base of the rotary frequencies.
    pub rope_theta: Option<f64>,
    /// Scaling of the rotary frequencies.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether queries, keys and values have biases, and in a Llama the attention's output.
    pub attention_bias: Option<bool>,
    /// Whether the MLP's matrices have biases.
    pub mlp_bias: Option<bool>,
    /// Whether layers see a window of the last keys.
    pub use_sliding_window: Option<bool>,
    /// Keys in the window, a position's own included.
    pub sliding_window: Option<usize>,
    /// Layers from the first on that see all keys, where the others have a window.
    pub max_window_layers: Option<usize>,
    /// What each layer sees, where that is no question of the first and the last ones.
    pub layer_types: Option<Vec<LayerType>>,
    /// Whether the head's matrix is the word embeddings'.
    pub tie_word_embeddings: Option<bool>,
    /// End-of-sequence id, or a list of them.
    pub eos_token_id: Option<TokenIds>,
    /// Standard deviation of random weights.
    pub initializer_range: Option<f32>,
}

impl Config {
    /// A model of V and of so many positions, and of D, width of the MLP, L, query heads, key and value heads.
    pub(super) fn sized(vocab: usize, positions: usize, [width, inner, layers, queries, keys]: [usize; 5]) -> Self {
        Self {
            vocab_size: Some(vocab),
            max_position_embeddings: Some(positions),
            hidden_size: Some(width),
            intermediate_size: Some(inner),
            num_hidden_layers: Some(layers),
            num_attention_heads: Some(queries),
            num_key_value_heads: Some(keys),
            ..Self::default()
        }
    }

    /// With the defaults of what has one.
    pub(super) fn filled(mut self) -> Self {
        let family = *self.model_type.get_or_insert(Family::Llama);
        self.model = None;
        self.num_key_value_heads = self.num_key_value_heads.or(self.num_attention_heads);
        self.hidden_act.get_or_insert(Activation::Silu);
        self.rms_norm_eps.get_or_insert(1e-6);
        self.rope_theta.get_or_insert(10_000.0);
        self.attention_bias.get_or_insert(family == Family::Qwen2);
        self.mlp_bias.get_or_insert(false);
        if !*self.use_sliding_window.get_or_insert(self.sliding_window.is_some()) {
            (self.sliding_window, self.max_window_layers, self.layer_types) = (None, None, None);
        } else if self.layer_types.is_none() {
            self.max_window_layers.get_or_insert(0);
        }
        self.tie_word_embeddings.get_or_insert(false);
        self.eos_token_id.get_or_insert(TokenIds(vec![]));
        self.initializer_range.get_or_insert(0.02);
        self
    }

    /// Refuses biases that a model type does not have.
    pub(super) fn check_biases(&self) -> Result<()> {
        match (self.model_type, self.attention_bias, self.mlp_bias) {
            (Some(Family::Mistral), Some(true), _) => bail!("llama: attention_bias is true, a mistral has none"),
            (Some(Family::Qwen2), Some(false), _) => bail!("llama: attention_bias is false, a qwen2 has it"),
            (Some(Family::Mistral | Family::Qwen2), _, Some(true)) => {
                bail!("llama: mlp_bias is true, only a llama may have it")
            }
            _ => Ok(()),
        }
    }

    /// The window of each layer.
    pub(super) fn windows(&self, layers: usize) -> Result<Vec<Option<usize>>> {
        if self.use_sliding_window != Some(true) {
            return Ok(vec![None; layers]);
        }
        let width = match self.sliding_window {
            None => bail!("llama: use_sliding_window is true, but sliding_window is not set"),
            Some(0) => bail!("llama: sliding_window is 0, allowed is 1 and above"),
            width => width,
        };
        match &self.layer_types {
            Some(types) if types.len() != layers => {
                bail!("llama: layer_types has {} entries for {layers} layers", types.len())
            }
            Some(types) => {
                Ok(types.iter().map(|kind| width.filter(|_| *kind == LayerType::SlidingAttention)).collect())
            }
            None => {
                let full = self.max_window_layers.unwrap_or(0);
                Ok((0..layers).map(|layer| width.filter(|_| layer >= full)).collect())
            }
        }
    }
}
