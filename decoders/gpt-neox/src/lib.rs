//! `gpt-neox`: GPT-NeoX-20B, Pythia and their kin as a frozen decoder.
//!
//! Attention and MLP, side by side behind two layer norms or one after the other, rotary embedding on the first part of
//! each head in halves, a head without bias.
//! Source followed: transformers' `modeling_gpt_neox.py`.

use anyhow::{Result, bail};
use limber_core::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, FusedLayout, MatrixPlan, MlpPlan, NormPlan, ProjectionPlan,
};
use limber_core::decoder_model::{HeadPlan, ModelPlan, TablePlan};
use limber_core::ops::{CausalAttention, Heads, NormKind};
use limber_core::rope::rotary;
use limber_core::{DecoderFamily, DecoderSpec, Init, ModelConfig, decoder_family, keyed};

mod settings;

pub use settings::Config;

decoder_family! { GptNeox, Config, "gpt-neox", ["gpt_neox"], "GPT-NeoX and Pythia, from a Hugging Face folder or by the name of a model" }

impl DecoderFamily for GptNeox {
    fn tiny() -> Config {
        Config { rotary_pct: Some(0.5), ..Config::published(97, 32, 2, 4, 48, 96) }
    }

    fn models() -> Vec<&'static str> {
        settings::MODELS.iter().map(|m| m.0).collect()
    }

    fn preset(name: &str) -> Option<Config> {
        settings::preset(name).map(Self::filled)
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        settings::described(config)
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let spec = Self::spec(
            keyed!(config: vocab_size, hidden_size, num_hidden_layers, num_attention_heads, max_position_embeddings),
            &config.eos_token_id,
        )?;
        let (width, heads, dim, positions) = (spec.width, spec.kv_heads, spec.head_dim, spec.context);
        let pct = Self::need("rotary_pct", config.rotary_pct)?;
        // Rounded down as in transformers, whose frequencies then round an odd number up.
        let rotated = (dim as f64 * pct) as usize;
        if !(pct > 0.0 && pct <= 1.0) || rotated == 0 || rotated.next_multiple_of(2) > dim {
            bail!(
                "gpt-neox: rotary_pct {pct} of a head's {dim} elements is not allowed, it turns from 2 to {dim} of them"
            )
        }
        let base = Self::need("rotary_emb_base", config.rotary_emb_base)?;
        if !(base.is_finite() && base > 1.0) {
            bail!("gpt-neox: rotary_emb_base is {base}, expected a number above 1")
        }
        let scaling = config.rope_scaling.as_ref();
        if let Some(scaling) = scaling {
            scaling.check("gpt-neox", rotated)?;
        }
        let spec = DecoderSpec { context: scaling.map_or(positions, |s| s.context(positions)), ..spec };
        let init = Init::normal(Self::need("initializer_range", config.initializer_range)?);
        let norm = NormPlan { kind: NormKind::Layer, eps: Self::need("layer_norm_eps", config.layer_norm_eps)? };
        let matrix = |name| MatrixPlan::new(name, init);
        let biased = Self::need("attention_bias", config.attention_bias)?;
        let qkv = matrix("attention.query_key_value").biased(biased);
        let projections = ProjectionPlan::Fused { qkv, layout: FusedLayout::Grouped };
        let out = matrix("attention.dense").biased(biased);
        let attention = CausalAttention::new(Heads::new(heads, heads, dim));
        let rotary = Some(rotary(rotated, base, scaling, positions));
        let attention =
            (BranchNorms::before("input_layernorm"), AttentionPlan::new(attention, projections, out, rotary));
        let inner = Self::size("intermediate_size", config.intermediate_size)?;
        let activation = Self::need("hidden_act", config.hidden_act)?;
        let (up, down) = (matrix("mlp.dense_h_to_4h").biased(true), matrix("mlp.dense_4h_to_h").biased(true));
        let mlp = MlpPlan::plain(inner, activation, up, down);
        let parallel = Self::need("use_parallel_residual", config.use_parallel_residual)?;
        let block = BlockPlan::new(width, norm, attention, (BranchNorms::before("post_attention_layernorm"), mlp));
        let block = BlockPlan { parallel, ..block };
        let tied = Self::need("tie_word_embeddings", config.tie_word_embeddings)?;
        // Transformers 5 calls the head by another name while it runs, and saves it under the old one.
        let head = HeadPlan { other_name: Some("lm_head"), ..HeadPlan::new(matrix("embed_out"), tied) };
        let (words, blocks) = (TablePlan::new("embed_in", init), ("layers", vec![block; spec.layers]));
        Ok(ModelPlan::new(spec, &["gpt_neox", ""], words, blocks, Some(("final_layer_norm", norm)), head))
    }
}
