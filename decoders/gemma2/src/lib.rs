//! `gemma2`: Gemma 2 (2B, 9B, 27B) as a frozen decoder.
//!
//! RMS norms of gain 1 + weight before and after each branch, a window in every other layer, soft caps of scores and
//! logits, words times the square root of the width. A prefix that is no word's is not scaled, as in transformers 5.
//! Source followed: transformers' `modeling_gemma2.py` and `configuration_gemma2.py`.

use anyhow::Result;
use limber_core::decoder_block::{AttentionPlan, BlockPlan, BranchNorms, MlpPlan, NormPlan, ProjectionPlan};
use limber_core::decoder_family::{LayerType, eos};
use limber_core::decoder_model::{HeadPlan, ModelPlan, TablePlan};
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, CausalAttention, Heads, NormKind};
use limber_core::rope::{Rope, RopeScaling};
use limber_core::{DecoderFamily, DecoderSpec, FamilyDecoder, Init, ModelConfig, register};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

register!(decoder, FamilyDecoder<Gemma2>);

/// The family.
pub struct Gemma2;

/// The settings. What is not set is read off `config.json` beside the weights, or is gemma-2-2b's. A soft cap of 0 is none.
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
    /// Key and value heads.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head.
    pub head_dim: Option<usize>,
    /// The number over whose square root scores are divided.
    pub query_pre_attn_scalar: Option<f64>,
    /// Context length in positions.
    pub max_position_embeddings: Option<usize>,
    /// The MLP's activation.
    pub hidden_activation: Option<Activation>,
    /// Epsilon of the norms.
    pub rms_norm_eps: Option<f64>,
    /// Base of the rotary frequencies.
    pub rope_theta: Option<f64>,
    /// Scaling of the rotary frequencies.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the attention's matrices have biases.
    pub attention_bias: Option<bool>,
    /// Keys in the window, a position's own included.
    pub sliding_window: Option<usize>,
    /// What each layer sees; a window in every other one from the first on by default.
    pub layer_types: Option<Vec<LayerType>>,
    /// Soft cap of the attention's scores.
    pub attn_logit_softcapping: Option<f64>,
    /// Soft cap of the logits.
    pub final_logit_softcapping: Option<f64>,
    /// Whether the head's matrix is the word embeddings'.
    pub tie_word_embeddings: Option<bool>,
    /// End-of-sequence id, or a list of them.
    pub eos_token_id: Option<TokenIds>,
    /// Standard deviation of random weights.
    pub initializer_range: Option<f32>,
}

