//! Settings of `llama`: Hugging Face's own names, read off `config.json` where they are not set.

use crate::presets;
use anyhow::{Context, Result, bail};
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, Heads};
use limber_core::rope::RopeScaling;
use limber_core::{DecoderSpec, Init, ModelConfig, WeightSource, settings};
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
    /// Vocabulary rows V.
    pub vocab_size: Option<usize>,
    /// LM width D.
    pub hidden_size: Option<usize>,
    /// Width of the MLP.
    pub intermediate_size: Option<usize>,
    /// Layers L.
    pub num_hidden_layers: Option<usize>,
    /// Query heads.
    pub num_attention_heads: Option<usize>,
    /// Key and value heads; as many as query heads where it is not set.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / num_attention_heads` where it is not set.
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

/// All sizes, checked.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    pub(super) spec: DecoderSpec,
    pub(super) heads: Heads,
    /// One a layer.
    pub(super) windows: Vec<Option<usize>>,
    pub(super) positions: usize,
    pub(super) inner: usize,
    pub(super) theta: f64,
    pub(super) eps: f64,
    pub(super) activation: Activation,
    pub(super) qkv_bias: bool,
    pub(super) out_bias: bool,
    pub(super) mlp_bias: bool,
    pub(super) tied: bool,
    pub(super) init: Init,
}

impl Config {
    /// Settings first, then `config.json` or the named model, then the defaults that all of the family share.
    pub(super) fn resolve(mut self, source: &dyn WeightSource) -> Result<Self> {
        if self.sliding_window.is_some() {
            self.use_sliding_window.get_or_insert(true);
        }
        let preset = match self.model.take() {
            None => None,
            Some(name) => match presets::preset(&name) {
                Some(preset) => Some((name, preset.filled())),
                None => bail!("unknown llama model {name:?}; known models: {}", presets::NAMES.join(", ")),
            },
        };
        let found = match ModelConfig::read(source)? {
            Some(config) => Some((config.place().to_string(), Self::described(&config, source)?.filled())),
            None => None,
        };
        let preset = preset.as_ref().map(|(name, preset)| (name.as_str(), preset));
        let found = found.as_ref().map(|(place, found)| (place.as_str(), found));
        // Fine-tuned models may end texts otherwise, and take longer ones.
        let ignored = ["eos_token_id", "max_position_embeddings"];
        let mut config = settings::layered(&self, preset, found, &ignored)?.filled();
        let sizes = config.share_width().and_then(|()| config.sizes());
        match found {
            Some((place, _)) => sizes.context(place.to_string())?,
            None => sizes?,
        };
        Ok(config)
    }

    /// Gives every head its share of the width, where nothing else is said.
    fn share_width(&mut self) -> Result<()> {
        if let (Some(width), Some(heads), None) = (self.hidden_size, self.num_attention_heads, self.head_dim)
            && heads > 0
        {
            if width % heads != 0 {
                bail!(
                    "llama: hidden_size {width} is not a multiple of num_attention_heads {heads}, and head_dim is not set"
                )
            }
            self.head_dim = Some(width / heads);
        }
        Ok(())
    }

    /// With the defaults of what has one.
    fn filled(mut self) -> Self {
        let family = *self.model_type.get_or_insert(Family::Llama);
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

    /// The sizes of resolved settings.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let need = |value: Option<usize>, key: &str| match value {
            Some(0) => bail!("llama: {key} is 0, allowed is 1 and above"),
            Some(n) => Ok(n),
            None => bail!(
                "llama: {key} is not set, and no config.json lies beside the weights; set it, or model to one of {}",
                presets::NAMES.join(", ")
            ),
        };
        let width = need(self.hidden_size, "hidden_size")?;
        let queries = need(self.num_attention_heads, "num_attention_heads")?;
        let keys = need(self.num_key_value_heads, "num_key_value_heads")?;
        if queries % keys != 0 {
            bail!("llama: num_attention_heads {queries} is not a multiple of num_key_value_heads {keys}")
        }
        let dim = need(self.head_dim, "head_dim")?;
        if dim % 2 != 0 {
            bail!("llama: head_dim {dim} is not allowed, the rotary embedding needs an even number")
        }
        let theta = self.rope_theta.unwrap_or(10_000.0);
        if !(theta.is_finite() && theta > 1.0) {
            bail!("llama: rope_theta is {theta}, allowed is above 1")
        }
        let positions = need(self.max_position_embeddings, "max_position_embeddings")?;
        let scaling = self.rope_scaling.as_ref();
        if let Some(scaling) = scaling {
            scaling.check("llama", dim)?;
        }
        let layers = need(self.num_hidden_layers, "num_hidden_layers")?;
        let family = self.model_type.unwrap_or(Family::Llama);
        let (attention_bias, mlp_bias) = (self.attention_bias.unwrap_or(false), self.mlp_bias.unwrap_or(false));
        match family {
            Family::Mistral if attention_bias => bail!("llama: attention_bias is true, a mistral has none"),
            Family::Qwen2 if !attention_bias => bail!("llama: attention_bias is false, a qwen2 has it"),
            Family::Mistral | Family::Qwen2 if mlp_bias => bail!("llama: mlp_bias is true, only a llama may have it"),
            _ => {}
        }
        Ok(Sizes {
            spec: DecoderSpec {
                width,
                vocab: need(self.vocab_size, "vocab_size")?,
                layers,
                kv_heads: keys,
                head_dim: dim,
                context: scaling.map_or(positions, |s| s.context(positions)),
                eos: self.eos_token_id.clone().map_or_else(Vec::new, |ids| ids.0),
            },
            heads: Heads { queries, keys, dim, scale: 1.0 / (dim as f64).sqrt() },
            windows: self.windows(layers)?,
            positions,
            inner: need(self.intermediate_size, "intermediate_size")?,
            theta,
            eps: self.rms_norm_eps.unwrap_or(1e-6),
            activation: self.hidden_act.unwrap_or(Activation::Silu),
            qkv_bias: attention_bias,
            out_bias: attention_bias && family == Family::Llama,
            mlp_bias,
            tied: self.tie_word_embeddings.unwrap_or(false),
            init: Init::normal(self.initializer_range.unwrap_or(0.02)),
        })
    }

    /// The window of each layer.
    fn windows(&self, layers: usize) -> Result<Vec<Option<usize>>> {
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
