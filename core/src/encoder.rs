//! The `Encoder` contract: pixels in, visual tokens out.

use crate::registry::EncoderSpecs;
use crate::spec::{FeatureSpec, ImageSpec, InputSpec};
use candle_core::{Result, Tensor};

/// A frozen image encoder.
///
/// The same image gives the same features whatever else is in the batch, and the features carry no graph.
pub trait Encoder: Send + Sync {
    /// What this encoder takes and gives.
    fn spec(&self) -> EncoderSpecs;

    /// What this encoder takes: pixels, or features from a file.
    fn input_spec(&self) -> InputSpec {
        self.spec().input
    }

    /// The features this encoder gives.
    fn feature_spec(&self) -> FeatureSpec {
        self.spec().features
    }

    /// Pixels `[B, 3, S, S]` f32 (or features `[B, N, E]` f32, as [`Self::input_spec`] says) to features
    /// `[B, N, E]` f32, with no graph attached.
    fn encode(&self, input: &Tensor) -> Result<Tensor>;
}

/// Checks pixels against the spec: `[B, 3, S, S]` f32 with B at least 1.
///
/// # Errors
/// Names the shape given and the shape expected.
pub fn check_pixels(pixels: &Tensor, spec: &InputSpec) -> Result<()> {
    let InputSpec::Image(ImageSpec { side: s, .. }) = *spec else {
        candle_core::bail!("pixels were given to an encoder that takes features")
    };
    match pixels.dims() {
        [b, 3, h, w] if *b > 0 && *h == s && *w == s => Ok(()),
        other => candle_core::bail!("pixels have shape {other:?}, expected [B, 3, {s}, {s}]"),
    }
}