impl DecoderFamily for Gemma2 {
    type Config = Config;
    const KIND: &'static str = "gemma2";
    const ABOUT: &'static str = "Gemma 2 from a Hugging Face folder (gemma-2-2b's sizes by default)";
    const MODEL_TYPES: &'static [&'static str] = &["gemma2"];

    fn tiny() -> Config {
        Config {
            vocab_size: Some(97),
            hidden_size: Some(32),
            intermediate_size: Some(48),
            num_hidden_layers: Some(2),
            num_attention_heads: Some(4),
            num_key_value_heads: Some(2),
            head_dim: Some(6),
            max_position_embeddings: Some(48),
            sliding_window: Some(4),
            eos_token_id: Some(TokenIds(vec![96])),
            ..Config::default()
        }
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        config.refuse("the decoder gemma2", &["use_bidirectional_attention"])?;
        let mut found: Config = config.settings(&[], &["rope_scaling"])?;
        // No cap where the file says null, the default where it says nothing.
        let cap = |key: &str, value: Option<f64>| if config.is_null(key) { Some(0.0) } else { value };
        found.attn_logit_softcapping = cap("attn_logit_softcapping", found.attn_logit_softcapping);
        found.final_logit_softcapping = cap("final_logit_softcapping", found.final_logit_softcapping);
        let rope = Rope::read_whole("the decoder gemma2", config, found.max_position_embeddings.or(Some(8192)))?;
        Ok(Config { rope_theta: rope.theta, rope_scaling: rope.scaling, ..found })
    }

    fn filled(config: Config) -> Config {
        Config {
            vocab_size: config.vocab_size.or(Some(256_000)),
            hidden_size: config.hidden_size.or(Some(2304)),
            intermediate_size: config.intermediate_size.or(Some(9216)),
            num_hidden_layers: config.num_hidden_layers.or(Some(26)),
            num_attention_heads: config.num_attention_heads.or(Some(8)),
            num_key_value_heads: config.num_key_value_heads.or(Some(4)),
            head_dim: config.head_dim.or(Some(256)),
            query_pre_attn_scalar: config.query_pre_attn_scalar.or(Some(256.0)),
            max_position_embeddings: config.max_position_embeddings.or(Some(8192)),
            hidden_activation: config.hidden_activation.or(Some(Activation::GeluNew)),
            rms_norm_eps: config.rms_norm_eps.or(Some(1e-6)),
            rope_theta: config.rope_theta.or(Some(10_000.0)),
            rope_scaling: config.rope_scaling,
            attention_bias: config.attention_bias.or(Some(false)),
            sliding_window: config.sliding_window.or(Some(4096)),
            layer_types: config.layer_types,
            attn_logit_softcapping: config.attn_logit_softcapping.or(Some(50.0)),
            final_logit_softcapping: config.final_logit_softcapping.or(Some(30.0)),
            tie_word_embeddings: config.tie_word_embeddings.or(Some(true)),
            eos_token_id: config.eos_token_id.or(Some(TokenIds(vec![1]))),
            initializer_range: config.initializer_range.or(Some(0.02)),
        }
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let heads = Heads::new(
            Self::size("num_attention_heads", config.num_attention_heads)?,
            Self::size("num_key_value_heads", config.num_key_value_heads)?,
            Self::size("head_dim", config.head_dim)?,
        );
        let scalar = Self::positive("query_pre_attn_scalar", config.query_pre_attn_scalar)?;
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
        let norm = NormPlan { kind: NormKind::RmsLessOne, eps: Self::need("rms_norm_eps", config.rms_norm_eps)? };
        let (projections, out) = ProjectionPlan::llama(init, Self::need("attention_bias", config.attention_bias)?);
        let soft_cap = Self::cap("attn_logit_softcapping", config.attn_logit_softcapping)?;
        let heads = Heads { scale: 1.0 / scalar.sqrt(), ..heads };
        let inner = Self::size("intermediate_size", config.intermediate_size)?;
        let block = BlockPlan {
            width: spec.width,
            norm,
            attention_norms: BranchNorms::sandwich("input_layernorm", "post_attention_layernorm"),
            attention: AttentionPlan {
                attention: CausalAttention { soft_cap, ..CausalAttention::new(heads) },
                projections,
                out,
                query_key_norm: None,
                rotary: Some(rotary),
            },
            mlp_norms: BranchNorms::sandwich("pre_feedforward_layernorm", "post_feedforward_layernorm"),
            mlp: MlpPlan::llama(inner, Self::need("hidden_activation", config.hidden_activation)?, init, false),
            parallel: false,
            residual_scale: None,
        };
        let types = config.layer_types.as_deref();
        let windows = Self::windows(types, config.sliding_window, spec.layers, |layer| layer % 2 == 0)?;
        let blocks = windows.into_iter().map(|window| block.within(window)).collect();
        let tied = Self::need("tie_word_embeddings", config.tie_word_embeddings)?;
        let plan = ModelPlan::llama(spec, blocks, norm, init, tied);
        let soft_cap = Self::cap("final_logit_softcapping", config.final_logit_softcapping)?;
        let words = TablePlan { scale: (plan.spec.width as f64).sqrt(), ..plan.words };
        Ok(ModelPlan { words, head: HeadPlan { soft_cap, ..plan.head }, ..plan })
    }
}
