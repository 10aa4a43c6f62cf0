//! What the many families have in common that spell their `config.json` and their tensors as Llama does: the settings, the
//! sizes, and the plan of a pre-norm model with grouped queries, rotary embedding and a gated MLP, which each family changes.

use super::{DecoderFamily, MOST_WIDTH, at_most, eos};
use crate::decoder_block::{
    AttentionPlan, BlockPlan, BranchNorms, MatrixPlan, MlpLayers, MlpPlan, NormPlan, ProjectionPlan,
};
use crate::decoder_model::{HeadPlan, ModelPlan, TablePlan};
use crate::model_config::TokenIds;
use crate::ops::{Activation, CausalAttention, Heads, NormKind, Rotary};
use crate::rope::{RopeScaling, rotary};
use crate::spec::DecoderSpec;
use crate::weights::Init;
use anyhow::{Result, bail};

/// The settings that such families share, taken out of a family's own `Config`; the fields are as documented in
/// [`llama_like_settings!`](crate::llama_like_settings).
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct LlamaLike {
    pub vocab_size: Option<usize>,
    pub hidden_size: Option<usize>,
    pub intermediate_size: Option<usize>,
    pub num_hidden_layers: Option<usize>,
    pub num_attention_heads: Option<usize>,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub max_position_embeddings: Option<usize>,
    pub activation: Option<Activation>,
    pub epsilon: Option<f64>,
    pub rope_theta: Option<f64>,
    pub rope_scaling: Option<RopeScaling>,
    /// The part of a head that the rotary embedding rotates, the whole of it by default; no setting of the macro.
    pub partial_rotary_factor: Option<f64>,
    pub bias: Option<bool>,
    pub tie_word_embeddings: Option<bool>,
    pub eos_token_id: Option<TokenIds>,
    pub initializer_range: Option<f32>,
}

/// The same, checked.
#[derive(Debug, Clone)]
pub struct LlamaSizes {
    /// What callers of the model see.
    pub spec: DecoderSpec,
    /// The heads, of scores over the square root of their width.
    pub heads: Heads,
    /// Width of the MLP.
    pub inner: usize,
    /// Its activation.
    pub activation: Activation,
    /// Epsilon of the norms.
    pub eps: f64,
    /// The rotary embedding.
    pub rotary: Rotary,
    /// Whether the attention's matrices have biases.
    pub biased: bool,
    /// Whether the head is the word table.
    pub tied: bool,
    /// How random matrices are drawn.
    pub init: Init,
}

impl LlamaLike {
    /// The sizes, for messages of the family `F`.
    ///
    /// # Errors
    /// A setting that is missing, out of range or does not fit another.
    pub fn sizes<F: DecoderFamily>(self) -> Result<LlamaSizes> {
        let component = F::KIND;
        let width = F::size("hidden_size", self.hidden_size)?;
        let queries = F::size("num_attention_heads", self.num_attention_heads)?;
        let dim = match self.head_dim {
            Some(_) => F::size("head_dim", self.head_dim)?,
            None if width % queries != 0 => bail!(
                "{component}: hidden_size {width} is not a multiple of num_attention_heads {queries}, and head_dim is not set"
            ),
            None => width / queries,
        };
        let dim = at_most(component, "head_dim", dim, MOST_WIDTH)?;
        let keys = F::size("num_key_value_heads", self.num_key_value_heads)?;
        if queries % keys != 0 {
            bail!("{component}: num_attention_heads {queries} is not a multiple of num_key_value_heads {keys}")
        }
        if dim % 2 != 0 {
            bail!("{component}: head_dim {dim} is not allowed, the rotary embedding needs an even number")
        }
        let theta = F::need("rope_theta", self.rope_theta)?;
        if !(theta.is_finite() && theta > 1.0) {
            bail!("{component}: rope_theta is {theta}, expected a number above 1")
        }
        let share = self.partial_rotary_factor.unwrap_or(1.0);
        // Rounded down as in transformers.
        let rotated = (dim as f64 * share) as usize;
        if !(share > 0.0 && share <= 1.0) || rotated == 0 || !rotated.is_multiple_of(2) {
            bail!(
                "{component}: partial_rotary_factor {share} of a head's {dim} elements is not allowed, expected an even number of them, from 2 to {dim}"
            )
        }
        let positions = F::size("max_position_embeddings", self.max_position_embeddings)?;
        let scaling = self.rope_scaling.as_ref();
        if let Some(scaling) = scaling {
            scaling.check(component, rotated)?;
        }
        Ok(LlamaSizes {
            spec: DecoderSpec {
                width,
                vocab: F::size("vocab_size", self.vocab_size)?,
                layers: F::layers("num_hidden_layers", self.num_hidden_layers)?,
                kv_heads: keys,
                head_dim: dim,
                context: scaling.map_or(positions, |scaling| scaling.context(positions)),
                eos: eos(&self.eos_token_id),
            },
            heads: Heads::new(queries, keys, dim),
            inner: F::size("intermediate_size", self.intermediate_size)?,
            activation: F::need("hidden_act", self.activation)?,
            eps: F::need("the epsilon of the norms", self.epsilon)?,
            rotary: rotary(rotated, theta, scaling, positions),
            biased: F::need("the biases of the attention", self.bias)?,
            tied: F::need("tie_word_embeddings", self.tie_word_embeddings)?,
            init: Init::normal(F::need("initializer_range", self.initializer_range)?),
        })
    }
}

