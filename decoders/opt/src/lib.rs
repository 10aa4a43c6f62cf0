//! `opt`: OPT (opt-125m to opt-66b and their kin) as a frozen decoder.
//!
//! Learned positions from entry 2 on, then blocks of attention and MLP, behind a layer norm each or in front of it, ReLU, a
//! head that is the word table. opt-350m's words are narrower than its blocks: prefix and words are as wide as the words,
//! and are projected to the blocks' width and back.
//! Source followed: transformers' `modeling_opt.py` and `configuration_opt.py`.

use anyhow::Result;
use limber_core::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, MatrixPlan, MlpLayers, MlpPlan, NormPlan, ProjectionPlan,
};
use limber_core::decoder_family::eos;
use limber_core::decoder_model::{HeadPlan, ModelPlan, PositionPlan, TablePlan};
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, CausalAttention, Heads, NormKind};
use limber_core::{DecoderFamily, DecoderSpec, FamilyDecoder, Init, ModelConfig, register};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

register!(decoder, FamilyDecoder<Opt>);

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

/// The family.
pub struct Opt;

/// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A model by name, opt-125m to opt-66b, for weights without `config.json`.
    pub model: Option<String>,
    /// Vocabulary size V.
    pub vocab_size: Option<usize>,
    /// Width of the blocks.
    pub hidden_size: Option<usize>,
    /// LM width D, that of the word embeddings and of a stitch's prefix; that of the blocks by default.
    pub word_embed_proj_dim: Option<usize>,
    /// Layers L.
    pub num_hidden_layers: Option<usize>,
    /// Heads H.
    pub num_attention_heads: Option<usize>,
    /// Width of the MLP.
    pub ffn_dim: Option<usize>,
    /// Context length in positions; the table has two entries more.
    pub max_position_embeddings: Option<usize>,
    /// The MLP's activation.
    pub activation_function: Option<Activation>,
    /// Whether layer norms stand before attention and MLP, and one at the end; else after each, and none at the end.
    pub do_layer_norm_before: Option<bool>,
    /// Whether the norm at the end is left out: models that were fine-tuned before transformers 4.20.1.
    #[serde(rename = "_remove_final_layer_norm")]
    pub remove_final_layer_norm: Option<bool>,
    /// Whether attention and MLP have biases.
    pub enable_bias: Option<bool>,
    /// Whether layer norms have parameters.
    pub layer_norm_elementwise_affine: Option<bool>,
    /// Whether the head's matrix is the word embeddings'.
    pub tie_word_embeddings: Option<bool>,
    /// End-of-sequence id, or a list of them.
    pub eos_token_id: Option<TokenIds>,
    /// Standard deviation of random weights.
    pub init_std: Option<f32>,
}

impl DecoderFamily for Opt {
    type Config = Config;
    const KIND: &'static str = "opt";
    const ABOUT: &'static str = "OPT from a Hugging Face folder, or by the name of a model (opt-125m to opt-66b)";
    const MODEL_TYPES: &'static [&'static str] = &["opt"];
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
        config.refuse("the decoder opt", &["scale_embeddings"])?;
        config.expect("learned_embeddings", &[json!(true)])?;
        config.expect("is_causal", &[json!(true)])?;
        config.settings(&[], &[])
    }

    fn filled(config: Config) -> Config {
        let width = config.hidden_size.unwrap_or(768);
        Config {
            model: None,
            vocab_size: config.vocab_size.or(Some(50_272)),
            hidden_size: Some(width),
            word_embed_proj_dim: config.word_embed_proj_dim.or(Some(width)),
            num_hidden_layers: config.num_hidden_layers.or(Some(12)),
            num_attention_heads: config.num_attention_heads.or(Some(12)),
            ffn_dim: config.ffn_dim.or(Some(3072)),
            max_position_embeddings: config.max_position_embeddings.or(Some(2048)),
            activation_function: config.activation_function.or(Some(Activation::Relu)),
            do_layer_norm_before: config.do_layer_norm_before.or(Some(true)),
            remove_final_layer_norm: config.remove_final_layer_norm.or(Some(false)),
            enable_bias: config.enable_bias.or(Some(true)),
            layer_norm_elementwise_affine: config.layer_norm_elementwise_affine.or(Some(true)),
            tie_word_embeddings: config.tie_word_embeddings.or(Some(true)),
            eos_token_id: config.eos_token_id.or(Some(TokenIds(vec![2]))),
            init_std: config.init_std.or(Some(0.02)),
        }
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let width = Self::size("hidden_size", config.hidden_size)?;
        let heads = Self::size("num_attention_heads", config.num_attention_heads)?;
        let spec = DecoderSpec {
            width: Self::size("word_embed_proj_dim", config.word_embed_proj_dim)?,
            vocab: Self::size("vocab_size", config.vocab_size)?,
            layers: Self::size("num_hidden_layers", config.num_hidden_layers)?,
            kv_heads: heads,
            head_dim: Self::head_width(("hidden_size", width), ("num_attention_heads", heads))?,
            context: Self::size("max_position_embeddings", config.max_position_embeddings)?,
            eos: eos(&config.eos_token_id),
        };
        let std = Self::need("init_std", config.init_std)?;
        let init = Init::normal(std);
        let affine = Self::need("layer_norm_elementwise_affine", config.layer_norm_elementwise_affine)?;
        // PyTorch's default epsilon.
        let norm = NormPlan { kind: if affine { NormKind::Layer } else { NormKind::LayerPlain }, eps: 1e-5 };
        let norm_first = Self::need("do_layer_norm_before", config.do_layer_norm_before)?;
        let norms = if norm_first { BranchNorms::before } else { BranchNorms::sum };
        let biased = Self::need("enable_bias", config.enable_bias)?;
        let matrix = |name| MatrixPlan::new(name, init).biased(biased);
        let block = BlockPlan {
            width,
            norm,
            attention_norms: norms("self_attn_layer_norm"),
            attention: AttentionPlan {
                attention: CausalAttention::new(Heads::new(heads, heads, spec.head_dim)),
                projections: ProjectionPlan::Split {
                    q: matrix("self_attn.q_proj"),
                    k: matrix("self_attn.k_proj"),
                    v: matrix("self_attn.v_proj"),
                },
                out: matrix("self_attn.out_proj"),
                clip: None,
                query_key_norm: None,
                rotary: None,
            },
            mlp_norms: norms("final_layer_norm"),
            mlp: MlpPlan {
                inner: Self::size("ffn_dim", config.ffn_dim)?,
                activation: Self::need("activation_function", config.activation_function)?,
                layers: MlpLayers::Plain { up: matrix("fc1") },
                down: matrix("fc2"),
            },
            parallel: false,
            residual_scale: None,
        };
        let plain = |name| MatrixPlan::new(name, init);
        let removed = Self::need("_remove_final_layer_norm", config.remove_final_layer_norm)?;
        let tied = Self::need("tie_word_embeddings", config.tie_word_embeddings)?;
        Ok(ModelPlan {
            prefixes: &["model.decoder", "decoder"],
            probe: "embed_positions.weight",
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
