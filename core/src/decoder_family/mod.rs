//! A family of language models as data: settings, presets, and how they become the plan of a model.
//!
//! What all families share stands here: settings go before `config.json` or a model named in them, and these before the
//! reference library's defaults; what does not fit is refused by name before any weight is read.

mod declare;
mod llama_like;
mod windows;

pub use llama_like::{LlamaLike, LlamaSizes};
pub use windows::{LayerType, windows};

use crate::decoder::{Decoder, Run};
use crate::decoder_model::{DecoderModel, ModelPlan};
use crate::model_config::{self, ModelConfig, TokenIds};
use crate::registry::{Component, DecoderComponent};
use crate::settings;
use crate::spec::DecoderSpec;
use crate::weights::{WeightSource, Weights};
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::marker::PhantomData;

/// The settings of a family, as [`family_settings!`](crate::family_settings) and
/// [`llama_like_settings!`](crate::llama_like_settings) declare them.
pub trait FamilySettings: Serialize + DeserializeOwned + JsonSchema + Clone + Send + Sync {
    /// With the defaults of what is not set and has one.
    fn filled(self) -> Self;

    /// With what follows from other settings, once all of them are laid over each other and filled.
    fn derived(self) -> Self {
        self
    }
}

/// What a family is called and set by, as [`decoder_family!`](crate::decoder_family!) declares it.
pub trait FamilyNames {
    /// The settings, strict (`deny_unknown_fields`), each an `Option`; a key `model` names a preset.
    type Config: FamilySettings;
    /// The kind that configs name, in kebab case.
    const KIND: &'static str;
    /// One line for `limber components`.
    const ABOUT: &'static str;
    /// The `model_type`s of `config.json` that are this family's.
    const MODEL_TYPES: &'static [&'static str];
}

/// Declares a family of decoders of the usual build, and registers it: `decoder_family! { Gpt2, Config, "gpt2", ["gpt2"], "GPT-2" }`
/// for its type, its settings, the kind, the `model_type`s and the line of `limber components`.
#[macro_export]
macro_rules! decoder_family {
    ($name:ident, $config:ty, $kind:literal, $types:expr, $about:literal) => {
        $crate::register!(decoder, $crate::FamilyDecoder<$name>);

        /// The family.
        pub struct $name;

        impl $crate::FamilyNames for $name {
            type Config = $config;
            const KIND: &'static str = $kind;
            const ABOUT: &'static str = $about;
            const MODEL_TYPES: &'static [&'static str] = &$types;
        }
    };
}

/// A family of decoders of the usual build: its settings and its plan.
pub trait DecoderFamily: FamilyNames + Send + Sync + 'static {
    /// Keys in which a folder may say something else than the model that is named beside it.
    const MAY_DIFFER: &'static [&'static str] = &["eos_token_id"];

    /// Settings of a model small enough for the conformance suite.
    fn tiny() -> Self::Config;

    /// The names that `model` can have.
    fn models() -> Vec<&'static str> {
        Vec::new()
    }

    /// The settings of a model by its name, in lower case; a folder beside which it is named must say the same.
    fn preset(_name: &str) -> Option<Self::Config> {
        None
    }

    /// Settings as a config gives them, before they go over those of a preset or a file: for one that implies another.
    fn own(config: Self::Config) -> Self::Config {
        config
    }

    /// What `config.json` says, with the reference library's defaults for what it leaves out.
    ///
    /// # Errors
    /// A value that this family cannot take or compute, by its key.
    fn described(config: &ModelConfig) -> Result<Self::Config>;

    /// Settings with the defaults of what is not set.
    fn filled(config: Self::Config) -> Self::Config {
        config.filled()
    }

    /// Settings with what follows from others, once all of them are laid over each other and filled.
    fn derived(config: Self::Config) -> Self::Config {
        config.derived()
    }

    /// The model of settings that are filled.
    ///
    /// # Errors
    /// Sizes that do not fit each other, by key and value.
    fn plan(config: &Self::Config) -> Result<ModelPlan>;

    /// A setting that the plan cannot do without.
    ///
    /// # Errors
    /// None where the setting is not set.
    fn need<T>(key: &str, value: Option<T>) -> Result<T> {
        match (value, Self::models().is_empty()) {
            (Some(value), _) => Ok(value),
            (None, true) => bail!("{}: {key} is not set", Self::KIND),
            (None, false) => bail!(
                "{}: {key} is not set, and no config.json lies beside the weights; set it, or model to one of {}",
                Self::KIND,
                Self::models().join(", ")
            ),
        }
    }

    /// A size that the plan cannot do without.
    ///
    /// # Errors
    /// None, or 0.
    fn size(key: &str, value: Option<usize>) -> Result<usize> {
        settings::size(Self::KIND, key, Some(Self::need(key, value)?))
    }

    /// A number of layers that the plan cannot do without: one plan a layer is made before any weight is asked for.
    ///
    /// # Errors
    /// None, 0, or more than any model has.
    fn layers(key: &str, value: Option<usize>) -> Result<usize> {
        at_most(Self::KIND, key, Self::size(key, value)?, MOST_LAYERS)
    }

    /// A number above 0 that the plan cannot do without.
    ///
    /// # Errors
    /// None, or another number.
    fn positive(key: &str, value: Option<f64>) -> Result<f64> {
        match Self::need(key, value)? {
            value if value.is_finite() && value > 0.0 => Ok(value),
            value => bail!("{}: {key} is {value}, expected a number above 0", Self::KIND),
        }
    }

    /// A soft cap as the plans take it; 0 is none.
    ///
    /// # Errors
    /// None, or a number below 0.
    fn cap(key: &str, value: Option<f64>) -> Result<Option<f64>> {
        match Self::need(key, value)? {
            0.0 => Ok(None),
            cap if cap.is_finite() && cap > 0.0 => Ok(Some(cap)),
            cap => bail!("{}: {key} is {cap}, expected a number from 0, which is none, on", Self::KIND),
        }
    }

    /// The sizes of a model with as many heads of keys as of queries, of settings under their keys: V, D, L, H, positions.
    ///
    /// # Errors
    /// A size that is not set or 0, a width that is not a multiple of the heads.
    fn spec(sizes: [(&str, Option<usize>); 5], eos_token_id: &Option<TokenIds>) -> Result<DecoderSpec> {
        let [vocab, width, layers, heads, context] = sizes;
        let (width_key, width) = (width.0, Self::size(width.0, width.1)?);
        let (heads_key, heads) = (heads.0, Self::size(heads.0, heads.1)?);
        Ok(DecoderSpec {
            width,
            vocab: Self::size(vocab.0, vocab.1)?,
            layers: Self::layers(layers.0, layers.1)?,
            kv_heads: heads,
            head_dim: Self::head_width((width_key, width), (heads_key, heads))?,
            context: Self::size(context.0, context.1)?,
            eos: eos(eos_token_id),
        })
    }

    /// The width of a head: `width` shared among `heads`, both under their keys.
    ///
    /// # Errors
    /// A width that is not a multiple of the heads.
    fn head_width((width_key, width): (&str, usize), (heads_key, heads): (&str, usize)) -> Result<usize> {
        if width % heads != 0 {
            bail!("{}: {width_key} {width} is not a multiple of {heads_key} {heads}", Self::KIND)
        }
        at_most(Self::KIND, &format!("{width_key} over {heads_key}"), width / heads, MOST_WIDTH)
    }
}

