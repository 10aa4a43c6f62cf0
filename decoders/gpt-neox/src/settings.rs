//! Settings of `gpt-neox`: Hugging Face's own names, the published models, the defaults of `GPTNeoXConfig`.

use anyhow::Result;
use limber_core::ModelConfig;
use limber_core::model_config::TokenIds;
use limber_core::ops::Activation;
use limber_core::rope::{Rope, RopeScaling};
use limber_core::settings::over;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A model by name, such as pythia-410m or gpt-neox-20b, for weights without `config.json`.
    pub model: Option<String>,
    /// Vocabulary size V.
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
    /// Component of each head that the rotary embedding rotates.
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

/// Name, V, D, L, H, positions of the Pythia suite (Biderman et al., arXiv 2304.01373) and GPT-NeoX-20B.
pub(super) const MODELS: [(&str, usize, usize, usize, usize, usize); 11] = [
    ("pythia-14m", 50_304, 128, 6, 4, 512),
    ("pythia-31m", 50_304, 256, 6, 8, 1024),
    ("pythia-70m", 50_304, 512, 6, 8, 2048),
    ("pythia-160m", 50_304, 768, 12, 12, 2048),
    ("pythia-410m", 50_304, 1024, 24, 16, 2048),
    ("pythia-1b", 50_304, 2048, 16, 8, 2048),
    ("pythia-1.4b", 50_304, 2048, 24, 16, 2048),
    ("pythia-2.8b", 50_304, 2560, 32, 32, 2048),
    ("pythia-6.9b", 50_432, 4096, 32, 32, 2048),
    ("pythia-12b", 50_688, 5120, 36, 40, 2048),
    ("gpt-neox-20b", 50_432, 6144, 44, 64, 2048),
];

impl Config {
    /// A model of these sizes: V, D, L, H, positions, and the id that ends a text.
    pub(super) fn sized(vocab: usize, width: usize, layers: usize, heads: usize, positions: usize, eos: u32) -> Self {
        Self {
            vocab_size: Some(vocab),
            hidden_size: Some(width),
            intermediate_size: Some(4 * width),
            num_hidden_layers: Some(layers),
            num_attention_heads: Some(heads),
            max_position_embeddings: Some(positions),
            eos_token_id: Some(TokenIds(vec![eos])),
            ..Self::default()
        }
    }
}

/// The settings of a published model.
pub(super) fn preset(name: &str) -> Option<Config> {
    let (_, vocab, width, layers, heads, positions) = *MODELS.iter().find(|m| m.0 == name)?;
    // The large one was trained with the approximation.
    let hidden_act = if name == "gpt-neox-20b" { Activation::GeluNew } else { Activation::Gelu };
    Some(Config { hidden_act: Some(hidden_act), ..Config::sized(vocab, width, layers, heads, positions, 0) })
}

/// What `config.json` says, over the sizes of `GPTNeoXConfig`.
pub(super) fn described(config: &ModelConfig) -> Result<Config> {
    let part = "the decoder gpt-neox";
    config.refuse(part, &["layer_types", "sliding_window"])?;
    let found: Config = config.settings(&[], &["rope_scaling"])?;
    let sizes = Config::sized(50_432, 6144, 44, 64, 2048, 2);
    let rope = Rope::read(part, config, found.max_position_embeddings.or(sizes.max_position_embeddings).unwrap_or(0))?;
    // Both keys say the same where a file has both; which of two values transformers would take depends on its version.
    let same = |old: &str, new: &str, value: Option<f64>, other: Option<f64>| match (value, other) {
        (Some(value), Some(other)) if value != other => {
            Err(config.refusal(old, format!("but {new} is {other}, supported is the same number in both")))
        }
        (value, other) => Ok(value.or(other)),
    };
    let found = Config {
        rotary_pct: same("rotary_pct", "partial_rotary_factor", found.rotary_pct, rope.fraction)?,
        rotary_emb_base: same("rotary_emb_base", "rope_theta", found.rotary_emb_base, rope.theta)?,
        rope_scaling: rope.scaling,
        ..found
    };
    over(&found, &sizes)
}

/// The defaults of what every model has.
pub(super) fn filled(config: Config) -> Config {
    Config {
        model: None,
        hidden_act: config.hidden_act.or(Some(Activation::Gelu)),
        layer_norm_eps: config.layer_norm_eps.or(Some(1e-5)),
        rotary_pct: config.rotary_pct.or(Some(0.25)),
        rotary_emb_base: config.rotary_emb_base.or(Some(10_000.0)),
        use_parallel_residual: config.use_parallel_residual.or(Some(true)),
        attention_bias: config.attention_bias.or(Some(true)),
        tie_word_embeddings: config.tie_word_embeddings.or(Some(false)),
        eos_token_id: config.eos_token_id.or(Some(TokenIds(vec![]))),
        initializer_range: config.initializer_range.or(Some(0.02)),
        ..config
    }
}
