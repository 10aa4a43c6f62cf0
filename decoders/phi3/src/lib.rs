//! `phi3`: Phi-3, Phi-3.5 (dense) and Phi-4 as a frozen decoder.
//!
//! As Llama, with queries, keys and values in one matrix, gate and up in another, a window where there is one, and
//! frequencies for longer texts from lists (longrope).
//! Source followed: transformers' `modeling_phi3.py` and `configuration_phi3.py`.

use anyhow::Result;
use limber_core::decoder_block::{FusedLayout, MlpLayers, ProjectionPlan};
use limber_core::decoder_family::{LlamaLike, windows};
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, NormKind};
use limber_core::rope::{Rope, RopeScaling};
use limber_core::{DecoderFamily, FamilyNames, ModelConfig, decoder_family, llama_like_settings};
use serde_json::json;

decoder_family! { Phi3, Config, "phi3", ["phi3"], "Phi-3 and Phi-4 from a Hugging Face folder, or by the name of a model" }

llama_like_settings! {
    activation: hidden_act,
    defaults: { hidden_act: Activation::Silu, rms_norm_eps: 1e-5 },
    own: {
        /// A model by name, phi-3-mini-4k, phi-3-medium-4k or phi-4, for weights without `config.json`.
        model: String = None,
        /// The part of each head that the rotary embedding rotates.
        partial_rotary_factor: f64 = Some(1.0),
        /// Keys in the window, a position's own included; none by default.
        #[schemars(range(min = 1))]
        sliding_window: usize = None,
    },
}

impl DecoderFamily for Phi3 {
    fn tiny() -> Config {
        Config {
            partial_rotary_factor: Some(0.5),
            // Fewer keys than the suite's sequences have.
            sliding_window: Some(4),
            ..Config::smallest()
        }
    }

    fn models() -> Vec<&'static str> {
        vec!["phi-3-mini-4k", "phi-3-medium-4k", "phi-4"]
    }

    fn preset(name: &str) -> Option<Config> {
        let three = |sizes| Config {
            sliding_window: Some(2047),
            eos_token_id: Some(TokenIds(vec![32_000])),
            ..Config::sized(32_064, 4096, sizes)
        };
        Some(match name {
            "phi-3-mini-4k" => three([3072, 8192, 32, 32, 32]),
            "phi-3-medium-4k" => three([5120, 17_920, 40, 40, 10]),
            "phi-4" => Config {
                rope_theta: Some(250_000.0),
                eos_token_id: Some(TokenIds(vec![100_257, 100_265])),
                ..Config::sized(100_352, 16_384, [5120, 17_920, 40, 40, 10])
            },
            _ => return None,
        })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        config.expect("attention_bias", &[json!(false)])?;
        let reference = Config {
            num_key_value_heads: None,
            eos_token_id: Some(TokenIds(vec![32_000])),
            ..Config::sized(32_064, 4096, [3072, 8192, 32, 32, 32])
        };
        let found = Config::read_but_rope(config, &reference, &[])?;
        let rope = Rope::read("the decoder phi3", config, found.max_position_embeddings.unwrap_or(0))?;
        let trained = "original_max_position_embeddings";
        match rope.scaling {
            // transformers reads it as a longrope without lists.
            Some(RopeScaling::Yarn { .. }) => return Err(config.refusal("rope_scaling", "supported is no yarn")),
            Some(RopeScaling::Longrope { .. }) if config.value(trained).is_none() => {
                return Err(config.refusal(trained, "expected the positions that the model was trained with"));
            }
            _ => {}
        }
        Ok(Config { rope_theta: rope.theta, rope_scaling: rope.scaling, partial_rotary_factor: rope.fraction, ..found })
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let sizes = LlamaLike { partial_rotary_factor: config.partial_rotary_factor, ..config.shared() };
        let sizes = sizes.sizes::<Self>()?;
        let mut block = sizes.block(NormKind::Rms);
        let qkv = sizes.matrix("self_attn.qkv_proj").biased(sizes.biased);
        block.attention.projections = ProjectionPlan::Fused { qkv, layout: FusedLayout::Concatenated };
        block.mlp.layers = MlpLayers::GatedFused { gate_up: sizes.matrix("mlp.gate_up_proj") };
        let width = config.sliding_window;
        let windows = windows(Self::KIND, None, width, sizes.spec.layers, |_| width.is_some())?;
        Ok(sizes.model(block, windows))
    }
}
