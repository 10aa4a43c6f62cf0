//! `opt`: OPT (opt-125m to opt-66b and their kin) as a frozen decoder.
//!
//! Learned positions from entry 2 on, then blocks of attention and MLP, behind a layer norm each or in front of it, ReLU, a
//! head that is the word table. opt-350m's words are narrower than its blocks: prefix and words are as wide as the words,
//! and are projected to the blocks' width and back.
//! Source followed: transformers' `modeling_opt.py` and `configuration_opt.py`.

use anyhow::Result;
use limber_core::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, MatrixPlan, MlpPlan, NormPlan, ProjectionPlan,
};
use limber_core::decoder_family::FamilySettings;
use limber_core::decoder_model::{HeadPlan, ModelPlan, PositionPlan, TablePlan};
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, CausalAttention, Heads, NormKind};
use limber_core::{DecoderFamily, DecoderSpec, Init, ModelConfig, decoder_family, family_settings, keyed};

decoder_family! { Opt, Config, "opt", ["opt"], "OPT from a Hugging Face folder, or by the name of a model (opt-125m to opt-66b)" }

/// Name, width of the blocks, L, H of the published models; the MLP is four times as wide.
const MODELS: [(&str, usize, usize, usize); 8] = [
    ("opt-125m", 768, 12, 12),
    ("opt-350m", 1024, 24, 16),
    ("opt-1.3b", 2048, 24, 32),
    ("opt-2.7b", 2560, 32, 32),
    ("opt-6.7b", 4096, 32, 32),
    ("opt-13b", 5120, 40, 40),
    ("opt-30b", 7168, 48, 56),
    ("opt-66b", 9216, 64, 72),
];

family_settings! {
    /// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
    Config {
        /// A model by name, opt-125m to opt-66b, for weights without `config.json`.
        model,
        sizes: {
            /// Vocabulary size V.
            vocab_size = 50_272,
            /// Width of the blocks.
            hidden_size = 768,
            /// LM width D, that of the word embeddings and of a stitch's prefix; that of the blocks by default.
            word_embed_proj_dim,
            /// Layers L.
            num_hidden_layers = 12,
            /// Heads H.
            num_attention_heads = 12,
            /// Width of the MLP.
            ffn_dim = 3072,
            /// Context length in positions; the table has two entries more.
            max_position_embeddings = 2048,
        },
        own: {
            /// The MLP's activation.
            activation_function: Activation = Activation::Relu,
            /// Whether layer norms stand before attention and MLP, and one at the end; else after each, and none at the
            /// end.
            do_layer_norm_before: bool = true,
            /// Whether the norm at the end is left out: models that were fine-tuned before transformers 4.20.1.
            #[serde(rename = "_remove_final_layer_norm")]
            remove_final_layer_norm: bool = false,
            /// Whether attention and MLP have biases.
            enable_bias: bool = true,
            /// Whether layer norms have parameters.
            layer_norm_elementwise_affine: bool = true,
            /// Whether the head's matrix is the word embeddings'.
            tie_word_embeddings: bool = true,
            /// End-of-sequence id, or a list of them.
            eos_token_id: TokenIds = TokenIds(vec![2]),
            /// Standard deviation of random weights.
            init_std: f32 = 0.02,
        },
    }
}

impl DecoderFamily for Opt {
    const MAY_DIFFER: &'static [&'static str] = &[];

    fn tiny() -> Config {
        Config {
            vocab_size: Some(97),
            hidden_size: Some(32),
            num_hidden_layers: Some(2),
            num_attention_heads: Some(4),
            ffn_dim: Some(48),
            max_position_embeddings: Some(48),
            // The one whose gradient finite differences can follow: relu has corners.
            activation_function: Some(Activation::Gelu),
            eos_token_id: Some(TokenIds(vec![2])),
            ..Config::default()
        }
    }

    fn models() -> Vec<&'static str> {
        MODELS.map(|m| m.0).into()
    }

    fn preset(name: &str) -> Option<Config> {
        let (name, width, layers, heads) = MODELS.iter().find(|m| m.0 == name)?;
        // The one whose words are narrower than its blocks and whose norms come after.
        let odd = *name == "opt-350m";
        Some(Config {
            hidden_size: Some(*width),
            word_embed_proj_dim: Some(if odd { 512 } else { *width }),
            num_hidden_layers: Some(*layers),
            num_attention_heads: Some(*heads),
            ffn_dim: Some(4 * width),
            do_layer_norm_before: Some(!odd),
            ..Config::default()
        })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        config.settings(&[], &[])
    }

    fn filled(config: Config) -> Config {
        let config = config.filled();
        Config { word_embed_proj_dim: config.word_embed_proj_dim.or(config.hidden_size), ..config }
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let blocks = Self::spec(
            keyed!(config: vocab_size, hidden_size, num_hidden_layers, num_attention_heads, max_position_embeddings),
            &config.eos_token_id,
        )?;
        let (width, heads) = (blocks.width, blocks.kv_heads);
        let spec = DecoderSpec { width: Self::size("word_embed_proj_dim", config.word_embed_proj_dim)?, ..blocks };
        let std = Self::need("init_std", config.init_std)?;
        let init = Init::normal(std);
        let affine = Self::need("layer_norm_elementwise_affine", config.layer_norm_elementwise_affine)?;
        // PyTorch's default epsilon.
        let norm = NormPlan { kind: if affine { NormKind::Layer } else { NormKind::LayerPlain }, eps: 1e-5 };
        let norm_first = Self::need("do_layer_norm_before", config.do_layer_norm_before)?;
        let norms = if norm_first { BranchNorms::before } else { BranchNorms::sum };
        let biased = Self::need("enable_bias", config.enable_bias)?;
        let matrix = |name| MatrixPlan::new(name, init).biased(biased);
        let names = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        let attention = CausalAttention::new(Heads::new(heads, heads, spec.head_dim));
        let projections = ProjectionPlan::split(names.map(matrix));
        let attention = AttentionPlan::new(attention, projections, matrix("self_attn.out_proj"), None);
        let inner = Self::size("ffn_dim", config.ffn_dim)?;
        let activation = Self::need("activation_function", config.activation_function)?;
        let mlp = (norms("final_layer_norm"), MlpPlan::plain(inner, activation, matrix("fc1"), matrix("fc2")));
        let block = BlockPlan::new(width, norm, (norms("self_attn_layer_norm"), attention), mlp);
        let plain = |name| MatrixPlan::new(name, init);
        let removed = Self::need("_remove_final_layer_norm", config.remove_final_layer_norm)?;
        let tied = Self::need("tie_word_embeddings", config.tie_word_embeddings)?;
        Ok(ModelPlan {
            prefixes: &["model.decoder", "decoder"],
            probe: "embed_positions",
            // Random weights leave the word of `<pad>` at 0.
            words: TablePlan::new("embed_tokens", Init::NormalButRow { std, row: 1 }),
            input_scale: 1.0,
            projections: (spec.width != width).then(|| (plain("project_in"), plain("project_out"))),
            positions: Some(PositionPlan { table: TablePlan::new("embed_positions", init), offset: 2 }),
            layers: "layers",
            blocks: vec![block; spec.layers],
            final_norm: (norm_first && !removed).then_some(("final_layer_norm", norm)),
            head: HeadPlan::new(plain("lm_head"), tied),
            spec,
        })
    }
}
