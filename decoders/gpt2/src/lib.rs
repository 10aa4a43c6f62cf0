//! `gpt2`: GPT-2 (gpt2 to gpt2-xl, distilgpt2 and their kin) as a frozen decoder.
//!
//! Learned positions, then blocks of attention and MLP, each behind its own layer norm, `gelu_new`, a head that is the word
//! table. Matrices are stored as `x W` (`Conv1D`) and transposed once at load, in their own type.
//! Source followed: transformers' `modeling_gpt2.py` and `configuration_gpt2.py`.

use anyhow::Result;
use limber_core::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, FusedLayout, MatrixPlan, MlpPlan, NormPlan, ProjectionPlan,
};
use limber_core::decoder_model::{HeadPlan, ModelPlan, PositionPlan, TablePlan};
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, CausalAttention, Heads, NormKind};
use limber_core::{DecoderFamily, Init, ModelConfig, decoder_family, family_settings, keyed};

decoder_family! { Gpt2, Config, "gpt2", ["gpt2"], "GPT-2 from a Hugging Face folder (gpt2 by default)" }

/// Name, D, L, H of the published models; all have 50,257 words and 1024 positions.
const MODELS: [(&str, usize, usize, usize); 5] = [
    ("gpt2", 768, 12, 12),
    ("gpt2-medium", 1024, 24, 16),
    ("gpt2-large", 1280, 36, 20),
    ("gpt2-xl", 1600, 48, 25),
    ("distilgpt2", 768, 6, 12),
];

/// Names that `GPT2Config` takes as well: (other, own).
const OTHER_NAMES: [(&str, &str); 4] = [
    ("hidden_size", "n_embd"),
    ("max_position_embeddings", "n_positions"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
];

family_settings! {
    /// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
    Config {
        /// A model by name, for weights without `config.json`: gpt2, gpt2-medium, gpt2-large, gpt2-xl or distilgpt2.
        model,
        sizes: {
            /// Vocabulary size V.
            vocab_size = 50_257,
            /// Context length in positions.
            n_positions = 1024,
            /// LM width D.
            n_embd = 768,
            /// Layers L.
            n_layer = 12,
            /// Heads H.
            n_head = 12,
            /// Width of the MLP; 4 D by default.
            n_inner,
        },
        own: {
            /// The MLP's activation.
            activation_function: Activation = Activation::GeluNew,
            /// Epsilon of the layer norms.
            layer_norm_epsilon: f64 = 1e-5,
            /// Whether scores are divided by the square root of a head's width.
            scale_attn_weights: bool = true,
            /// Whether the scores of layer i, counted from 0, are divided by i + 1 as well.
            scale_attn_by_inverse_layer_idx: bool = false,
            /// Whether the head's matrix is the word embeddings'.
            tie_word_embeddings: bool = true,
            /// End-of-sequence id, or a list of them.
            eos_token_id: TokenIds = TokenIds(vec![50_256]),
            /// Standard deviation of random weights; those that write to the residual stream have it over sqrt(2 L).
            initializer_range: f32 = 0.02,
        },
    }
}

impl DecoderFamily for Gpt2 {
    const MAY_DIFFER: &'static [&'static str] = &[];

    fn tiny() -> Config {
        Config { eos_token_id: Some(TokenIds(vec![96])), ..Config::sized(&[97, 48, 32, 2, 4]) }
    }

    fn models() -> Vec<&'static str> {
        MODELS.map(|m| m.0).into()
    }

    fn preset(name: &str) -> Option<Config> {
        let (_, width, layers, heads) = MODELS.iter().find(|m| m.0 == name)?;
        Some(Config { n_embd: Some(*width), n_layer: Some(*layers), n_head: Some(*heads), ..Config::default() })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        config.refuse("the decoder gpt2", &["add_cross_attention", "pruned_heads"])?;
        // `reorder_and_upcast_attn` is about half precision: scores are f32 here in any case.
        config.settings(&OTHER_NAMES, &[])
    }

    fn derived(config: Config) -> Config {
        Config { n_inner: config.n_inner.or_else(|| config.n_embd?.checked_mul(4)), ..config }
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let spec = Self::spec(keyed!(config: vocab_size, n_embd, n_layer, n_head, n_positions), &config.eos_token_id)?;
        let (width, heads) = (spec.width, spec.kv_heads);
        let std = Self::need("initializer_range", config.initializer_range)?;
        let (init, residual) = (Init::normal(std), Init::normal(std / (2.0 * spec.layers as f32).sqrt()));
        let norm =
            NormPlan { kind: NormKind::Layer, eps: Self::need("layer_norm_epsilon", config.layer_norm_epsilon)? };
        let matrix = |name, init| MatrixPlan::new(name, init).biased(true).transposed();
        let scaled = Self::need("scale_attn_weights", config.scale_attn_weights)?;
        let by_layer = Self::need("scale_attn_by_inverse_layer_idx", config.scale_attn_by_inverse_layer_idx)?;
        let inner = Self::size("n_inner", config.n_inner)?;
        let activation = Self::need("activation_function", config.activation_function)?;
        let block = |layer: usize| {
            let plain = Heads::new(heads, heads, spec.head_dim);
            let scale = if scaled { plain.scale } else { 1.0 };
            let scale = if by_layer { scale / (layer + 1) as f64 } else { scale };
            let qkv = matrix("attn.c_attn", init);
            let projections = ProjectionPlan::Fused { qkv, layout: FusedLayout::Concatenated };
            let attention = CausalAttention::new(Heads { scale, ..plain });
            let attention = AttentionPlan::new(attention, projections, matrix("attn.c_proj", residual), None);
            let mlp = MlpPlan::plain(inner, activation, matrix("mlp.c_fc", init), matrix("mlp.c_proj", residual));
            let mlp = (BranchNorms::before("ln_2"), mlp);
            BlockPlan::new(width, norm, (BranchNorms::before("ln_1"), attention), mlp)
        };
        let tied = Self::need("tie_word_embeddings", config.tie_word_embeddings)?;
        let (words, table) = (TablePlan::new("wte", init), TablePlan::new("wpe", init));
        let head = HeadPlan::new(MatrixPlan::new("lm_head", init), tied);
        let blocks = ("h", (0..spec.layers).map(block).collect());
        let plan = ModelPlan::new(spec, &["transformer", ""], words, blocks, Some(("ln_f", norm)), head);
        // The positions tell the prefix: a checkpoint may hold the word table under the head's name alone.
        Ok(ModelPlan { probe: table.name, positions: Some(PositionPlan { table, offset: 0 }), ..plan })
    }
}
