//! Encoders that break the contract, each in one way, for the tests of `limber plugin check`; and an honest one.
//!
//! Pixels `[B, 3, 8, 8]` to the mean colour of each quarter, times a weight: `[B, 4, 3]`.

use anyhow::Result;
use candle_core::{DType, Tensor};
use limber_sdk::core::encoder::check_pixels;
use limber_sdk::core::registry::EncoderSpecs;
use limber_sdk::core::{
    Component, Encoder, EncoderComponent, FeatureKind, FeatureSpec, ImageSpec, Init, InputSpec, Weights,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

limber_sdk::export_plugin!(
    encoder: Liar<HONEST>,
    encoder: Liar<SHAPE>,
    encoder: Liar<DTYPE>,
    encoder: Liar<GRAPH>,
    encoder: Liar<BATCH>,
    encoder: Liar<NAN>,
    encoder: Liar<PANIC>,
    encoder: Liar<ERROR>,
);

/// Nothing is wrong.
pub const HONEST: usize = 0;
/// Gives one token more than its spec says.
pub const SHAPE: usize = 1;
/// Gives f64.
pub const DTYPE: usize = 2;
/// Keeps the graph of its input.
pub const GRAPH: usize = 3;
/// Subtracts the mean of the batch.
pub const BATCH: usize = 4;
/// Divides by zero.
pub const NAN: usize = 5;
/// Panics.
pub const PANIC: usize = 6;
/// Returns an error.
pub const ERROR: usize = 7;

const KINDS: [&str; 8] =
    ["honest", "liar-shape", "liar-dtype", "liar-graph", "liar-batch", "liar-nan", "liar-panic", "liar-error"];

/// The settings: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// An encoder with one lie.
pub struct Liar<const LIE: usize> {
    /// `[1, 4, 3]`.
    weight: Tensor,
}

impl<const LIE: usize> Component for Liar<LIE> {
    type Config = Config;
    const KIND: &'static str = KINDS[LIE];
    const ABOUT: &'static str = "an encoder for the tests of limber plugin check";

    fn tiny() -> Config {
        Config {}
    }
}

/// What all of them say of themselves.
fn specs() -> EncoderSpecs {
    let features = FeatureSpec { tokens: 4, width: 3, kind: FeatureKind::Patches };
    EncoderSpecs { input: InputSpec::Image(ImageSpec::clip(8)), features }
}

impl<const LIE: usize> EncoderComponent for Liar<LIE> {
    fn specs(_: &Config) -> Result<EncoderSpecs> {
        Ok(specs())
    }

    fn new(_: &Config, weights: &Weights) -> Result<Self> {
        limber_sdk::tracing::debug!(kind = Self::KIND, "an encoder is built");
        Ok(Self { weight: weights.tensor("weight", &[1, 4, 3], Init::normal(1.0))? })
    }
}

impl<const LIE: usize> Encoder for Liar<LIE> {
    fn spec(&self) -> EncoderSpecs {
        specs()
    }

    fn encode(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        check_pixels(pixels, &self.input_spec())?;
        let pixels = if LIE == GRAPH { pixels.clone() } else { pixels.detach() };
        let b = pixels.dim(0)?;
        let quarters = pixels.reshape((b, 3, 2, 4, 2, 4))?.mean(5)?.mean(3)?; // [B, 3, 2, 2]
        let means = quarters.flatten_from(2)?.transpose(1, 2)?.contiguous()?; // [B, 4, 3]
        let features = means.broadcast_mul(&self.weight)?;
        match LIE {
            SHAPE => Tensor::cat(&[&features, &features.narrow(1, 0, 1)?], 1),
            DTYPE => features.to_dtype(DType::F64),
            BATCH => features.broadcast_sub(&features.mean_keepdim(0)?),
            NAN => features.broadcast_div(&features.narrow(2, 0, 1)?.affine(0.0, 0.0)?),
            PANIC => panic!("an encoder in panic"),
            ERROR => candle_core::bail!("an encoder that fails"),
            _ => Ok(features),
        }
    }
}
