//! `gptj`: GPT-J (EleutherAI/gpt-j-6b and its kin) as a frozen decoder.
//!
//! Attention and MLP side by side behind one layer norm, rotary embedding on the first elements of each head in
//! interleaved pairs, `gelu_new`, a head with bias.
//! Source followed: transformers' `modeling_gptj.py` and `configuration_gptj.py`.

use anyhow::{Result, bail};
use limber_core::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, MatrixPlan, MlpPlan, NormPlan, ProjectionPlan,
};
use limber_core::decoder_model::{HeadPlan, ModelPlan, TablePlan};
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, CausalAttention, Heads, NormKind, Rotary, RotaryStyle};
use limber_core::{DecoderFamily, Init, ModelConfig, decoder_family, family_settings, keyed};
use serde_json::json;

decoder_family! { GptJ, Config, "gptj", ["gptj"], "GPT-J from a Hugging Face folder (gpt-j-6b by default)" }

family_settings! {
    /// The settings. What is not set is read off `config.json` beside the weights; without one, gpt-j-6b's sizes hold.
    Config {
        sizes: {
            /// Vocabulary size V.
            vocab_size = 50_400,
            /// Context length in positions.
            n_positions = 2048,
            /// LM width D.
            n_embd = 4096,
            /// Layers L.
            n_layer = 28,
            /// Heads H.
            n_head = 16,
            /// Elements of each head that the rotary embedding rotates.
            rotary_dim = 64,
            /// Width of the MLP; 4 D by default.
            n_inner,
        },
        own: {
            /// Epsilon of the layer norms.
            layer_norm_epsilon: f64 = 1e-5,
            /// Whether the head's matrix is the word embeddings'.
            tie_word_embeddings: bool = false,
            /// End-of-sequence id, or a list of them.
            eos_token_id: TokenIds = TokenIds(vec![50_256]),
            /// Standard deviation of random weights.
            initializer_range: f32 = 0.02,
        },
    }
}

impl DecoderFamily for GptJ {
    fn tiny() -> Config {
        Config { eos_token_id: Some(TokenIds(vec![96])), ..Config::sized(&[97, 48, 32, 2, 4, 4]) }
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        config.expect("activation_function", &[json!("gelu_new"), json!("gelu_pytorch_tanh"), json!("gelu_fast")])?;
        if config.is_null("rotary_dim") {
            return Err(config.refusal("rotary_dim", "supported is a number of elements of each head"));
        }
        config.settings(&[], &[])
    }

    fn derived(config: Config) -> Config {
        Config { n_inner: config.n_inner.or_else(|| config.n_embd?.checked_mul(4)), ..config }
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let spec = Self::spec(keyed!(config: vocab_size, n_embd, n_layer, n_head, n_positions), &config.eos_token_id)?;
        let (width, heads, dim) = (spec.width, spec.kv_heads, spec.head_dim);
        let rotary = Self::size("rotary_dim", config.rotary_dim)?;
        if rotary % 2 != 0 || rotary > dim {
            bail!("gptj: rotary_dim {rotary} is not allowed, it is even and at most a head's width {dim}")
        }
        let init = Init::normal(Self::need("initializer_range", config.initializer_range)?);
        let norm =
            NormPlan { kind: NormKind::Layer, eps: Self::need("layer_norm_epsilon", config.layer_norm_epsilon)? };
        let matrix = |name| MatrixPlan::new(name, init);
        let projections = ProjectionPlan::split(["attn.q_proj", "attn.k_proj", "attn.v_proj"].map(matrix));
        let rotary = Rotary::new(rotary, spec.context, 10_000.0, RotaryStyle::Interleaved);
        let attention = CausalAttention::new(Heads::new(heads, heads, dim));
        let attention = AttentionPlan::new(attention, projections, matrix("attn.out_proj"), Some(rotary));
        let (up, down) = (matrix("mlp.fc_in").biased(true), matrix("mlp.fc_out").biased(true));
        let mlp = MlpPlan::plain(Self::size("n_inner", config.n_inner)?, Activation::GeluNew, up, down);
        let attention = (BranchNorms::before("ln_1"), attention);
        let block = BlockPlan::new(width, norm, attention, (BranchNorms::default(), mlp));
        let block = BlockPlan { parallel: true, ..block };
        let tied = Self::need("tie_word_embeddings", config.tie_word_embeddings)?;
        let (words, head) = (TablePlan::new("wte", init), HeadPlan::new(matrix("lm_head").biased(true), tied));
        let blocks = ("h", vec![block; spec.layers]);
        Ok(ModelPlan::new(spec, &["transformer", ""], words, blocks, Some(("ln_f", norm)), head))
    }
}
