//! A component between its settings and its weights.

use super::{EncoderSpecs, StitchContext};
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::spec::DecoderSpec;
use crate::stitch::{PrefixSpec, Stitch};
use crate::weights::{WeightSource, Weights};
use anyhow::Result;
use serde_json::Value;
use std::sync::Arc;

/// A component whose settings and sizes are known and whose weights are not yet read.
pub struct Prepared<S, T: ?Sized> {
    /// The kind.
    pub kind: String,
    /// The resolved settings.
    pub settings: Value,
    /// The sizes.
    pub spec: S,
    build: BuildFn<T>,
}

type BuildFn<T> = Box<dyn FnOnce(&Weights) -> Result<Box<T>> + Send>;

impl<S, T: ?Sized> Prepared<S, T> {
    /// What a host of external components makes of one.
    pub fn new(
        kind: impl Into<String>,
        settings: Value,
        spec: S,
        build: impl FnOnce(&Weights) -> Result<Box<T>> + Send + 'static,
    ) -> Self {
        Self { kind: kind.into(), settings, spec, build: Box::new(build) }
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// Weights that are missing, unreadable or of another shape.
    pub fn build(self, weights: &Weights) -> Result<Box<T>> {
        (self.build)(weights)
    }
}

/// An encoder ready to be built.
pub type PreparedEncoder = Prepared<EncoderSpecs, dyn Encoder>;
/// A decoder ready to be built.
pub type PreparedDecoder = Prepared<DecoderSpec, dyn Decoder>;
/// A stitch ready to be built.
pub type PreparedStitch = Prepared<PrefixSpec, dyn Stitch>;

/// Prepares an encoder or decoder from settings and the source of its weights.
pub type PrepareFn<S, T> = Arc<dyn Fn(Value, &dyn WeightSource) -> Result<Prepared<S, T>> + Send + Sync>;
/// Prepares a stitch from settings and the two sides.
pub type PrepareStitchFn = Arc<dyn Fn(Value, &StitchContext) -> Result<PreparedStitch> + Send + Sync>;