/// Most layers of a model.
const MOST_LAYERS: usize = 10_000;
/// Most elements of a head: its rotary frequencies are made before any weight is asked for.
const MOST_WIDTH: usize = 65_536;

fn at_most(component: &str, key: &str, value: usize, most: usize) -> Result<usize> {
    if value > most {
        bail!("{component}: {key} is {value}, expected at most {most}")
    }
    Ok(value)
}

/// The ids of a setting.
pub fn eos(ids: &Option<TokenIds>) -> Vec<u32> {
    ids.clone().map_or_else(Vec::new, |ids| ids.0)
}

/// A model of a family with its weights.
pub struct FamilyDecoder<F> {
    model: DecoderModel,
    family: PhantomData<fn() -> F>,
}

impl<F: DecoderFamily> Component for FamilyDecoder<F> {
    type Config = F::Config;
    const KIND: &'static str = F::KIND;
    const ABOUT: &'static str = F::ABOUT;

    fn tiny() -> F::Config {
        F::tiny()
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        model_config::recognises(source, F::MODEL_TYPES)
    }

    fn resolve(config: F::Config, source: &dyn WeightSource) -> Result<F::Config> {
        let mut own = settings::to_value(&config)?;
        let model = own.as_object_mut().and_then(|map| map.remove("model"));
        let own = F::own(serde_json::from_value(own)?);
        let preset = match model.as_ref().and_then(Value::as_str) {
            None => None,
            Some(name) => match F::preset(&name.to_ascii_lowercase()) {
                Some(preset) => Some((name, preset)),
                None => bail!("unknown {} model {name:?}; known models: {}", F::KIND, F::models().join(", ")),
            },
        };
        let document = ModelConfig::read(source)?;
        let found = document.as_ref().map(|config| described::<F>(config, source)).transpose()?;
        let found = document.as_ref().map(ModelConfig::location).zip(found.as_ref());
        let preset = preset.as_ref().map(|(name, preset)| (*name, preset));
        let config = F::derived(F::filled(settings::layered(&own, preset, found, F::MAY_DIFFER)?));
        let plan = F::plan(&config);
        match found {
            Some((location, _)) => plan.with_context(|| location.to_string())?,
            None => plan?,
        };
        Ok(config)
    }
}

/// What lies beside the weights.
fn described<F: DecoderFamily>(config: &ModelConfig, source: &dyn WeightSource) -> Result<F::Config> {
    let component = format!("the decoder {}", F::KIND);
    config.expect_type(&component, F::MODEL_TYPES)?;
    config.refuse(&component, &["quantization_config", "adapters"])?;
    // transformers lets the positions of any family see those behind them.
    config.expect("is_causal", &[Value::Bool(true)])?;
    let mut found = settings::to_value(&F::described(config)?)?;
    if let Some(map) = found.as_object_mut() {
        // A key of that name in a file is no model of ours.
        map.remove("model");
        if let Some(ids) = model_config::eos_ids(source)? {
            map.insert("eos_token_id".to_string(), serde_json::to_value(TokenIds(ids))?);
        }
    }
    Ok(F::filled(serde_json::from_value(found)?))
}

impl<F: DecoderFamily> DecoderComponent for FamilyDecoder<F> {
    fn specs(config: &F::Config) -> Result<DecoderSpec> {
        Ok(F::plan(config)?.spec)
    }

    fn new(config: &F::Config, weights: &Weights) -> Result<Self> {
        Ok(Self { model: DecoderModel::load(&F::plan(config)?, weights)?, family: PhantomData })
    }
}

impl<F: DecoderFamily> Decoder for FamilyDecoder<F> {
    fn spec(&self) -> DecoderSpec {
        self.model.spec()
    }

    fn embed(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        self.model.embed(ids)
    }

    fn forward(&self, embeds: &Tensor, run: &mut Run) -> candle_core::Result<Tensor> {
        self.model.forward(embeds, run)
    }

    fn supports_prefix_reuse(&self, positions: usize) -> bool {
        self.model.supports_prefix_reuse(positions)
    }
}
