//! `qwen3`: Qwen3's dense models as a frozen decoder.
//!
//! As Qwen2, with norms of each head's queries and keys in place of biases, and heads of a width of their own.
//! Source followed: transformers' `modeling_qwen3.py` and `configuration_qwen3.py`.

use anyhow::Result;
use limber_core::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, MlpPlan, NormPlan, ProjectionPlan, QueryKeyNorm,
};
use limber_core::decoder_family::{LayerType, eos};
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, CausalAttention, Heads, NormKind};
use limber_core::rope::{Rope, RopeScaling};
use limber_core::settings::over;
use limber_core::{DecoderFamily, DecoderSpec, FamilyDecoder, Init, ModelConfig, register};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

register!(decoder, FamilyDecoder<Qwen3>);

/// The family.
pub struct Qwen3;

/// The settings. What is not set is read off `config.json` beside the weights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
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
    /// Width of a head; 128 by default.
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
    /// Whether the attention's matrices have biases.
    pub attention_bias: Option<bool>,
    /// Whether layers see a window of the last keys.
    pub use_sliding_window: Option<bool>,
    /// Keys in the window, a position's own included.
    pub sliding_window: Option<usize>,
    /// Layers from the first on that see all keys, where no layer_types say which do.
    pub max_window_layers: Option<usize>,
    /// What each layer sees.
    pub layer_types: Option<Vec<LayerType>>,
    /// Whether the head's matrix is the word embeddings'.
    pub tie_word_embeddings: Option<bool>,
    /// End-of-sequence id, or a list of them.
    pub eos_token_id: Option<TokenIds>,
    /// Standard deviation of random weights.
    pub initializer_range: Option<f32>,
}

impl Config {
    /// A model of V and positions, and of D, width of the MLP, L, query heads, key and value heads.
    fn sized(vocab: usize, positions: usize, [width, inner, layers, queries, keys]: [usize; 5]) -> Self {
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
}

impl DecoderFamily for Qwen3 {
    type Config = Config;
    const KIND: &'static str = "qwen3";
    const ABOUT: &'static str = "Qwen3 (dense) from a Hugging Face folder";
    const MODEL_TYPES: &'static [&'static str] = &["qwen3"];

    fn tiny() -> Config {
        let eos_token_id = Some(TokenIds(vec![96]));
        Config { head_dim: Some(6), eos_token_id, ..Config::sized(97, 48, [32, 48, 2, 4, 2]) }
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        let found: Config = config.settings(&[], &["rope_scaling"])?;
        let found = over(&found, &Config::sized(151_936, 32_768, [4096, 22_016, 32, 32, 32]))?;
        let rope = Rope::read_whole("the decoder qwen3", config, found.max_position_embeddings)?;
        Ok(Config { rope_theta: rope.theta, rope_scaling: rope.scaling, ..found })
    }

    fn filled(config: Config) -> Config {
        Config {
            num_key_value_heads: config.num_key_value_heads.or(config.num_attention_heads),
            head_dim: config.head_dim.or(Some(128)),
            hidden_act: config.hidden_act.or(Some(Activation::Silu)),
            rms_norm_eps: config.rms_norm_eps.or(Some(1e-6)),
            rope_theta: config.rope_theta.or(Some(10_000.0)),
            attention_bias: config.attention_bias.or(Some(false)),
            use_sliding_window: config.use_sliding_window.or(Some(false)),
            max_window_layers: config.max_window_layers.or(Some(28)),
            tie_word_embeddings: config.tie_word_embeddings.or(Some(false)),
            eos_token_id: config.eos_token_id.or(Some(TokenIds(vec![]))),
            initializer_range: config.initializer_range.or(Some(0.02)),
            ..config
        }
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let heads = Heads::new(
            Self::size("num_attention_heads", config.num_attention_heads)?,
            Self::size("num_key_value_heads", config.num_key_value_heads)?,
            Self::size("head_dim", config.head_dim)?,
        );
        let positions = Self::size("max_position_embeddings", config.max_position_embeddings)?;
        let rotary = Self::rotary(heads, config.rope_theta, config.rope_scaling.as_ref(), positions)?;
        let spec = DecoderSpec {
            width: Self::size("hidden_size", config.hidden_size)?,
            vocab: Self::size("vocab_size", config.vocab_size)?,
            layers: Self::size("num_hidden_layers", config.num_hidden_layers)?,
            kv_heads: heads.keys,
            head_dim: heads.dim,
            context: rotary.positions(),
            eos: eos(&config.eos_token_id),
        };
        let init = Init::normal(Self::need("initializer_range", config.initializer_range)?);
        let norm = NormPlan { kind: NormKind::Rms, eps: Self::need("rms_norm_eps", config.rms_norm_eps)? };
        let biased = Self::need("attention_bias", config.attention_bias)?;
        let (projections, out) = ProjectionPlan::llama(init, biased);
        let inner = Self::size("intermediate_size", config.intermediate_size)?;
        let block = BlockPlan {
            width: spec.width,
            norm,
            attention_norms: BranchNorms::before("input_layernorm"),
            attention: AttentionPlan {
                attention: CausalAttention::new(heads),
                projections,
                out,
                query_key_norm: Some(QueryKeyNorm { q: "self_attn.q_norm", k: "self_attn.k_norm", per_head: true, norm }),
                rotary: Some(rotary),
            },
            mlp_norms: BranchNorms::before("post_attention_layernorm"),
            mlp: MlpPlan::llama(inner, Self::need("hidden_act", config.hidden_act)?, init, false),
            parallel: false,
            residual_scale: None,
        };
        let full = Self::need("max_window_layers", config.max_window_layers)?;
        let width = config.sliding_window.filter(|_| config.use_sliding_window == Some(true));
        let windows = Self::windows(config.layer_types.as_deref(), width, spec.layers, |layer| layer >= full)?;
        let blocks = windows.into_iter().map(|window| block.within(window)).collect();
        Ok(ModelPlan::llama(spec, blocks, norm, init, Self::need("tie_word_embeddings", config.tie_word_embeddings)?))
    }
}
