//! `qwen3`: Qwen3's dense models as a frozen decoder.
//!
//! As Qwen2, with norms of each head's queries and keys in place of biases, and heads of a width of their own.
//! Source followed: transformers' `modeling_qwen3.py` and `configuration_qwen3.py`.

use anyhow::Result;
use limber_core::decoder_block::QueryKeyNorm;
use limber_core::decoder_family::{LayerType, windows};
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, NormKind};
use limber_core::{DecoderFamily, FamilyDecoder, ModelConfig, llama_like_settings, register};

register!(decoder, FamilyDecoder<Qwen3>);

llama_like_settings! {
    activation: hidden_act,
    defaults: {
        head_dim: 128,
        hidden_act: Activation::Silu,
    },
    own: {
        /// Whether layers see a window of the last keys.
        use_sliding_window: bool = Some(false),
        /// Keys in the window, a position's own included.
        sliding_window: usize = Some(4096),
        /// Layers from the first on that see all keys, where no layer_types say which do.
        max_window_layers: usize = Some(28),
        /// What each layer sees.
        layer_types: Vec<LayerType> = None,
    },
}

/// The family.
pub struct Qwen3;

impl DecoderFamily for Qwen3 {
    type Config = Config;
    const KIND: &'static str = "qwen3";
    const ABOUT: &'static str = "Qwen3 (dense) from a Hugging Face folder";
    const MODEL_TYPES: &'static [&'static str] = &["qwen3"];

    fn tiny() -> Config {
        Config {
            head_dim: Some(6),
            eos_token_id: Some(TokenIds(vec![96])),
            // The second layer sees four keys, fewer than the suite's sequences have.
            use_sliding_window: Some(true),
            sliding_window: Some(4),
            max_window_layers: Some(1),
            ..Config::sized(97, 48, [32, 48, 2, 4, 2])
        }
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        let reference = Config::sized(151_936, 32_768, [4096, 22_016, 32, 32, 32]);
        let mut found = Config::read(config, "the decoder qwen3", &reference, &[])?;
        if config.is_null("sliding_window") {
            found.use_sliding_window = Some(false);
        }
        Ok(found)
    }

    fn filled(config: Config) -> Config {
        config.filled()
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let sizes = config.sizes::<Self>()?;
        let mut block = sizes.block(NormKind::Rms);
        let norm = QueryKeyNorm { q: "self_attn.q_norm", k: "self_attn.k_norm", per_head: true, norm: block.norm };
        block.attention.query_key_norm = Some(norm);
        let full = Self::need("max_window_layers", config.max_window_layers)?;
        let wanted = config.use_sliding_window == Some(true);
        let width = config.sliding_window.filter(|_| wanted);
        let types = config.layer_types.as_deref();
        let windows = windows(Self::KIND, types, width, sizes.spec.layers, |layer| wanted && layer >= full)?;
        Ok(sizes.model(block, windows))
    }
}
