//! `falcon`: Falcon (RW-1B, 7B, 11B, 40B, 180B) as a frozen decoder.
//!
//! One matrix for queries, keys and values in three layouts; attention and MLP side by side behind one norm or two, or one
//! after the other; rotary embedding, or biases of the scores that are linear in the position of the key (ALiBi).
//! Source followed: transformers' `modeling_falcon.py` and `configuration_falcon.py`.

mod settings;

use anyhow::{Result, bail};
use limber_core::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, FusedLayout, MatrixPlan, MlpPlan, NormPlan, ProjectionPlan,
};
use limber_core::decoder_model::{HeadPlan, ModelPlan, TablePlan};
use limber_core::model_config::TokenIds;
use limber_core::ops::{CausalAttention, Heads, LinearBias, NormKind, alibi_slopes};
use limber_core::rope::{Rope, rotary};
use limber_core::{DecoderFamily, DecoderSpec, FamilyNames, Init, ModelConfig, decoder_family, keyed};
pub use settings::Config;

decoder_family! { Falcon, Config, "falcon", ["falcon"], "Falcon from a Hugging Face folder, or by the name of a model (falcon-7b by default)" }

impl DecoderFamily for Falcon {
    fn tiny() -> Config {
        Config {
            new_decoder_architecture: Some(true),
            num_kv_heads: Some(2),
            eos_token_id: Some(TokenIds(vec![96])),
            ..Config::sized(&[97, 48, 32, 2, 4])
        }
    }

    fn models() -> Vec<&'static str> {
        settings::MODELS.into()
    }

    fn preset(name: &str) -> Option<Config> {
        settings::preset(name)
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        let found: Config = config.settings(&[("n_embed", "hidden_size")], &["rope_scaling"])?;
        let rope = Rope::read_whole("the decoder falcon", config, found.max_position_embeddings.or(Some(2048)))?;
        Ok(Config { rope_theta: rope.theta, rope_scaling: rope.scaling, ..found })
    }

    fn derived(config: Config) -> Config {
        Config { ffn_hidden_size: config.ffn_hidden_size.or_else(|| config.hidden_size?.checked_mul(4)), ..config }
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let spec = Self::spec(
            keyed!(config: vocab_size, hidden_size, num_hidden_layers, num_attention_heads, max_position_embeddings),
            &config.eos_token_id,
        )?;
        let (width, queries, dim, positions) = (spec.width, spec.kv_heads, spec.head_dim, spec.context);
        let grouped = Self::need("new_decoder_architecture", config.new_decoder_architecture)?;
        let (keys, layout) = match (grouped, Self::need("multi_query", config.multi_query)?) {
            (true, _) => (config.num_kv_heads.unwrap_or(queries), FusedLayout::Grouped),
            (false, true) => (1, FusedLayout::Concatenated),
            (false, false) => (queries, FusedLayout::Grouped),
        };
        if keys == 0 || queries % keys != 0 {
            bail!("falcon: num_attention_heads {queries} is not a multiple of num_kv_heads {keys}")
        }
        let parallel = Self::need("parallel_attn", config.parallel_attn)?;
        let (attention_norms, mlp_norms) = match (grouped, parallel, config.num_ln_in_parallel_attn) {
            (true, true, None | Some(2)) => (BranchNorms::before("ln_attn"), BranchNorms::before("ln_mlp")),
            (_, true, None | Some(1)) => (BranchNorms::before("input_layernorm"), BranchNorms::default()),
            (false, false, _) => {
                (BranchNorms::before("input_layernorm"), BranchNorms::before("post_attention_layernorm"))
            }
            (_, _, norms) => bail!(
                "falcon: num_ln_in_parallel_attn {} beside new_decoder_architecture {grouped} and parallel_attn {parallel} is not supported, expected 1, or 2 where both are true",
                norms.map_or_else(|| "null".to_string(), |norms| norms.to_string())
            ),
        };
        let alibi = Self::need("alibi", config.alibi)?;
        let scaling = config.rope_scaling.as_ref().filter(|_| !alibi);
        let rotary = if alibi {
            None
        } else {
            let theta = Self::need("rope_theta", config.rope_theta)?;
            if dim % 2 != 0 || !(theta.is_finite() && theta > 1.0) {
                bail!("falcon: rope_theta is {theta} for heads of {dim}, expected a number above 1 and an even width")
            }
            if let Some(scaling) = scaling {
                scaling.check(Self::KIND, dim)?;
            }
            Some(rotary(dim, theta, scaling, positions))
        };
        let context = scaling.map_or(positions, |scaling| scaling.context(positions));
        let spec = DecoderSpec { kv_heads: keys, context, ..spec };
        let linear_bias = alibi.then(|| LinearBias::RoundedPosition(alibi_slopes(queries)));
        let init = Init::normal(Self::need("initializer_range", config.initializer_range)?);
        let eps = Self::need("layer_norm_epsilon", config.layer_norm_epsilon)?;
        let norm = NormPlan { kind: NormKind::Layer, eps };
        let biased = Self::need("bias", config.bias)?;
        let matrix = |name| MatrixPlan::new(name, init).biased(biased);
        let heads = Heads::new(queries, keys, dim);
        let projections = ProjectionPlan::Fused { qkv: matrix("self_attention.query_key_value"), layout };
        let attention = CausalAttention { linear_bias, ..CausalAttention::new(heads) };
        let attention = AttentionPlan::new(attention, projections, matrix("self_attention.dense"), rotary);
        let inner = Self::size("ffn_hidden_size", config.ffn_hidden_size)?;
        let activation = Self::need("activation", config.activation)?;
        let mlp = MlpPlan::plain(inner, activation, matrix("mlp.dense_h_to_4h"), matrix("mlp.dense_4h_to_h"));
        let block = BlockPlan::new(width, norm, (attention_norms, attention), (mlp_norms, mlp));
        let block = BlockPlan { parallel, ..block };
        let tied = Self::need("tie_word_embeddings", config.tie_word_embeddings)?;
        let (words, head) =
            (TablePlan::new("word_embeddings", init), HeadPlan::new(MatrixPlan::new("lm_head", init), tied));
        let blocks = ("h", vec![block; spec.layers]);
        Ok(ModelPlan::new(spec, &["transformer", ""], words, blocks, Some(("ln_f", norm)), head))
    }
}
