//! `stablelm`: StableLM (3B, 2 1.6B, 2 12B) as a frozen decoder.
//!
//! As Llama, with layer norms and a rotary embedding of a part of each head; the largest has attention and MLP side by side
//! behind one norm, and a norm of its own for each head of queries and keys.
//! Source followed: transformers' `modeling_stablelm.py` and `configuration_stablelm.py`.

use anyhow::Result;
use limber_core::decoder_block::{BranchNorms, NormPlan, NormScope, QueryKeyNorm};
use limber_core::decoder_family::LlamaLike;
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, NormKind};
use limber_core::rope::Rope;
use limber_core::{DecoderFamily, ModelConfig, decoder_family, llama_like_settings};

decoder_family! { StableLm, Config, "stablelm", ["stablelm"], "StableLM from a Hugging Face folder, or by the name of a model" }

llama_like_settings! {
    activation: hidden_act,
    epsilon: layer_norm_eps,
    /// Whether the matrices of queries, keys and values have biases.
    bias: use_qkv_bias,
    defaults: { hidden_act: Activation::Silu, layer_norm_eps: 1e-5 },
    own: {
        /// A model by name, stablelm-3b-4e1t, stablelm-2-1.6b or stablelm-2-12b, for weights without `config.json`.
        model: String = None,
        /// The part of each head that the rotary embedding rotates.
        partial_rotary_factor: f64 = Some(0.25),
        /// Whether attention and MLP stand side by side, behind one norm.
        use_parallel_residual: bool = Some(false),
        /// Whether each head's queries and keys have a layer norm of their own.
        qk_layernorm: bool = Some(false),
    },
}

impl DecoderFamily for StableLm {
    fn tiny() -> Config {
        Config {
            partial_rotary_factor: Some(0.5),
            use_qkv_bias: Some(true),
            use_parallel_residual: Some(true),
            qk_layernorm: Some(true),
            ..Config::smallest()
        }
    }

    fn models() -> Vec<&'static str> {
        vec!["stablelm-3b-4e1t", "stablelm-2-1.6b", "stablelm-2-12b"]
    }

    fn preset(name: &str) -> Option<Config> {
        let two = |sizes| Config { eos_token_id: Some(TokenIds(vec![100_257])), ..Config::sized(100_352, 4096, sizes) };
        Some(match name {
            "stablelm-3b-4e1t" => Config {
                eos_token_id: Some(TokenIds(vec![0])),
                ..Config::sized(50_304, 4096, [2560, 6912, 32, 32, 32])
            },
            "stablelm-2-1.6b" => Config { use_qkv_bias: Some(true), ..two([2048, 5632, 24, 32, 32]) },
            "stablelm-2-12b" => {
                Config { use_parallel_residual: Some(true), qk_layernorm: Some(true), ..two([5120, 13_824, 40, 32, 8]) }
            }
            _ => return None,
        })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        let reference =
            Config { eos_token_id: Some(TokenIds(vec![0])), ..Config::sized(50_304, 4096, [2560, 6912, 32, 32, 32]) };
        let found = Config::read_but_rope(config, &reference, &[])?;
        let rope = Rope::read("the decoder stablelm", config, found.max_position_embeddings.unwrap_or(0))?;
        Ok(Config { rope_theta: rope.theta, rope_scaling: rope.scaling, partial_rotary_factor: rope.fraction, ..found })
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let sizes = LlamaLike { partial_rotary_factor: config.partial_rotary_factor, ..config.shared() };
        let sizes = sizes.sizes::<Self>()?;
        let mut block = sizes.block(NormKind::Layer);
        block.attention.out.biased = false;
        block.parallel = Self::need("use_parallel_residual", config.use_parallel_residual)?;
        if block.parallel {
            block.mlp_norms = BranchNorms::default();
        }
        if Self::need("qk_layernorm", config.qk_layernorm)? {
            let norm = NormPlan { kind: NormKind::LayerUnbiased, ..block.norm };
            let (q, k) = ("self_attn.q_layernorm", "self_attn.k_layernorm");
            block.attention.query_key_norm = Some(QueryKeyNorm { q, k, scope: NormScope::EachHead, norm });
        }
        let windows = vec![None; sizes.spec.layers];
        Ok(sizes.model(block, windows))
    }
}
