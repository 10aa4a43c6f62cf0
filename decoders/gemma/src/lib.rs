//! `gemma`: Gemma 1 (2B, 7B) as a frozen decoder.
//!
//! As Llama, with RMS norms of gain 1 + weight, words times the square root of the width, heads of a width of their own and
//! a GELU in the gate. A prefix that is no word's is not scaled, as in transformers 5.
//! Source followed: transformers' `modeling_gemma.py` and `configuration_gemma.py`.

use anyhow::Result;
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, NormKind};
use limber_core::{DecoderFamily, ModelConfig, decoder_family, llama_like_settings};

decoder_family! { Gemma, Config, "gemma", ["gemma"], "Gemma 1 from a Hugging Face folder, or by the name of a model (gemma-7b by default)" }

llama_like_settings! {
    activation: hidden_act,
    // gemma-7b's.
    sized: (256_000, 8192, [3072, 24_576, 28, 16, 16]),
    defaults: {
        head_dim: 256, hidden_act: Activation::GeluNew, tie_word_embeddings: true, eos_token_id: TokenIds(vec![1]),
    },
    own: {
        /// A model by name, gemma-2b or gemma-7b, for weights without `config.json`.
        model: String = None,
    },
}

impl DecoderFamily for Gemma {
    fn tiny() -> Config {
        Config { head_dim: Some(6), ..Config::smallest() }
    }

    fn models() -> Vec<&'static str> {
        vec!["gemma-2b", "gemma-7b"]
    }

    fn preset(name: &str) -> Option<Config> {
        let sizes = match name {
            "gemma-2b" => [2048, 16_384, 18, 8, 1],
            "gemma-7b" => [3072, 24_576, 28, 16, 16],
            _ => return None,
        };
        Some(Config { head_dim: Some(256), ..Config::sized(256_000, 8192, sizes) })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        config.refuse("the decoder gemma", &["use_bidirectional_attention"])?;
        let mut found = Config::read(config, "the decoder gemma", &Config::defaults(), &[])?;
        // The first folders say "gelu" and mean the approximation.
        if found.hidden_act == Some(Activation::Gelu) {
            found.hidden_act = Some(Activation::GeluNew);
        }
        // Which of the two keys transformers reads depends on its version.
        if let (Some(name), Some(activation)) = (config.text("hidden_activation")?, found.hidden_act)
            && Activation::named(&name) != Some(activation)
        {
            let expected = format!("but hidden_act is {}, supported is the same in both", activation.name());
            return Err(config.refusal("hidden_activation", expected));
        }
        Ok(found)
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let sizes = config.sizes::<Self>()?;
        let block = sizes.block(NormKind::RmsLessOne);
        let windows = vec![None; sizes.spec.layers];
        let mut plan = sizes.model(block, windows);
        plan.words.scale = (plan.spec.width as f64).sqrt();
        Ok(plan)
    }
}
