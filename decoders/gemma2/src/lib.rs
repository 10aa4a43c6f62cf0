//! `gemma2`: Gemma 2 (2B, 9B, 27B) as a frozen decoder.
//!
//! RMS norms of gain 1 + weight before and after each branch, a window in every other layer, soft caps of scores and
//! logits, words times the square root of the width. A prefix that is no word's is not scaled, as in transformers 5.
//! Source followed: transformers' `modeling_gemma2.py` and `configuration_gemma2.py`.

use anyhow::Result;
use limber_core::decoder_block::BranchNorms;
use limber_core::decoder_family::{LayerType, windows};
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, NormKind};
use limber_core::{DecoderFamily, FamilyNames, ModelConfig, decoder_family, llama_like_settings};

decoder_family! { Gemma2, Config, "gemma2", ["gemma2"], "Gemma 2 from a Hugging Face folder, or by the name of a model (gemma-2-2b by default)" }

llama_like_settings! {
    activation: hidden_activation,
    // gemma-2-2b's.
    sized: (256_000, 8192, [2304, 9216, 26, 8, 4]),
    defaults: {
        head_dim: 256, hidden_activation: Activation::GeluNew, tie_word_embeddings: true,
        eos_token_id: TokenIds(vec![1]),
    },
    own: {
        /// A model by name, gemma-2-2b, gemma-2-9b or gemma-2-27b, for weights without `config.json`.
        model: String = None,
        /// The number over whose square root scores are divided.
        query_pre_attn_scalar: f64 = Some(256.0),
        /// Keys in the window, a position's own included.
        #[schemars(range(min = 1))]
        sliding_window: usize = Some(4096),
        /// What each layer sees; a window in every other one from the first on by default.
        layer_types: Vec<LayerType> = None,
        /// Soft cap of the attention's scores; 0 is none.
        attn_logit_softcapping: f64 = Some(50.0),
        /// Soft cap of the logits; 0 is none.
        final_logit_softcapping: f64 = Some(30.0),
    },
}

impl DecoderFamily for Gemma2 {
    fn tiny() -> Config {
        Config {
            head_dim: Some(6),
            // The first layer sees four keys, fewer than the suite's sequences have.
            sliding_window: Some(4),
            ..Config::smallest()
        }
    }

    fn models() -> Vec<&'static str> {
        vec!["gemma-2-2b", "gemma-2-9b", "gemma-2-27b"]
    }

    fn preset(name: &str) -> Option<Config> {
        let (sizes, dim, scalar) = match name {
            "gemma-2-2b" => ([2304, 9216, 26, 8, 4], 256, 256.0),
            "gemma-2-9b" => ([3584, 14_336, 42, 16, 8], 256, 256.0),
            "gemma-2-27b" => ([4608, 36_864, 46, 32, 16], 128, 144.0),
            _ => return None,
        };
        let (head_dim, query_pre_attn_scalar) = (Some(dim), Some(scalar));
        Some(Config { head_dim, query_pre_attn_scalar, ..Config::sized(256_000, 8192, sizes) })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        config.refuse("the decoder gemma2", &["use_bidirectional_attention"])?;
        let mut found = Config::read(config, "the decoder gemma2", &Config::defaults(), &[])?;
        // No cap where the file says null, the default where it says nothing.
        let without = |key: &str, cap: &mut Option<f64>| *cap = if config.is_null(key) { Some(0.0) } else { *cap };
        without("attn_logit_softcapping", &mut found.attn_logit_softcapping);
        without("final_logit_softcapping", &mut found.final_logit_softcapping);
        Ok(found)
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let sizes = config.sizes::<Self>()?;
        let mut block = sizes.block(NormKind::RmsLessOne);
        block.attention_norms = BranchNorms::sandwich("input_layernorm", "post_attention_layernorm");
        block.mlp_norms = BranchNorms::sandwich("pre_feedforward_layernorm", "post_feedforward_layernorm");
        let scores = &mut block.attention.attention;
        scores.heads.scale = Self::positive("query_pre_attn_scalar", config.query_pre_attn_scalar)?.sqrt().recip();
        scores.soft_cap = Self::cap("attn_logit_softcapping", config.attn_logit_softcapping)?;
        let (types, width) = (config.layer_types.as_deref(), config.sliding_window);
        let windows = windows(Self::KIND, types, width, sizes.spec.layers, |layer| layer % 2 == 0)?;
        let mut plan = sizes.model(block, windows);
        plan.words.scale = (plan.spec.width as f64).sqrt();
        plan.head.soft_cap = Self::cap("final_logit_softcapping", config.final_logit_softcapping)?;
        Ok(plan)
    }
}
