//! `gpt-neo`: GPT-Neo (125M, 1.3B, 2.7B) as a frozen decoder.
//!
//! As GPT-2, with scores that nothing divides, a window in every other layer, and matrices stored as usual.
//! Source followed: transformers' `modeling_gpt_neo.py` and `configuration_gpt_neo.py`.

use anyhow::{Result, bail};
use limber_core::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, MatrixPlan, MlpPlan, NormPlan, ProjectionPlan,
};
use limber_core::decoder_model::{HeadPlan, ModelPlan, PositionPlan, TablePlan};
use limber_core::model_config::TokenIds;
use limber_core::ops::{Activation, CausalAttention, Heads, NormKind};
use limber_core::{DecoderFamily, Init, ModelConfig, decoder_family, family_settings, keyed};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

decoder_family! { GptNeo, Config, "gpt-neo", ["gpt_neo"], "GPT-Neo from a Hugging Face folder, or by the name of a model (gpt-neo-1.3b by default)" }

/// Name, D, L, H of the published models; all have 50,257 words and 2048 positions.
const MODELS: [(&str, usize, usize, usize); 3] =
    [("gpt-neo-125m", 768, 12, 12), ("gpt-neo-1.3b", 2048, 24, 16), ("gpt-neo-2.7b", 2560, 32, 20)];

/// Which keys a layer's positions see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttentionType {
    /// All up to their own.
    Global,
    /// The last `window_size` of them.
    Local,
}

family_settings! {
    /// The settings. What is not set is read off `config.json` beside the weights, or is that of `model`.
    Config {
        /// A model by name, for weights without `config.json`: gpt-neo-125m, gpt-neo-1.3b or gpt-neo-2.7b.
        model,
        sizes: {
            /// Vocabulary size V.
            vocab_size = 50_257,
            /// Context length in positions.
            max_position_embeddings = 2048,
            /// LM width D.
            hidden_size = 2048,
            /// Layers L.
            num_layers = 24,
            /// Heads H.
            num_heads = 16,
            /// Width of the MLP; 4 D by default.
            intermediate_size,
            /// Keys in the window of a local layer, a position's own included.
            window_size = 256,
        },
        own: {
            /// Which layers are global and which local, as lists that are each repeated; by default these in turn, the first
            /// one global.
            attention_types: Vec<(Vec<AttentionType>, usize)>,
            /// The MLP's activation.
            activation_function: Activation = Activation::GeluNew,
            /// Epsilon of the layer norms.
            layer_norm_epsilon: f64 = 1e-5,
            /// Whether the head's matrix is the word embeddings'.
            tie_word_embeddings: bool = true,
            /// End-of-sequence id, or a list of them.
            eos_token_id: TokenIds = TokenIds(vec![50_256]),
            /// Standard deviation of random weights.
            initializer_range: f32 = 0.02,
        },
    }
}

impl Config {
    /// The types of the layers, `layers` of them; one more where a list says so, however often it is repeated.
    fn types(&self, layers: usize) -> Vec<AttentionType> {
        let Some(types) = &self.attention_types else {
            return [AttentionType::Global, AttentionType::Local].into_iter().cycle().take(layers).collect();
        };
        let all =
            types.iter().flat_map(|(kinds, times)| std::iter::repeat_n(kinds, (*times).min(layers + 1)).flatten());
        all.take(layers + 1).copied().collect()
    }

    /// The windows of the layers.
    fn windows(&self, layers: usize, window: usize) -> Result<Vec<Option<usize>>> {
        let types = self.types(layers);
        if types.len() != layers {
            bail!(
                "gpt-neo: attention_types is {}, expected one for each of {layers} layers",
                json!(self.attention_types)
            )
        }
        Ok(types.into_iter().map(|kind| (kind == AttentionType::Local).then_some(window)).collect())
    }
}

