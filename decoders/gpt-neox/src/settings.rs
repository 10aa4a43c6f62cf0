//! Settings of `gpt-neox`: Hugging Face's own names, the published models, the defaults of `GPTNeoXConfig`.

use anyhow::Result;
use limber_core::model_config::TokenIds;
use limber_core::ops::Activation;
use limber_core::rope::{Rope, RopeScaling};
use limber_core::settings::over;
use limber_core::{ModelConfig, family_settings};

family_settings! {
    /// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
    Config {
        /// A model by name, such as pythia-410m or gpt-neox-20b, for weights without `config.json`.
        model,
        sizes: {
            /// Vocabulary size V.
            vocab_size,
            /// LM width D.
            hidden_size,
            /// Width of the MLP.
            intermediate_size,
            /// Layers L.
            num_hidden_layers,
            /// Heads H.
            num_attention_heads,
            /// Context length in positions.
            max_position_embeddings,
        },
        own: {
            /// The MLP's activation.
            hidden_act: Activation = Activation::Gelu,
            /// Epsilon of the layer norms.
            layer_norm_eps: f64 = 1e-5,
            /// Component of each head that the rotary embedding rotates.
            rotary_pct: f64 = 0.25,
            /// Base of the rotary frequencies.
            rotary_emb_base: f64 = 10_000.0,
            /// Scaling of the rotary frequencies.
            rope_scaling: RopeScaling,
            /// Whether attention and MLP stand side by side.
            use_parallel_residual: bool = true,
            /// Whether the attention's matrices have biases.
            attention_bias: bool = true,
            /// Whether the head's matrix is the word embeddings'.
            tie_word_embeddings: bool = false,
            /// End-of-sequence id, or a list of them.
            eos_token_id: TokenIds = TokenIds(vec![]),
            /// Standard deviation of random weights.
            initializer_range: f32 = 0.02,
        },
    }
}

/// Name, V, D, L, H, positions of the Pythia suite (Biderman et al., arXiv 2304.01373) and GPT-NeoX-20B.
pub(super) const MODELS: [(&str, usize, usize, usize, usize, usize); 11] = [
    ("pythia-14m", 50_304, 128, 6, 4, 512),
    ("pythia-31m", 50_304, 256, 6, 8, 1024),
    ("pythia-70m", 50_304, 512, 6, 8, 2048),
    ("pythia-160m", 50_304, 768, 12, 12, 2048),
    ("pythia-410m", 50_304, 1024, 24, 16, 2048),
    ("pythia-1b", 50_304, 2048, 16, 8, 2048),
    ("pythia-1.4b", 50_304, 2048, 24, 16, 2048),
    ("pythia-2.8b", 50_304, 2560, 32, 32, 2048),
    ("pythia-6.9b", 50_432, 4096, 32, 32, 2048),
    ("pythia-12b", 50_688, 5120, 36, 40, 2048),
    ("gpt-neox-20b", 50_432, 6144, 44, 64, 2048),
];

impl Config {
    /// A model of these sizes: V, D, L, H, positions, and the id that ends a text.
    pub(super) fn published(
        vocab: usize,
        width: usize,
        layers: usize,
        heads: usize,
        positions: usize,
        eos: u32,
    ) -> Self {
        let sizes = [vocab, width, 4 * width, layers, heads, positions];
        Self { eos_token_id: Some(TokenIds(vec![eos])), ..Self::sized(&sizes) }
    }
}

/// The settings of a published model.
pub(super) fn preset(name: &str) -> Option<Config> {
    let (_, vocab, width, layers, heads, positions) = *MODELS.iter().find(|m| m.0 == name)?;
    // The large one was trained with the approximation.
    let hidden_act = if name == "gpt-neox-20b" { Activation::GeluNew } else { Activation::Gelu };
    Some(Config { hidden_act: Some(hidden_act), ..Config::published(vocab, width, layers, heads, positions, 0) })
}

/// What `config.json` says, over the sizes of `GPTNeoXConfig`.
pub(super) fn described(config: &ModelConfig) -> Result<Config> {
    let component = "the decoder gpt-neox";
    let found: Config = config.settings(&[], &["rope_scaling"])?;
    let sizes = Config::published(50_432, 6144, 44, 64, 2048, 2);
    let rope =
        Rope::read(component, config, found.max_position_embeddings.or(sizes.max_position_embeddings).unwrap_or(0))?;
    // Both keys say the same where a file has both; which of two values transformers would take depends on its version.
    let same = |old: &str, new: &str, value: Option<f64>, other: Option<f64>| match (value, other) {
        (Some(value), Some(other)) if value != other => {
            Err(config.refusal(old, format!("but {new} is {other}, supported is the same number in both")))
        }
        (value, other) => Ok(value.or(other)),
    };
    let found = Config {
        rotary_pct: same("rotary_pct", "partial_rotary_factor", found.rotary_pct, rope.fraction)?,
        rotary_emb_base: same("rotary_emb_base", "rope_theta", found.rotary_emb_base, rope.theta)?,
        rope_scaling: rope.scaling,
        ..found
    };
    over(&found, &sizes)
}