impl LlamaSizes {
    /// A matrix without a bias.
    pub fn matrix(&self, name: &'static str) -> MatrixPlan {
        MatrixPlan::new(name, self.init)
    }

    /// A block with norms of `kind` before attention and MLP.
    pub fn block(&self, kind: NormKind) -> BlockPlan {
        let attention = |name| self.matrix(name).biased(self.biased);
        BlockPlan {
            width: self.spec.width,
            norm: NormPlan { kind, eps: self.eps },
            attention_norms: BranchNorms::before("input_layernorm"),
            attention: AttentionPlan {
                attention: CausalAttention::new(self.heads),
                projections: ProjectionPlan::Split {
                    q: attention("self_attn.q_proj"),
                    k: attention("self_attn.k_proj"),
                    v: attention("self_attn.v_proj"),
                },
                out: attention("self_attn.o_proj"),
                clip: None,
                query_key_norm: None,
                rotary: Some(self.rotary.clone()),
            },
            mlp_norms: BranchNorms::before("post_attention_layernorm"),
            mlp: MlpPlan {
                inner: self.inner,
                activation: self.activation,
                layers: MlpLayers::Gated { gate: self.matrix("mlp.gate_proj"), up: self.matrix("mlp.up_proj") },
                down: self.matrix("mlp.down_proj"),
            },
            parallel: false,
            residual_scale: None,
        }
    }

    /// The model of one `block`, each layer of which sees the keys of its window.
    pub fn model(self, block: BlockPlan, windows: Vec<Option<usize>>) -> ModelPlan {
        let norm = block.norm;
        self.stacked(norm, windows.into_iter().map(|window| block.within(window)).collect())
    }

    /// The model of these blocks, one a layer, and a last norm: of layers that differ in more than their windows.
    pub fn stacked(self, norm: NormPlan, blocks: Vec<BlockPlan>) -> ModelPlan {
        let head = HeadPlan::new(self.matrix("lm_head"), self.tied);
        let words = TablePlan::new("embed_tokens", self.init);
        ModelPlan::new(self.spec, &["model", ""], words, ("layers", blocks), Some(("norm", norm)), head)
    }
}

