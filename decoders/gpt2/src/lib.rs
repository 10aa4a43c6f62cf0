//! `gpt2`: GPT-2 (gpt2 to gpt2-xl, distilgpt2 and their kin) as a frozen decoder.
//!
//! Learned positions, then blocks of attention and MLP, each behind its own layer norm, `gelu_new`, a head that is the word
//! table. Matrices are stored as `x W` (`Conv1D`) and transposed once at load, in their own type.
//! Source followed: transformers' `modeling_gpt2.py` and `configuration_gpt2.py`.

use anyhow::Result;
use limber_core::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, FusedLayout, MatrixPlan, MlpLayers, MlpPlan, NormPlan, ProjectionPlan,
};
use limber_core::decoder_family::eos;
use limber_core::decoder_model::{HeadPlan, ModelPlan, PositionPlan, TablePlan};
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, CausalAttention, Heads, NormKind};
use limber_core::{DecoderFamily, DecoderSpec, FamilyDecoder, Init, ModelConfig, register};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

register!(decoder, FamilyDecoder<Gpt2>);

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

/// The family.
pub struct Gpt2;

/// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A model by name, for weights without `config.json`: gpt2, gpt2-medium, gpt2-large, gpt2-xl or distilgpt2.
    pub model: Option<String>,
    /// Vocabulary size V.
    pub vocab_size: Option<usize>,
    /// Context length in positions.
    pub n_positions: Option<usize>,
    /// LM width D.
    pub n_embd: Option<usize>,
    /// Layers L.
    pub n_layer: Option<usize>,
    /// Heads H.
    pub n_head: Option<usize>,
    /// Width of the MLP; 4 D by default.
    pub n_inner: Option<usize>,
    /// The MLP's activation.
    pub activation_function: Option<Activation>,
    /// Epsilon of the layer norms.
    pub layer_norm_epsilon: Option<f64>,
    /// Whether scores are divided by the square root of a head's width.
    pub scale_attn_weights: Option<bool>,
    /// Whether the scores of layer i, counted from 0, are divided by i + 1 as well.
    pub scale_attn_by_inverse_layer_idx: Option<bool>,
    /// Whether the head's matrix is the word embeddings'.
    pub tie_word_embeddings: Option<bool>,
    /// End-of-sequence id, or a list of them.
    pub eos_token_id: Option<TokenIds>,
    /// Standard deviation of random weights; those that write to the residual stream have it over sqrt(2 L).
    pub initializer_range: Option<f32>,
}

impl DecoderFamily for Gpt2 {
    type Config = Config;
    const KIND: &'static str = "gpt2";
    const ABOUT: &'static str = "GPT-2 from a Hugging Face folder (gpt2 by default)";
    const MODEL_TYPES: &'static [&'static str] = &["gpt2"];
    const MAY_DIFFER: &'static [&'static str] = &[];

    fn tiny() -> Config {
        Config {
            vocab_size: Some(97),
            n_positions: Some(48),
            n_embd: Some(32),
            n_layer: Some(2),
            n_head: Some(4),
            eos_token_id: Some(TokenIds(vec![96])),
            ..Config::default()
        }
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
        config.expect("is_causal", &[json!(true)])?;
        config.settings(&OTHER_NAMES, &[])
    }

    fn filled(config: Config) -> Config {
        let width = config.n_embd.unwrap_or(768);
        Config {
            model: None,
            vocab_size: config.vocab_size.or(Some(50_257)),
            n_positions: config.n_positions.or(Some(1024)),
            n_embd: Some(width),
            n_layer: config.n_layer.or(Some(12)),
            n_head: config.n_head.or(Some(12)),
            n_inner: config.n_inner.or(Some(4 * width)),
            activation_function: config.activation_function.or(Some(Activation::GeluNew)),
            layer_norm_epsilon: config.layer_norm_epsilon.or(Some(1e-5)),
            scale_attn_weights: config.scale_attn_weights.or(Some(true)),
            scale_attn_by_inverse_layer_idx: config.scale_attn_by_inverse_layer_idx.or(Some(false)),
            tie_word_embeddings: config.tie_word_embeddings.or(Some(true)),
            eos_token_id: config.eos_token_id.or(Some(TokenIds(vec![50_256]))),
            initializer_range: config.initializer_range.or(Some(0.02)),
        }
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let (width, heads) = (Self::size("n_embd", config.n_embd)?, Self::size("n_head", config.n_head)?);
        let spec = DecoderSpec {
            width,
            vocab: Self::size("vocab_size", config.vocab_size)?,
            layers: Self::size("n_layer", config.n_layer)?,
            kv_heads: heads,
            head_dim: Self::head_width(("n_embd", width), ("n_head", heads))?,
            context: Self::size("n_positions", config.n_positions)?,
            eos: eos(&config.eos_token_id),
        };
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
            BlockPlan {
                width,
                norm,
                attention_norms: BranchNorms::before("ln_1"),
                attention: AttentionPlan {
                    attention: CausalAttention::new(Heads { scale, ..plain }),
                    projections: ProjectionPlan::Fused {
                        qkv: matrix("attn.c_attn", init),
                        layout: FusedLayout::Concatenated,
                    },
                    out: matrix("attn.c_proj", residual),
                    clip: None,
                    query_key_norm: None,
                    rotary: None,
                },
                mlp_norms: BranchNorms::before("ln_2"),
                mlp: MlpPlan {
                    inner,
                    activation,
                    layers: MlpLayers::Plain { up: matrix("mlp.c_fc", init) },
                    down: matrix("mlp.c_proj", residual),
                },
                parallel: false,
                residual_scale: None,
            }
        };
        let tied = Self::need("tie_word_embeddings", config.tie_word_embeddings)?;
        Ok(ModelPlan {
            // The positions tell the prefix: a checkpoint may hold the word table under the head's name alone.
            prefixes: &["transformer", ""],
            probe: "wpe.weight",
            words: TablePlan::new("wte", init),
            input_scale: 1.0,
            projections: None,
            positions: Some(PositionPlan { table: TablePlan::new("wpe", init), offset: 0 }),
            layers: "h",
            blocks: (0..spec.layers).map(block).collect(),
            final_norm: Some(("ln_f", norm)),
            head: HeadPlan::new(MatrixPlan::new("lm_head", init), tied),
            spec,
        })
    }
}
