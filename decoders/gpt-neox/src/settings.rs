//! Settings of `gpt-neox`: Hugging Face's own names, read off `config.json` where they are not set.

use crate::presets;
use anyhow::{Context, Result, bail};
use limber_core::model_config::{self, TokenIds};
use limber_core::ops::Activation;
use limber_core::rope::{Rope, RopeScaling};
use limber_core::{DecoderSpec, Init, ModelConfig, WeightSource, settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A model by name, such as pythia-410m or gpt-neox-20b, for weights without `config.json`.
    pub model: Option<String>,
    /// Vocabulary rows V.
    pub vocab_size: Option<usize>,
    /// LM width D.
    pub hidden_size: Option<usize>,
    /// Width of the MLP.
    pub intermediate_size: Option<usize>,
    /// Layers L.
    pub num_hidden_layers: Option<usize>,
    /// Heads H.
    pub num_attention_heads: Option<usize>,
    /// Context length in positions.
    pub max_position_embeddings: Option<usize>,
    /// The MLP's activation.
    pub hidden_act: Option<Activation>,
    /// Epsilon of the layer norms.
    pub layer_norm_eps: Option<f64>,
    /// Part of each head that the rotary embedding turns.
    pub rotary_pct: Option<f64>,
    /// Base of the rotary frequencies.
    pub rotary_emb_base: Option<f64>,
    /// Scaling of the rotary frequencies.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether attention and MLP stand side by side.
    pub use_parallel_residual: Option<bool>,
    /// Whether the attention's matrices have biases.
    pub attention_bias: Option<bool>,
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
    pub(super) positions: usize,
    pub(super) inner: usize,
    pub(super) rotary: usize,
    pub(super) base: f64,
    pub(super) eps: f64,
    pub(super) activation: Activation,
    pub(super) parallel: bool,
    pub(super) attention_bias: bool,
    pub(super) tied: bool,
    pub(super) init: Init,
}

impl Config {
    /// Settings first, then `config.json` or the named model, then `GPTNeoXConfig`'s defaults.
    pub(super) fn resolve(mut self, source: &dyn WeightSource) -> Result<Self> {
        let preset = match self.model.take() {
            None => None,
            Some(name) => match presets::preset(&name) {
                Some(preset) => Some((name, preset.filled())),
                None => bail!("unknown gpt-neox model {name:?}; known models: {}", presets::names().join(", ")),
            },
        };
        let found = match ModelConfig::read(source)? {
            Some(config) => Some((config.place().to_string(), Self::described(&config, source)?.filled())),
            None => None,
        };
        let preset = preset.as_ref().map(|(name, preset)| (name.as_str(), preset));
        let found = found.as_ref().map(|(place, found)| (place.as_str(), found));
        // Fine-tuned models may end texts otherwise.
        let config = settings::layered(&self, preset, found, &["eos_token_id"])?.filled();
        match found {
            Some((place, _)) => config.sizes().context(place.to_string())?,
            None => config.sizes()?,
        };
        Ok(config)
    }

    /// With the defaults of what has one.
    fn filled(mut self) -> Self {
        self.hidden_act.get_or_insert(Activation::Gelu);
        self.layer_norm_eps.get_or_insert(1e-5);
        self.rotary_pct.get_or_insert(0.25);
        self.rotary_emb_base.get_or_insert(10_000.0);
        self.use_parallel_residual.get_or_insert(true);
        self.attention_bias.get_or_insert(true);
        self.tie_word_embeddings.get_or_insert(false);
        self.eos_token_id.get_or_insert(TokenIds(vec![]));
        self.initializer_range.get_or_insert(0.02);
        self
    }

