//! `olmo2`: OLMo 2 (1B, 7B, 13B, 32B) as a frozen decoder.
//!
//! As Llama, with norms on what attention and MLP give instead of before them, and norms of all queries and all keys.
//! Source followed: transformers' `modeling_olmo2.py` and `configuration_olmo2.py`.

use anyhow::Result;
use limber_core::decoder_block::{BranchNorms, NormScope, QueryKeyNorm};
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, NormKind};
use limber_core::{DecoderFamily, ModelConfig, decoder_family, llama_like_settings};

decoder_family! { Olmo2, Config, "olmo2", ["olmo2"], "OLMo 2 from a Hugging Face folder, or by the name of a model" }

/// Name, D, width of the MLP, L, query heads, key and value heads of the published models.
const MODELS: [(&str, [usize; 5]); 4] = [
    ("olmo-2-1b", [2048, 8192, 16, 16, 16]),
    ("olmo-2-7b", [4096, 11_008, 32, 32, 32]),
    ("olmo-2-13b", [5120, 13_824, 40, 40, 40]),
    ("olmo-2-32b", [5120, 27_648, 64, 40, 8]),
];

llama_like_settings! {
    activation: hidden_act,
    defaults: { hidden_act: Activation::Silu, rms_norm_eps: 1e-5 },
    own: {
        /// A model by name, olmo-2-1b to olmo-2-32b, for weights without `config.json`.
        model: String = None,
    },
}

impl DecoderFamily for Olmo2 {
    // Fine-tuned models may end texts otherwise, and take longer ones.
    const MAY_DIFFER: &'static [&'static str] = &["eos_token_id", "max_position_embeddings"];

    fn tiny() -> Config {
        Config { ..Config::smallest() }
    }

    fn models() -> Vec<&'static str> {
        MODELS.map(|m| m.0).into()
    }

    fn preset(name: &str) -> Option<Config> {
        let (_, sizes) = *MODELS.iter().find(|m| m.0 == name)?;
        Some(Config {
            rms_norm_eps: Some(1e-6),
            rope_theta: Some(5e5),
            eos_token_id: Some(TokenIds(vec![100_257])),
            ..Config::sized(100_352, 4096, sizes)
        })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        let reference = Config {
            num_key_value_heads: None,
            eos_token_id: Some(TokenIds(vec![50_279])),
            ..Config::sized(50_304, 2048, [4096, 11_008, 32, 32, 32])
        };
        Config::read(config, "the decoder olmo2", &reference, &[])
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let sizes = config.sizes::<Self>()?;
        let mut block = sizes.block(NormKind::Rms);
        block.attention_norms = BranchNorms { after: Some("post_attention_layernorm"), ..BranchNorms::default() };
        block.mlp_norms = BranchNorms { after: Some("post_feedforward_layernorm"), ..BranchNorms::default() };
        let (q, k) = ("self_attn.q_norm", "self_attn.k_norm");
        block.attention.query_key_norm = Some(QueryKeyNorm { q, k, scope: NormScope::AllHeads, norm: block.norm });
        let windows = vec![None; sizes.spec.layers];
        Ok(sizes.model(block, windows))
    }
}
