//! `llama`: Llama 1 to 3.2, TinyLlama, Mistral, Qwen2 and Qwen2.5 as a frozen decoder.
//!
//! Attention, then gated MLP, each behind an RMS norm; rotary embedding in halves over the whole head, with the scalings of
//! longer contexts; grouped queries, sliding windows.
//! Sources followed: transformers' `modeling_llama.py`, `modeling_mistral.py`, `modeling_qwen2.py`.

use anyhow::Result;
use limber_core::decoder_block::MlpLayers;
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::NormKind;
use limber_core::{DecoderFamily, ModelConfig, decoder_family};

mod described;
mod presets;
mod settings;

pub use settings::{Config, Family};

decoder_family! { Llama, Config, "llama", Family::NAMES, "Llama, Mistral and Qwen2, from a Hugging Face folder or by the name of a model" }

impl DecoderFamily for Llama {
    // Fine-tuned models may end texts otherwise, and take longer ones.
    const MAY_DIFFER: &'static [&'static str] = &["eos_token_id", "max_position_embeddings"];

    fn tiny() -> Config {
        Config {
            model_type: Some(Family::Qwen2),
            // Not hidden_size / num_attention_heads, as in Mistral-Nemo.
            head_dim: Some(6),
            // The second layer sees four keys, fewer than the suite's sequences have.
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
        presets::preset(name).map(Config::complete)
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
        config.complete()
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let sizes = config.sizes::<Self>()?;
        config.check_biases()?;
        let mut block = sizes.block(NormKind::Rms);
        // Qwen2's biases are those of queries, keys and values alone.
        block.attention.out.biased &= config.model_type == Some(Family::Llama);
        let biased = Self::need("mlp_bias", config.mlp_bias)?;
        if let MlpLayers::Gated { gate, up } = &mut block.mlp.layers {
            (gate.biased, up.biased, block.mlp.down.biased) = (biased, biased, biased);
        }
        let windows = config.windows(sizes.spec.layers)?;
        Ok(sizes.model(block, windows))
    }
}
