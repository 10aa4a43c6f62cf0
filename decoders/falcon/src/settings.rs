//! Settings of `falcon`: Hugging Face's own names, and the published models.

use limber_core::family_settings;
use limber_core::model_config::TokenIds;
use limber_core::ops::Activation;
use limber_core::rope::RopeScaling;

family_settings! {
    /// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
    Config {
        /// A model by name, falcon-rw-1b, falcon-7b, falcon-40b or falcon-180b, for weights without
        /// `config.json`.
        model,
        sizes: {
            /// Vocabulary size V.
            vocab_size = 65_024,
            /// Context length in positions.
            max_position_embeddings = 2048,
            /// LM width D.
            hidden_size = 4544,
            /// Layers L.
            num_hidden_layers = 32,
            /// Query heads.
            num_attention_heads = 71,
            /// Key and value heads of the new architecture; as many as query heads by default.
            num_kv_heads,
            /// Width of the MLP; 4 D by default.
            ffn_hidden_size,
            /// Norms of the new architecture's blocks: 2 by default, or 1 for attention and MLP together.
            num_ln_in_parallel_attn,
        },
        own: {
            /// Whether key heads are shared among groups of query heads, as many as `num_kv_heads` says.
            new_decoder_architecture: bool = false,
            /// Whether there is one key head, in the older architecture.
            multi_query: bool = true,
            /// Whether attention and MLP stand side by side.
            parallel_attn: bool = true,
            /// Whether scores have a bias that is linear in the position of the key, in place of a rotary embedding.
            alibi: bool = false,
            /// Whether the matrices of attention and MLP have biases.
            bias: bool = false,
            /// The MLP's activation.
            activation: Activation = Activation::Gelu,
            /// Epsilon of the layer norms.
            layer_norm_epsilon: f64 = 1e-5,
            /// Base of the rotary frequencies.
            rope_theta: f64 = 10_000.0,
            /// Scaling of the rotary frequencies.
            rope_scaling: RopeScaling,
            /// Whether the head's matrix is the word embeddings'.
            tie_word_embeddings: bool = true,
            /// End-of-sequence id, or a list of them.
            eos_token_id: TokenIds = TokenIds(vec![11]),
            /// Standard deviation of random weights.
            initializer_range: f32 = 0.02,
        },
    }
}

/// The names of the published models.
pub(super) const MODELS: [&str; 4] = ["falcon-rw-1b", "falcon-7b", "falcon-40b", "falcon-180b"];

/// The settings of a published model.
pub(super) fn preset(name: &str) -> Option<Config> {
    let grouped = |sizes: [usize; 5]| Config {
        new_decoder_architecture: Some(true),
        num_kv_heads: Some(8),
        ..Config::sized(&sizes)
    };
    Some(match name {
        "falcon-rw-1b" => Config {
            alibi: Some(true),
            multi_query: Some(false),
            parallel_attn: Some(false),
            bias: Some(true),
            eos_token_id: Some(TokenIds(vec![2])),
            ..Config::sized(&[50_304, 2048, 2048, 24, 32])
        },
        "falcon-7b" => Config::sized(&[65_024, 2048, 4544, 32, 71]),
        "falcon-40b" => grouped([65_024, 2048, 8192, 60, 128]),
        "falcon-180b" => grouped([65_024, 2048, 14_848, 80, 232]),
        _ => return None,
    })
}
