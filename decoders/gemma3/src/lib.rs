//! `gemma3`: Gemma 3's text models (270M, 1B) as a frozen decoder.
//!
//! As Gemma 2, with norms of each head's queries and keys, and two rotary embeddings: the layers that see all keys have
//! slower frequencies than those with a window. A prefix that is no word's is not scaled, as in transformers 5, which does
//! not apply `attn_logit_softcapping` either.
//! Source followed: `Gemma3TextModel` and `Gemma3TextConfig` of transformers' `modeling_gemma3.py`.

use anyhow::Result;
use limber_core::decoder_block::{BranchNorms, NormScope, QueryKeyNorm};
use limber_core::decoder_family::{LayerType, LlamaLike, windows};
use limber_core::decoder_model::ModelPlan;
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, NormKind};
use limber_core::rope::Rope;
use limber_core::{DecoderFamily, FamilyNames, ModelConfig, decoder_family, llama_like_settings};

decoder_family! { Gemma3, Config, "gemma3", ["gemma3_text"], "Gemma 3 (text) from a Hugging Face folder, or by the name of a model (gemma-3-1b by default)" }

const COMPONENT: &str = "the decoder gemma3";

llama_like_settings! {
    activation: hidden_activation,
    // gemma-3-1b's.
    sized: (262_144, 32_768, [1152, 6912, 26, 4, 1]),
    defaults: {
        head_dim: 256, rope_theta: 1_000_000.0, hidden_activation: Activation::GeluNew, tie_word_embeddings: true,
        eos_token_id: TokenIds(vec![1]),
    },
    own: {
        /// A model by name, gemma-3-270m or gemma-3-1b, for weights without `config.json`.
        model: String = None,
        /// Base of the rotary frequencies of the layers with a window.
        rope_local_base_freq: f64 = Some(10_000.0),
        /// The number over whose square root scores are divided.
        query_pre_attn_scalar: f64 = Some(256.0),
        /// Keys in the window, a position's own included.
        #[schemars(range(min = 1))]
        sliding_window: usize = Some(512),
        /// Distance of the layers that see all keys.
        #[schemars(range(min = 1))]
        sliding_window_pattern: usize = Some(6),
        /// What each layer sees; a window in all but every `sliding_window_pattern`-th by default.
        layer_types: Vec<LayerType> = None,
        /// Soft cap of the logits; 0 is none.
        final_logit_softcapping: f64 = Some(0.0),
    },
}

impl DecoderFamily for Gemma3 {
    fn tiny() -> Config {
        Config {
            head_dim: Some(6),
            query_pre_attn_scalar: Some(6.0),
            // The first layer sees four keys, fewer than the suite's sequences have.
            sliding_window: Some(4),
            sliding_window_pattern: Some(2),
            ..Config::smallest()
        }
    }

    fn models() -> Vec<&'static str> {
        vec!["gemma-3-270m", "gemma-3-1b"]
    }

    fn preset(name: &str) -> Option<Config> {
        let sizes = match name {
            "gemma-3-270m" => [640, 2048, 18, 4, 1],
            "gemma-3-1b" => [1152, 6912, 26, 4, 1],
            _ => return None,
        };
        Some(Config { head_dim: Some(256), sliding_window: Some(512), ..Config::sized(262_144, 32_768, sizes) })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        config.refuse(COMPONENT, &["use_bidirectional_attention"])?;
        let reference =
            Config { sliding_window: Some(4096), ..Config::sized(262_208, 131_072, [2304, 9216, 26, 8, 4]) };
        if config.is_null("sliding_window") {
            return Err(config.refusal("sliding_window", "expected a number of keys"));
        }
        let found = Config::read_but_rope(config, &reference, &[])?;
        let positions = found.max_position_embeddings.unwrap_or(0);
        // Version 5 of transformers writes one map for each kind of layer, version 4 one for those that see all keys.
        let parameters = config.section("rope_parameters").unwrap_or_default();
        parameters.only(COMPONENT, &["full_attention", "sliding_attention"])?;
        let read = |section: Option<ModelConfig>| match section {
            Some(section) => Rope::read_section(COMPONENT, config, &section, positions),
            None => Ok(Rope::default()),
        };
        let mut full = read(parameters.section("full_attention"))?;
        if let Some(section) = config.section("rope_scaling").filter(|section| section.keys().next().is_some()) {
            let scaling = read(Some(section))?;
            full = Rope { theta: scaling.theta.or(full.theta), ..scaling };
        }
        let local = read(parameters.section("sliding_attention"))?;
        if local.scaling.is_some() {
            return Err(parameters.refusal("sliding_attention", "supported is rope_type default"));
        }
        Ok(Config {
            rope_theta: full.theta.or(found.rope_theta),
            rope_scaling: full.scaling,
            rope_local_base_freq: local.theta.or(found.rope_local_base_freq),
            ..found
        })
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let mut sizes = config.sizes::<Self>()?;
        // These count the longer texts in already, which a scaling is for.
        sizes.spec.context = Self::size("max_position_embeddings", config.max_position_embeddings)?;
        let mut block = sizes.block(NormKind::RmsLessOne);
        block.attention_norms = BranchNorms::sandwich("input_layernorm", "post_attention_layernorm");
        block.mlp_norms = BranchNorms::sandwich("pre_feedforward_layernorm", "post_feedforward_layernorm");
        let (q, k) = ("self_attn.q_norm", "self_attn.k_norm");
        block.attention.query_key_norm = Some(QueryKeyNorm { q, k, scope: NormScope::Head, norm: block.norm });
        let scores = &mut block.attention.attention;
        scores.heads.scale = Self::positive("query_pre_attn_scalar", config.query_pre_attn_scalar)?.sqrt().recip();
        let every = Self::size("sliding_window_pattern", config.sliding_window_pattern)?;
        let (types, width) = (config.layer_types.as_deref(), config.sliding_window);
        let windows = windows(Self::KIND, types, width, sizes.spec.layers, |layer| (layer + 1) % every != 0)?;
        let local = LlamaLike { rope_theta: config.rope_local_base_freq, rope_scaling: None, ..config.shared() };
        let local = local.sizes::<Self>()?.rotary;
        let blocks = windows.into_iter().map(|window| {
            let mut block = block.within(window);
            if window.is_some() {
                block.attention.rotary = Some(local.clone());
            }
            block
        });
        let mut plan = sizes.stacked(block.norm, blocks.collect());
        plan.words.scale = (plan.spec.width as f64).sqrt();
        plan.head.soft_cap = Self::cap("final_logit_softcapping", config.final_logit_softcapping)?;
        Ok(plan)
    }
}
