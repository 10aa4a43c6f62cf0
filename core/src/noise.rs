//! What tests draw and compare.

use crate::weights::{Init, Weights};
use candle_core::Tensor;

/// Normal numbers of a seed.
pub(crate) fn random(shape: &[usize], seed: u64) -> Tensor {
    Weights::random(seed).tensor("x", shape, Init::normal(1.0)).unwrap()
}

/// The largest difference of two tensors of one shape.
pub(crate) fn largest(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}