/// Declares a family's `Config`: the settings of [`LlamaLike`](crate::decoder_family::LlamaLike), the activation under its
/// own key, and the family's own settings. `defaults` stand here and nowhere else, with `sized` as `Config::sized` takes them
/// where a model's sizes are among them; a default of an own setting is an option.
/// The epsilon of the norms and the switch of biases are `rms_norm_eps` and `attention_bias` unless their keys are given.
///
/// `Config::read` reads `config.json`, `filled` fills in the defaults, `Config::sizes` checks the shared settings. A family
/// that has frequencies of its own calls `Config::read_but_rope` and `Config::shared` instead.
#[macro_export]
macro_rules! llama_like_settings {
    (@sized) => { Self::default() };
    (@sized $sized:tt) => { Self::sized $sized };
    (
        activation: $activation:ident,
        $(sized: $sized:tt,)?
        defaults: $defaults:tt,
        own: $own:tt,
    ) => {
        $crate::llama_like_settings! {
            activation: $activation,
            epsilon: rms_norm_eps,
            /// Whether the attention's matrices have biases.
            bias: attention_bias,
            $(sized: $sized,)?
            defaults: $defaults,
            own: $own,
        }
    };
    (
        activation: $activation:ident,
        epsilon: $epsilon:ident,
        $(#[$bias_about:meta])*
        bias: $bias:ident,
        $(sized: $sized:tt,)?
        defaults: { $($key:ident: $value:expr),* $(,)? },
        own: { $($(#[$attribute:meta])* $own:ident: $type:ty = $default:expr,)* },
    ) => {
        /// The settings. What is not set is read off `config.json` beside the weights, or has a default.
        #[derive(Debug, Clone, Default, PartialEq, ::serde::Serialize, ::serde::Deserialize, ::schemars::JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct Config {
            /// Vocabulary size V.
            #[schemars(range(min = 1))]
            pub vocab_size: Option<usize>,
            /// LM width D.
            #[schemars(range(min = 1))]
            pub hidden_size: Option<usize>,
            /// Width of the MLP.
            #[schemars(range(min = 1))]
            pub intermediate_size: Option<usize>,
            /// Layers L.
            #[schemars(range(min = 1))]
            pub num_hidden_layers: Option<usize>,
            /// Query heads.
            #[schemars(range(min = 1))]
            pub num_attention_heads: Option<usize>,
            /// Key and value heads; as many as query heads by default.
            #[schemars(range(min = 1))]
            pub num_key_value_heads: Option<usize>,
            /// Width of a head; by default that of the model, or D over the query heads.
            #[schemars(range(min = 1))]
            pub head_dim: Option<usize>,
            /// Context length in positions, before any scaling of the rotary frequencies.
            #[schemars(range(min = 1))]
            pub max_position_embeddings: Option<usize>,
            /// The MLP's activation.
            pub $activation: Option<$crate::ops::Activation>,
            /// Epsilon of the norms.
            pub $epsilon: Option<f64>,
            /// Base of the rotary frequencies.
            pub rope_theta: Option<f64>,
            /// Scaling of the rotary frequencies.
            pub rope_scaling: Option<$crate::rope::RopeScaling>,
            $(#[$bias_about])*
            pub $bias: Option<bool>,
            /// Whether the head's matrix is the word embeddings'.
            pub tie_word_embeddings: Option<bool>,
            /// End-of-sequence id, or a list of them.
            pub eos_token_id: Option<$crate::model_config::TokenIds>,
            /// Standard deviation of random weights.
            pub initializer_range: Option<f32>,
            $($(#[$attribute])* pub $own: Option<$type>,)*
        }

        impl Config {
            /// The defaults.
            pub(crate) fn defaults() -> Self {
                let shared = Self {
                    $epsilon: Some(1e-6),
                    rope_theta: Some(10_000.0),
                    $bias: Some(false),
                    tie_word_embeddings: Some(false),
                    eos_token_id: Some($crate::model_config::TokenIds(vec![])),
                    initializer_range: Some(0.02),
                    ..$crate::llama_like_settings!(@sized $($sized)?)
                };
                Self { $($key: Some($value),)* $($own: $default,)* ..shared }
            }

            /// The sizes of a model that is small enough for the conformance suite.
            #[allow(dead_code)]
            pub(crate) fn smallest() -> Self {
                let eos_token_id = Some($crate::model_config::TokenIds(vec![96]));
                Self { eos_token_id, ..Self::sized(97, 48, [32, 48, 2, 4, 2]) }
            }

            /// A model of V and positions, and of D, width of the MLP, L, query heads, key and value heads.
            #[allow(dead_code)]
            pub(crate) fn sized(vocab: usize, positions: usize, sizes: [usize; 5]) -> Self {
                let [width, inner, layers, queries, keys] = sizes.map(Some);
                Self {
                    vocab_size: Some(vocab),
                    max_position_embeddings: Some(positions),
                    hidden_size: width,
                    intermediate_size: inner,
                    num_hidden_layers: layers,
                    num_attention_heads: queries,
                    num_key_value_heads: keys,
                    ..Self::default()
                }
            }

            /// What `config.json` says, all but the keys of `skip`, over the `reference` library's defaults;
            /// `component` is what messages call the decoder.
            #[allow(dead_code)]
            pub(crate) fn read(
                config: &$crate::ModelConfig,
                component: &str,
                reference: &Self,
                skip: &[&str],
            ) -> ::anyhow::Result<Self> {
                let found = Self::read_but_rope(config, reference, skip)?;
                let rope = $crate::rope::Rope::read_whole(component, config, found.max_position_embeddings)?;
                Ok(Self { rope_theta: rope.theta, rope_scaling: rope.scaling, ..found })
            }

            /// The same without scaling of the rotary frequencies, which may stand elsewhere.
            #[allow(dead_code)]
            pub(crate) fn read_but_rope(
                config: &$crate::ModelConfig,
                reference: &Self,
                skip: &[&str],
            ) -> ::anyhow::Result<Self> {
                let found: Self = config.settings(&[], &[skip, &["rope_scaling"]].concat())?;
                let mut reference = reference.clone();
                if config.is_null("num_key_value_heads") {
                    reference.num_key_value_heads = None;
                }
                $crate::settings::over(&found, &reference)
            }

            /// The shared settings, checked.
            #[allow(dead_code)]
            pub(crate) fn sizes<F: $crate::DecoderFamily>(&self) -> ::anyhow::Result<$crate::decoder_family::LlamaSizes> {
                self.shared().sizes::<F>()
            }

            /// The shared settings.
            pub(crate) fn shared(&self) -> $crate::decoder_family::LlamaLike {
                $crate::decoder_family::LlamaLike {
                    vocab_size: self.vocab_size,
                    hidden_size: self.hidden_size,
                    intermediate_size: self.intermediate_size,
                    num_hidden_layers: self.num_hidden_layers,
                    num_attention_heads: self.num_attention_heads,
                    num_key_value_heads: self.num_key_value_heads,
                    head_dim: self.head_dim,
                    max_position_embeddings: self.max_position_embeddings,
                    activation: self.$activation,
                    epsilon: self.$epsilon,
                    rope_theta: self.rope_theta,
                    rope_scaling: self.rope_scaling.clone(),
                    partial_rotary_factor: None,
                    bias: self.$bias,
                    tie_word_embeddings: self.tie_word_embeddings,
                    eos_token_id: self.eos_token_id.clone(),
                    initializer_range: self.initializer_range,
                }
            }
        }

        impl $crate::decoder_family::FamilySettings for Config {
            fn filled(self) -> Self {
                let defaults = Self::defaults();
                let keys = self.num_key_value_heads.or(self.num_attention_heads);
                Self {
                    vocab_size: self.vocab_size.or(defaults.vocab_size),
                    hidden_size: self.hidden_size.or(defaults.hidden_size),
                    intermediate_size: self.intermediate_size.or(defaults.intermediate_size),
                    num_hidden_layers: self.num_hidden_layers.or(defaults.num_hidden_layers),
                    num_attention_heads: self.num_attention_heads.or(defaults.num_attention_heads),
                    num_key_value_heads: keys.or(defaults.num_key_value_heads),
                    head_dim: self.head_dim.or(defaults.head_dim),
                    max_position_embeddings: self.max_position_embeddings.or(defaults.max_position_embeddings),
                    $activation: self.$activation.or(defaults.$activation),
                    $epsilon: self.$epsilon.or(defaults.$epsilon),
                    rope_theta: self.rope_theta.or(defaults.rope_theta),
                    rope_scaling: self.rope_scaling,
                    $bias: self.$bias.or(defaults.$bias),
                    tie_word_embeddings: self.tie_word_embeddings.or(defaults.tie_word_embeddings),
                    eos_token_id: self.eos_token_id.or(defaults.eos_token_id),
                    initializer_range: self.initializer_range.or(defaults.initializer_range),
                    $($own: self.$own.or(defaults.$own),)*
                }
            }

            /// With every head's share of the width, where no width of a head is set: a preset's share is not that of other
            /// sizes.
            fn derived(self) -> Self {
                let share = match (self.hidden_size, self.num_attention_heads) {
                    (Some(width), Some(heads)) if heads > 0 && width % heads == 0 => Some(width / heads),
                    _ => None,
                };
                Self { head_dim: self.head_dim.or(share), ..self }
            }
        }
    };
}
