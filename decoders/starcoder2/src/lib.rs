//! `starcoder2`: StarCoder2 (3B, 7B, 15B) as a frozen decoder.
//!
//! Attention with rotary embedding and grouped queries, then a plain MLP, each behind a layer norm; biases everywhere, one
//! window for all layers.
//! Source followed: transformers' `modeling_starcoder2.py` and `configuration_starcoder2.py`.

use anyhow::Result;
use limber_core::decoder_block::MlpLayers;
use limber_core::decoder_family::windows;
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, NormKind};
use limber_core::{DecoderFamily, FamilyNames, ModelConfig, decoder_family, llama_like_settings};

decoder_family! { StarCoder2, Config, "starcoder2", ["starcoder2"], "StarCoder2 from a Hugging Face folder, or by the name of a model" }

/// Name, D, L, query heads, key and value heads, base of the rotary frequencies of the published models, and whether their
/// head is the word table; the MLP is four times as wide.
const MODELS: [(&str, usize, usize, usize, usize, f64, bool); 3] = [
    ("starcoder2-3b", 3072, 30, 24, 2, 999_999.442_035_881_3, true),
    ("starcoder2-7b", 4608, 32, 36, 4, 1e6, true),
    ("starcoder2-15b", 6144, 40, 48, 4, 1e5, false),
];

llama_like_settings! {
    activation: hidden_act,
    epsilon: norm_epsilon,
    /// Whether the matrices of attention and MLP have biases.
    bias: use_bias,
    defaults: {
        hidden_act: Activation::GeluNew, norm_epsilon: 1e-5, use_bias: true, tie_word_embeddings: true,
        eos_token_id: TokenIds(vec![50_256]), initializer_range: 0.018_042,
    },
    own: {
        /// A model by name, starcoder2-3b, starcoder2-7b or starcoder2-15b, for weights without `config.json`.
        model: String = None,
        /// Keys in the window, a position's own included; none by default.
        #[schemars(range(min = 1))]
        sliding_window: usize = None,
    },
}

impl DecoderFamily for StarCoder2 {
    // Fine-tuned models may end texts otherwise.
    const MAY_DIFFER: &'static [&'static str] = &["eos_token_id", "initializer_range"];

    fn tiny() -> Config {
        Config {
            // Fewer keys than the suite's sequences have.
            sliding_window: Some(4),
            ..Config::smallest()
        }
    }

    fn models() -> Vec<&'static str> {
        MODELS.map(|m| m.0).into()
    }

    fn preset(name: &str) -> Option<Config> {
        let (_, width, layers, queries, keys, theta, tied) = *MODELS.iter().find(|m| m.0 == name)?;
        Some(Config {
            rope_theta: Some(theta),
            sliding_window: Some(4096),
            tie_word_embeddings: Some(tied),
            eos_token_id: Some(TokenIds(vec![0])),
            ..Config::sized(49_152, 16_384, [width, 4 * width, layers, queries, keys])
        })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        let reference = Config::sized(49_152, 4096, [3072, 12_288, 30, 24, 2]);
        Config::read(config, "the decoder starcoder2", &reference, &[])
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let sizes = config.sizes::<Self>()?;
        let mut block = sizes.block(NormKind::Layer);
        let matrix = |name| sizes.matrix(name).biased(sizes.biased);
        block.mlp.layers = MlpLayers::Plain { up: matrix("mlp.c_fc") };
        block.mlp.down = matrix("mlp.c_proj");
        let width = config.sliding_window;
        let windows = windows(Self::KIND, None, width, sizes.spec.layers, |_| width.is_some())?;
        Ok(sizes.model(block, windows))
    }
}
