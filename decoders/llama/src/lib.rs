//! `llama`: Llama 1 to 3.2, TinyLlama, Mistral, Qwen2 and Qwen2.5 as a frozen decoder.
//!
//! Attention, then gated MLP, each behind an RMS norm; rotary embedding in halves over the whole head, with the scalings of
//! longer contexts; grouped queries, sliding windows.
//! Sources followed: transformers' `modeling_llama.py`, `modeling_mistral.py`, `modeling_qwen2.py`.

use anyhow::{Result, bail};
use limber_core::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, MatrixPlan, MlpLayers, MlpPlan, NormPlan, ProjectionPlan,
};
use limber_core::decoder_family::eos;
use limber_core::decoder_model::{HeadPlan, ModelPlan, TablePlan};
use limber_core::model_config::TokenIds;
use limber_core::ops::{CausalAttention, Heads, NormKind};
use limber_core::rope::rotary;
use limber_core::{DecoderFamily, DecoderSpec, FamilyDecoder, Init, ModelConfig, register};

mod described;
mod presets;
mod settings;

pub use settings::{Config, Family, LayerType};

register!(decoder, FamilyDecoder<Llama>);

/// The family.
pub struct Llama;

impl DecoderFamily for Llama {
    type Config = Config;
    const KIND: &'static str = "llama";
    const ABOUT: &'static str = "Llama, Mistral and Qwen2, from a Hugging Face folder or by the name of a model";
    const MODEL_TYPES: &'static [&'static str] = &Family::NAMES;
    // Fine-tuned models may end texts otherwise, and take longer ones.
    const MAY_DIFFER: &'static [&'static str] = &["eos_token_id", "max_position_embeddings"];

    fn tiny() -> Config {
        Config {
            model_type: Some(Family::Qwen2),
            // Not hidden_size / num_attention_heads, as in Mistral-Nemo.
            head_dim: Some(6),
            // The second layer sees four keys, fewer than the suite's rows have.
            sliding_window: Some(4),
            max_window_layers: Some(1),
            eos_token_id: Some(TokenIds(vec![95, 96])),
            ..Config::sized(97, 48, [32, 48, 2, 4, 2])
        }
    }

    fn models() -> Vec<&'static str> {
        presets::NAMES.into()
    }

    fn preset(name: &str) -> Option<Config> {
        presets::preset(name).map(Config::filled)
    }

    fn own(config: Config) -> Config {
        // Who sets a window wants it.
        let wanted = config.use_sliding_window.or(config.sliding_window.is_some().then_some(true));
        Config { use_sliding_window: wanted, ..config }
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        described::described(config)
    }

    fn filled(config: Config) -> Config {
        config.filled()
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let width = Self::size("hidden_size", config.hidden_size)?;
        let queries = Self::size("num_attention_heads", config.num_attention_heads)?;
        let dim = match config.head_dim {
            Some(_) => Self::size("head_dim", config.head_dim)?,
            None if width % queries != 0 => bail!(
                "llama: hidden_size {width} is not a multiple of num_attention_heads {queries}, and head_dim is not set"
            ),
            None => width / queries,
        };
        let keys = Self::size("num_key_value_heads", config.num_key_value_heads)?;
        if queries % keys != 0 {
            bail!("llama: num_attention_heads {queries} is not a multiple of num_key_value_heads {keys}")
        }
        if dim % 2 != 0 {
            bail!("llama: head_dim {dim} is not allowed, the rotary embedding needs an even number")
        }
        let theta = Self::need("rope_theta", config.rope_theta)?;
        if !(theta.is_finite() && theta > 1.0) {
            bail!("llama: rope_theta is {theta}, allowed is above 1")
        }
        let positions = Self::size("max_position_embeddings", config.max_position_embeddings)?;
        let scaling = config.rope_scaling.as_ref();
        if let Some(scaling) = scaling {
            scaling.check("llama", dim)?;
        }
        config.check_biases()?;
        let spec = DecoderSpec {
            width,
            vocab: Self::size("vocab_size", config.vocab_size)?,
            layers: Self::size("num_hidden_layers", config.num_hidden_layers)?,
            kv_heads: keys,
            head_dim: dim,
            context: scaling.map_or(positions, |s| s.context(positions)),
            eos: eos(&config.eos_token_id),
        };
        let init = Init::normal(Self::need("initializer_range", config.initializer_range)?);
        let norm = NormPlan { kind: NormKind::Rms, eps: Self::need("rms_norm_eps", config.rms_norm_eps)? };
        let attention_bias = Self::need("attention_bias", config.attention_bias)?;
        let mlp_bias = Self::need("mlp_bias", config.mlp_bias)?;
        let attention = |name| MatrixPlan::new(name, init).biased(attention_bias);
        let mlp = |name| MatrixPlan::new(name, init).biased(mlp_bias);
        let mut block = BlockPlan {
            width,
            norm,
            attention_norms: BranchNorms::before("input_layernorm"),
            attention: AttentionPlan {
                attention: CausalAttention::new(Heads::new(queries, keys, dim)),
                projections: ProjectionPlan::Split {
                    q: attention("self_attn.q_proj"),
                    k: attention("self_attn.k_proj"),
                    v: attention("self_attn.v_proj"),
                },
                out: attention("self_attn.o_proj").biased(attention_bias && config.model_type == Some(Family::Llama)),
                query_key_norm: None,
                rotary: Some(rotary(dim, theta, scaling, positions)),
            },
            mlp_norms: BranchNorms::before("post_attention_layernorm"),
            mlp: MlpPlan {
                inner: Self::size("intermediate_size", config.intermediate_size)?,
                activation: Self::need("hidden_act", config.hidden_act)?,
                layers: MlpLayers::Gated { gate: mlp("mlp.gate_proj"), up: mlp("mlp.up_proj") },
                down: mlp("mlp.down_proj"),
            },
            parallel: false,
            residual_scale: None,
        };
        let windows = config.windows(spec.layers)?.into_iter();
        let blocks = windows.map(|window| {
            block.attention.attention.window = window;
            block.clone()
        });
        let tied = Self::need("tie_word_embeddings", config.tie_word_embeddings)?;
        Ok(ModelPlan {
            prefixes: &["model", ""],
            probe: "embed_tokens.weight",
            words: TablePlan { name: "embed_tokens", init },
            input_scale: 1.0,
            projections: None,
            positions: None,
            layers: "layers",
            blocks: blocks.collect(),
            final_norm: Some(("norm", norm)),
            head: HeadPlan::new(MatrixPlan::new("lm_head", init), tied),
            spec,
        })
    }
}