    /// What `config.json` says, in transformers' `GPTNeoXConfig` names and with its defaults; what this decoder cannot do
    /// is refused by name.
    fn described(config: &ModelConfig, source: &dyn WeightSource) -> Result<Self> {
        let part = "the decoder gpt-neox";
        config.expect_type(part, &["gpt_neox"])?;
        config.refuse(part, &["quantization_config", "adapters", "layer_types", "sliding_window"])?;
        let size = |key: &str, default: usize| Ok::<_, anyhow::Error>(Some(config.size(key)?.unwrap_or(default)));
        let hidden_act = match config.text("hidden_act")? {
            None => None,
            Some(name) => match Activation::named(&name) {
                None => return Err(config.refusal("hidden_act", format!("supported is {}", Activation::NAMES))),
                activation => activation,
            },
        };
        let positions = config.size("max_position_embeddings")?.unwrap_or(2048);
        let rope = Rope::read(part, config, positions)?;
        // Both pairs say the same where a file has both; which of two values transformers would take depends on its
        // version.
        let same = |old: &str, new: &str, found: Option<f64>, default: f64| match (config.number(old)?, found) {
            (Some(old_value), Some(found)) if old_value != found => {
                Err(config.refusal(old, format!("but {new} is {found}, supported is the same number in both")))
            }
            (old_value, found) => Ok(Some(old_value.or(found).unwrap_or(default))),
        };
        let eos = if config.is_null("eos_token_id") { vec![] } else { vec![2] };
        Ok(Self {
            model: None,
            vocab_size: size("vocab_size", 50_432)?,
            hidden_size: size("hidden_size", 6144)?,
            intermediate_size: size("intermediate_size", 24_576)?,
            num_hidden_layers: size("num_hidden_layers", 44)?,
            num_attention_heads: size("num_attention_heads", 64)?,
            max_position_embeddings: Some(positions),
            hidden_act,
            layer_norm_eps: config.number("layer_norm_eps")?,
            rotary_pct: same("rotary_pct", "partial_rotary_factor", rope.part, 0.25)?,
            rotary_emb_base: same("rotary_emb_base", "rope_theta", rope.theta, 10_000.0)?,
            rope_scaling: rope.scaling,
            use_parallel_residual: config.flag("use_parallel_residual")?,
            attention_bias: config.flag("attention_bias")?,
            tie_word_embeddings: config.flag("tie_word_embeddings")?,
            eos_token_id: Some(TokenIds(model_config::eos_ids(source)?.unwrap_or(eos))),
            initializer_range: config.number("initializer_range")?.map(|x| x as f32),
        })
    }

    /// The sizes of resolved settings.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let need = |value: Option<usize>, key: &str| match value {
            Some(0) => bail!("gpt-neox: {key} is 0, allowed is 1 and above"),
            Some(n) => Ok(n),
            None => bail!(
                "gpt-neox: {key} is not set, and no config.json lies beside the weights; set it, or model to one of {}",
                presets::names().join(", ")
            ),
        };
        let (width, heads) =
            (need(self.hidden_size, "hidden_size")?, need(self.num_attention_heads, "num_attention_heads")?);
        if width % heads != 0 {
            bail!("gpt-neox: hidden_size {width} is not a multiple of num_attention_heads {heads}")
        }
        let head_dim = width / heads;
        let pct = self.rotary_pct.unwrap_or(0.25);
        // Rounded down as in transformers, whose frequencies then round an odd number up.
        let rotary = (head_dim as f64 * pct) as usize;
        if !(pct > 0.0 && pct <= 1.0) || rotary == 0 || rotary.next_multiple_of(2) > head_dim {
            bail!(
                "gpt-neox: rotary_pct {pct} of a head's {head_dim} elements is not allowed, it turns from 2 to {head_dim} of them"
            )
        }
        let base = self.rotary_emb_base.unwrap_or(10_000.0);
        if !(base.is_finite() && base > 1.0) {
            bail!("gpt-neox: rotary_emb_base is {base}, allowed is above 1")
        }
        let positions = need(self.max_position_embeddings, "max_position_embeddings")?;
        let scaling = self.rope_scaling.as_ref();
        if let Some(scaling) = scaling {
            scaling.check("gpt-neox", rotary)?;
        }
        Ok(Sizes {
            spec: DecoderSpec {
                width,
                vocab: need(self.vocab_size, "vocab_size")?,
                layers: need(self.num_hidden_layers, "num_hidden_layers")?,
                kv_heads: heads,
                head_dim,
                context: scaling.map_or(positions, |s| s.context(positions)),
                eos: self.eos_token_id.clone().map_or_else(Vec::new, |ids| ids.0),
            },
            positions,
            inner: need(self.intermediate_size, "intermediate_size")?,
            rotary,
            base,
            eps: self.layer_norm_eps.unwrap_or(1e-5),
            activation: self.hidden_act.unwrap_or(Activation::Gelu),
            parallel: self.use_parallel_residual.unwrap_or(true),
            attention_bias: self.attention_bias.unwrap_or(true),
            tied: self.tie_word_embeddings.unwrap_or(false),
            init: Init::normal(self.initializer_range.unwrap_or(0.02)),
        })
    }
}
