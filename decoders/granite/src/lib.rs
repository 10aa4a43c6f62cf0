//! `granite`: IBM's dense Granite 3 as a frozen decoder.
//!
//! As Llama, with four factors: of what goes into the first block (a prefix too), of the scores, of what each branch adds, and
//! a divisor of the logits.
//! Source followed: transformers' `modeling_granite.py` and `configuration_granite.py`.

use anyhow::Result;
use limber_core::decoder_block::MlpLayers;
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, NormKind};
use limber_core::{DecoderFamily, ModelConfig, decoder_family, llama_like_settings};

decoder_family! { Granite, Config, "granite", ["granite"], "Granite 3 (dense) from a Hugging Face folder" }

llama_like_settings! {
    activation: hidden_act,
    defaults: { hidden_act: Activation::Silu },
    own: {
        /// Whether the MLP's matrices have biases.
        mlp_bias: bool = Some(false),
        /// What embeddings of any origin are multiplied with.
        embedding_multiplier: f64 = Some(1.0),
        /// What the scores are multiplied with.
        attention_multiplier: f64 = Some(1.0),
        /// What attention and MLP are multiplied with before they are added.
        residual_multiplier: f64 = Some(1.0),
        /// What the logits are divided by.
        logits_scaling: f64 = Some(1.0),
    },
}

impl DecoderFamily for Granite {
    fn tiny() -> Config {
        Config {
            embedding_multiplier: Some(3.0),
            attention_multiplier: Some(0.25),
            residual_multiplier: Some(0.6),
            logits_scaling: Some(2.0),
            ..Config::smallest()
        }
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        let reference = Config {
            num_key_value_heads: None,
            eos_token_id: Some(TokenIds(vec![2])),
            ..Config::sized(32_000, 2048, [4096, 11_008, 32, 32, 32])
        };
        Config::read(config, "the decoder granite", &reference, &[])
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let sizes = config.sizes::<Self>()?;
        let mut block = sizes.block(NormKind::Rms);
        let biased = Self::need("mlp_bias", config.mlp_bias)?;
        if let MlpLayers::Gated { gate, up } = &mut block.mlp.layers {
            (gate.biased, up.biased, block.mlp.down.biased) = (biased, biased, biased);
        }
        block.attention.attention.heads.scale = Self::positive("attention_multiplier", config.attention_multiplier)?;
        let residual = Self::positive("residual_multiplier", config.residual_multiplier)?;
        block.residual_scale = Some(residual).filter(|scale| *scale != 1.0);
        let windows = vec![None; sizes.spec.layers];
        let mut plan = sizes.model(block, windows);
        plan.input_scale = Self::positive("embedding_multiplier", config.embedding_multiplier)?;
        plan.head.scale = Self::positive("logits_scaling", config.logits_scaling)?.recip();
        Ok(plan)
    }
}