impl DecoderFamily for GptNeo {
    const MAY_DIFFER: &'static [&'static str] = &[];

    fn tiny() -> Config {
        // Fewer keys in a window than the suite's sequences have.
        let sizes = Config::sized(&[97, 48, 32, 2, 4]);
        Config { window_size: Some(4), eos_token_id: Some(TokenIds(vec![96])), ..sizes }
    }

    fn models() -> Vec<&'static str> {
        MODELS.map(|m| m.0).into()
    }

    fn preset(name: &str) -> Option<Config> {
        let (_, width, layers, heads) = *MODELS.iter().find(|m| m.0 == name)?;
        Some(Config {
            hidden_size: Some(width),
            num_layers: Some(layers),
            num_heads: Some(heads),
            // As the files write it.
            attention_types: Some(vec![(vec![AttentionType::Global, AttentionType::Local], layers / 2)]),
            ..Config::default()
        })
    }

    fn described(config: &ModelConfig) -> Result<Config> {
        let names = [("num_hidden_layers", "num_layers"), ("num_attention_heads", "num_heads")];
        let found: Config = config.settings(&names, &[])?;
        // The same as attention_types, written out; transformers takes the longer one.
        if let Some(list) = config.value("attention_layers").and_then(Value::as_array)
            && !found.types(list.len()).iter().map(|kind| json!(kind)).eq(list.iter().cloned())
        {
            let types = json!(found.attention_types);
            return Err(config.refusal(
                "attention_layers",
                format!("but attention_types is {types}, supported is the same in both"),
            ));
        }
        Ok(found)
    }

    fn derived(config: Config) -> Config {
        let inner = config.intermediate_size.or_else(|| config.hidden_size?.checked_mul(4));
        Config { intermediate_size: inner, ..config }
    }

    fn plan(config: &Config) -> Result<ModelPlan> {
        let spec = Self::spec(
            keyed!(config: vocab_size, hidden_size, num_layers, num_heads, max_position_embeddings),
            &config.eos_token_id,
        )?;
        let (width, heads) = (spec.width, spec.kv_heads);
        let init = Init::normal(Self::need("initializer_range", config.initializer_range)?);
        let eps = Self::need("layer_norm_epsilon", config.layer_norm_epsilon)?;
        let norm = NormPlan { kind: NormKind::Layer, eps };
        let matrix = |name| MatrixPlan::new(name, init);
        let names = ["attn.attention.q_proj", "attn.attention.k_proj", "attn.attention.v_proj"];
        let out = matrix("attn.attention.out_proj").biased(true);
        let attention = CausalAttention::new(Heads { scale: 1.0, ..Heads::new(heads, heads, spec.head_dim) });
        let attention = AttentionPlan::new(attention, ProjectionPlan::split(names.map(matrix)), out, None);
        let inner = Self::size("intermediate_size", config.intermediate_size)?;
        let activation = Self::need("activation_function", config.activation_function)?;
        let (up, down) = (matrix("mlp.c_fc").biased(true), matrix("mlp.c_proj").biased(true));
        let mlp = (BranchNorms::before("ln_2"), MlpPlan::plain(inner, activation, up, down));
        let block = BlockPlan::new(width, norm, (BranchNorms::before("ln_1"), attention), mlp);
        let windows = config.windows(spec.layers, Self::size("window_size", config.window_size)?)?;
        let tied = Self::need("tie_word_embeddings", config.tie_word_embeddings)?;
        let blocks = ("h", windows.into_iter().map(|window| block.within(window)).collect());
        let (words, table) = (TablePlan::new("wte", init), TablePlan::new("wpe", init));
        let head = HeadPlan::new(matrix("lm_head"), tied);
        let plan = ModelPlan::new(spec, &["transformer", ""], words, blocks, Some(("ln_f", norm)), head);
        Ok(ModelPlan { probe: table.name, positions: Some(PositionPlan { table, offset: 0 }), ..plan })
    }
}
