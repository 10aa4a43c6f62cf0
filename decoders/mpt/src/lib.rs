//! `mpt`: MPT (7B, 30B) as a frozen decoder.
//!
//! No positions but a bias of the scores that is linear in the distance (ALiBi), one matrix for queries, keys and values,
//! which may be clipped, layer norms without biases, a plain MLP.
//! Source followed: transformers' `modeling_mpt.py` and `configuration_mpt.py`.

use anyhow::{Result, bail};
use limber_core::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, FusedLayout, MatrixPlan, MlpPlan, NormPlan, ProjectionPlan,
};
use limber_core::decoder_model::{HeadPlan, ModelPlan, TablePlan};
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, CausalAttention, Heads, LinearBias, NormKind, mpt_slopes};
use limber_core::settings::over;
use limber_core::{DecoderFamily, Init, ModelConfig, decoder_family, family_settings, keyed};
use serde_json::json;

decoder_family! { Mpt, Config, "mpt", ["mpt"], "MPT from a Hugging Face folder, or by the name of a model" }

/// Name, positions, D, L, H of the published models whose biases are those of transformers.
const MODELS: [(&str, usize, usize, usize, usize); 2] =
    [("mpt-7b", 2048, 4096, 32, 32), ("mpt-30b", 8192, 7168, 48, 64)];

family_settings! {
    /// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
    Config {
        /// A model by name, mpt-7b or mpt-30b, for weights without `config.json`.
        model,
        sizes: {
            /// Vocabulary size V.
            vocab_size,
            /// Context length in positions.
            max_seq_len,
            /// LM width D; the MLP is four times as wide.
            d_model,
            /// Layers L.
            n_layers,
            /// Heads H.
            n_heads,
        },
        own: {
            /// Limit of queries, keys and values on both sides of 0; none by default.
            clip_qkv: f64,
            /// What the scores are multiplied with; 1 over the square root of a head's width by default.
            softmax_scale: f64,
            /// Epsilon of the layer norms.
            layer_norm_epsilon: f64 = 1e-5,
            /// Whether the head's matrix is the word embeddings'.
            tie_word_embeddings: bool = true,
            /// End-of-sequence id, or a list of them.
            eos_token_id: TokenIds = TokenIds(vec![]),
            /// Standard deviation of random weights.
            initializer_range: f32 = 0.02,
        },
    }
}

impl DecoderFamily for Mpt {
    fn tiny() -> Config {
        Config { eos_token_id: Some(TokenIds(vec![96])), clip_qkv: Some(2.0), ..Config::sized(&[97, 48, 32, 2, 4]) }
    }

    fn models() -> Vec<&'static str> {
        MODELS.map(|m| m.0).into()
    }

    fn preset(name: &str) -> Option<Config> {
        let (_, positions, width, layers, heads) = *MODELS.iter().find(|m| m.0 == name)?;
        let eos_token_id = Some(TokenIds(vec![0]));
        Some(Config { eos_token_id, ..Config::sized(&[50_432, positions, width, layers, heads]) })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        let component = "the decoder mpt";
        // What transformers leaves out of its computation, and the first authors' code does not.
        config.refuse(component, &["logit_scale"])?;
        config.expect("no_bias", &[json!(true)])?;
        config.expect("expansion_ratio", &[json!(4)])?;
        config.expect("norm_type", &[json!("low_precision_layernorm"), json!("layernorm")])?;
        let attention = config.section("attn_config").unwrap_or_default();
        attention.refuse(component, &["qk_ln", "prefix_lm", "attn_uses_sequence_id", "rope", "kv_n_heads"])?;
        attention.expect("alibi", &[json!(true)])?;
        attention.expect("alibi_bias_max", &[json!(8)])?;
        attention.expect("attn_type", &[json!("multihead_attention")])?;
        let found: Config = config.settings(&[], &["clip_qkv", "softmax_scale"])?;
        let found = Config {
            // 0 is none.
            clip_qkv: attention.number("clip_qkv")?.filter(|limit| *limit != 0.0),
            softmax_scale: attention.number("softmax_scale")?,
            ..found
        };
        over(&found, &Config::sized(&[50_368, 2048, 2048, 24, 16]))
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let spec =
            Self::spec(keyed!(config: vocab_size, d_model, n_layers, n_heads, max_seq_len), &config.eos_token_id)?;
        let (width, count) = (spec.width, spec.kv_heads);
        let mut heads = Heads::new(count, count, spec.head_dim);
        if config.softmax_scale.is_some() {
            heads.scale = Self::positive("softmax_scale", config.softmax_scale)?;
        }
        let Some(inner) = width.checked_mul(4) else {
            bail!("mpt: d_model {width} is too large, the MLP is four times as wide")
        };
        let clip = match config.clip_qkv {
            None => None,
            limit => Some(Self::positive("clip_qkv", limit)?),
        };
        let linear_bias = Some(LinearBias::Distance(mpt_slopes(count)));
        let init = Init::normal(Self::need("initializer_range", config.initializer_range)?);
        let eps = Self::need("layer_norm_epsilon", config.layer_norm_epsilon)?;
        let norm = NormPlan { kind: NormKind::LayerUnbiased, eps };
        let matrix = |name| MatrixPlan::new(name, init);
        let projections = ProjectionPlan::Fused { qkv: matrix("attn.Wqkv"), layout: FusedLayout::Concatenated };
        let attention = CausalAttention { linear_bias, ..CausalAttention::new(heads) };
        let plain = AttentionPlan::new(attention, projections, matrix("attn.out_proj"), None);
        let attention = (BranchNorms::before("norm_1"), AttentionPlan { clip, ..plain });
        let mlp = MlpPlan::plain(inner, Activation::Gelu, matrix("ffn.up_proj"), matrix("ffn.down_proj"));
        let block = BlockPlan::new(width, norm, attention, (BranchNorms::before("norm_2"), mlp));
        let tied = Self::need("tie_word_embeddings", config.tie_word_embeddings)?;
        let (words, head) = (TablePlan::new("wte", init), HeadPlan::new(matrix("lm_head"), tied));
        let blocks = ("blocks", vec![block; spec.layers]);
        Ok(ModelPlan::new(spec, &["transformer", ""], words, blocks, Some(("norm_f", norm)), head))
    }
}
