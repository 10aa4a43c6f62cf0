//! What the author of a component writes: settings, specs, and how it is built.

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::spec::{DecoderSpec, FeatureSpec, InputSpec};
use crate::stitch::{PrefixSpec, Stitch};
use crate::weights::{WeightSource, Weights};
use anyhow::Result;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What Hugging Face's `save_pretrained` calls its weights, whole or sharded.
pub const DEFAULT_FILES: &[&str] =
    &["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// What every component has: a kind, settings, a tiny preset.
pub trait Component: Sized + Send + Sync + 'static {
    /// The settings, strict (`deny_unknown_fields`).
    type Config: Serialize + DeserializeOwned + JsonSchema + Clone + Send + Sync;
    /// The kind that configs name, in kebab case.
    const KIND: &'static str;
    /// One line for `limber components`.
    const ABOUT: &'static str;

    /// File names that are looked for in a weights folder, the first that is there is read.
    const FILES: &'static [&'static str] = DEFAULT_FILES;

    /// Whether it reads any weights; a component without them takes no `weights` line.
    const NEEDS_WEIGHTS: bool = true;

    /// Settings of a model small enough for the conformance suite.
    fn tiny() -> Self::Config;

    /// Whether what lies beside the weights (`config.json`) says that they are this component's: the kind `auto`.
    ///
    /// # Errors
    /// A document that cannot be read.
    fn recognises(_source: &dyn WeightSource) -> Result<bool> {
        Ok(false)
    }

    /// Fills the settings from what lies beside the weights (`config.json`) and checks them.
    ///
    /// # Errors
    /// A setting that is out of range or not supported, by name.
    fn resolve(config: Self::Config, _source: &dyn WeightSource) -> Result<Self::Config> {
        Ok(config)
    }
}

/// A component that is an encoder.
pub trait EncoderComponent: Component + Encoder {
    /// Image and feature specs of resolved settings, before any weight is read.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    fn specs(config: &Self::Config) -> Result<EncoderSpecs>;

    /// The encoder of resolved settings.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    fn new(config: &Self::Config, weights: &Weights) -> Result<Self>;
}

/// A component that is a decoder.
pub trait DecoderComponent: Component + Decoder {
    /// The sizes of resolved settings, before any weight is read.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    fn specs(config: &Self::Config) -> Result<DecoderSpec>;

    /// The decoder of resolved settings.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    fn new(config: &Self::Config, weights: &Weights) -> Result<Self>;
}

/// A component that is a stitch.
pub trait StitchComponent: Component + Stitch {
    /// The prefix that resolved settings give between these two sides. A checkpoint in `context.source` that does
    /// not fit is refused here, naming both sides.
    ///
    /// # Errors
    /// Widths of the checkpoint that are not those of the encoder and decoder.
    fn specs(config: &Self::Config, context: &StitchContext) -> Result<PrefixSpec>;

    /// The stitch of resolved settings.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    fn new(config: &Self::Config, context: &StitchContext, weights: &Weights) -> Result<Self>;
}

/// The two sides a stitch stands between, and the weights it will read.
#[derive(Clone, Copy)]
pub struct StitchContext<'a> {
    /// The encoder's features.
    pub features: FeatureSpec,
    /// The kind of the encoder, for messages.
    pub encoder: &'a str,
    /// LM width D.
    pub width: usize,
    /// The kind of the decoder, for messages.
    pub decoder: &'a str,
    /// The weights, whose names and shapes may be read.
    pub source: &'a dyn WeightSource,
}

/// The two specs of an encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderSpecs {
    /// Pixels in, or features from a file.
    pub input: InputSpec,
    /// Features out.
    pub features: FeatureSpec,
}
