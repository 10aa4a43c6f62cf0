//! `qwen3`: Qwen3's dense models as a frozen decoder.
//!
//! As Qwen2, with norms of each head's queries and keys in place of biases, and heads of a width of their own.
//! Source followed: transformers' `modeling_qwen3.py` and `configuration_qwen3.py`.

use anyhow::Result;
use limber_core::decoder_block::{NormScope, QueryKeyNorm};
use limber_core::decoder_family::{LayerType, windows};
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, NormKind};
use limber_core::{DecoderFamily, FamilyNames, ModelConfig, decoder_family, llama_like_settings};

decoder_family! { Qwen3, Config, "qwen3", ["qwen3"], "Qwen3 (dense) from a Hugging Face folder, or by the name of a model" }

/// Name, D, width of the MLP, L, query heads of the published models, and whether their head is the word table.
const MODELS: [(&str, usize, usize, usize, usize, bool); 6] = [
    ("qwen3-0.6b", 1024, 3072, 28, 16, true),
    ("qwen3-1.7b", 2048, 6144, 28, 16, true),
    ("qwen3-4b", 2560, 9728, 36, 32, true),
    ("qwen3-8b", 4096, 12_288, 36, 32, false),
    ("qwen3-14b", 5120, 17_408, 40, 40, false),
    ("qwen3-32b", 5120, 25_600, 64, 64, false),
];

llama_like_settings! {
    activation: hidden_act,
    defaults: { head_dim: 128, hidden_act: Activation::Silu },
    own: {
        /// A model by name, qwen3-0.6b to qwen3-32b, for weights without `config.json`.
        model: String = None,
        /// Whether layers see a window of the last keys.
        use_sliding_window: bool = Some(false),
        /// Keys in the window, a position's own included.
        #[schemars(range(min = 1))]
        sliding_window: usize = Some(4096),
        /// Layers from the first on that see all keys, where no layer_types say which do.
        max_window_layers: usize = Some(28),
        /// What each layer sees.
        layer_types: Vec<LayerType> = None,
    },
}

impl DecoderFamily for Qwen3 {
    // Fine-tuned models may end texts otherwise, and take longer ones.
    const MAY_DIFFER: &'static [&'static str] = &["eos_token_id", "max_position_embeddings"];

    fn tiny() -> Config {
        Config {
            head_dim: Some(6),
            // The second layer sees four keys, fewer than the suite's sequences have.
            use_sliding_window: Some(true),
            sliding_window: Some(4),
            max_window_layers: Some(1),
            ..Config::smallest()
        }
    }

    fn models() -> Vec<&'static str> {
        MODELS.map(|m| m.0).into()
    }

    fn preset(name: &str) -> Option<Config> {
        let (_, width, inner, layers, queries, tied) = *MODELS.iter().find(|m| m.0 == name)?;
        Some(Config {
            head_dim: Some(128),
            rope_theta: Some(1e6),
            tie_word_embeddings: Some(tied),
            eos_token_id: Some(TokenIds(vec![151_645])),
            ..Config::sized(151_936, 40_960, [width, inner, layers, queries, 8])
        })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        let reference = Config::sized(151_936, 32_768, [4096, 22_016, 32, 32, 32]);
        let mut found = Config::read(config, "the decoder qwen3", &reference, &[])?;
        if config.is_null("sliding_window") {
            found.use_sliding_window = Some(false);
        }
        Ok(found)
    }

    fn own(mut config: Config) -> Config {
        // Who sets a window wants it, in every layer by default.
        if config.sliding_window.is_some() {
            config.use_sliding_window.get_or_insert(true);
            if config.layer_types.is_none() {
                config.max_window_layers.get_or_insert(0);
            }
        }
        config
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let sizes = config.sizes::<Self>()?;
        let mut block = sizes.block(NormKind::Rms);
        let norm =
            QueryKeyNorm { q: "self_attn.q_norm", k: "self_attn.k_norm", scope: NormScope::Head, norm: block.norm };
        block.attention.query_key_norm = Some(norm);
        let full = Self::need("max_window_layers", config.max_window_layers)?;
        let wanted = config.use_sliding_window == Some(true);
        let width = config.sliding_window.filter(|_| wanted);
        let types = config.layer_types.as_deref();
        let windows = windows(Self::KIND, types, width, sizes.spec.layers, |layer| wanted && layer >= full)?;
        Ok(sizes.model(block, windows))
    }
}
