//! The norms of decoder blocks behind one face.

use super::{LayerNorm, RmsNorm};
use crate::weights::{WeightError, Weights};
use candle_core::Tensor;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// The kinds of norms, and what of them is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Layer norm with `weight` and `bias`.
    Layer,
    /// Layer norm with `weight` alone.
    LayerUnbiased,
    /// Layer norm without parameters.
    LayerPlain,
    /// RMS norm with `weight`.
    Rms,
    /// RMS norm whose gain is 1 + `weight`: Gemma's.
    RmsLessOne,
}

/// A frozen norm over the last dimension: `[.., D]` f32 to `[.., D]` f32, with the input's gradient.
#[derive(Debug, Clone)]
pub enum Norm {
    /// y = (x - mean) / sqrt(var + eps) * g + b.
    Layer(LayerNorm),
    /// y = x / sqrt(mean(x^2) + eps) * g.
    Rms(RmsNorm),
}

impl Norm {
    /// The norm of `width` elements that stands under `weights`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn load(kind: NormKind, weights: &Weights, width: usize, eps: f64) -> Result<Self, WeightError> {
        Ok(match kind {
            NormKind::Layer => Self::Layer(LayerNorm::load(weights, width, eps)?),
            NormKind::LayerUnbiased => Self::Layer(LayerNorm::load_with(weights, width, eps, false)?),
            NormKind::LayerPlain => {
                let norm = LayerNorm::plain_on(width, eps, weights.device(), weights.backend());
                Self::Layer(norm.map_err(|e| weights.failure(e))?)
            }
            NormKind::Rms => Self::Rms(RmsNorm::load(weights, width, eps)?),
            NormKind::RmsLessOne => Self::Rms(RmsNorm::load_less_one(weights, width, eps)?),
        })
    }

    /// x `[.., D]` f32 to `[.., D]` f32.
    ///
    /// # Errors
    /// Another last dimension.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Layer(norm) => norm.forward(x),
            Self::Rms(norm) => norm.forward(x),
        }
    }

    /// [`Self::forward`] as a backward-only node of the kernels: nothing reads its value.
    pub(crate) fn backward_only(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Layer(norm) => norm.backward_only(x),
            Self::Rms(norm) => norm.backward_only(x),
        }
    }
}
