//! Softmax over the last dimension, with a backward. A row that is -inf everywhere gives zeros.

use super::kernel_node::{self, Kernel, width};
use crate::backend::Backend;
use candle_core::{D, Result, Shape, Tensor};

/// x `[.., P]` f32 to probabilities `[.., P]` f32.
///
/// # Errors
/// A tensor that is not f32.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    softmax_on(Backend::of(x.device()), x)
}

/// [`softmax`] by a backend.
pub(super) fn softmax_on(backend: Backend, x: &Tensor) -> Result<Tensor> {
    if backend.is_kernels() {
        return kernel_node::apply(x, Softmax);
    }
    let max = x.max_keepdim(D::Minus1)?.detach().maximum(-1e30)?;
    let exp = x.broadcast_sub(&max)?.exp()?;
    let sum = exp.sum_keepdim(D::Minus1)?.maximum(1e-30)?;
    exp.broadcast_div(&sum)
}

/// The backward pass is gx = y (gy - sum(gy y)).
#[derive(Clone)]
struct Softmax;

impl Kernel for Softmax {
    const NAME: &'static str = "softmax";
    const GRADIENT: &'static str = "softmax-gradient";
    const OF_OUTPUT: bool = true;

    fn forward(&self, x: &[f32], shape: &Shape) -> Result<Vec<f32>> {
        let (width, mut y) = (width(shape), vec![0f32; x.len()]);
        limber_kernels::softmax(x, &mut y, x.len() / width, width).map_err(candle_core::Error::wrap)?;
        Ok(y)
    }

    fn input_gradient(&self, y: &[f32], shape: &Shape, gy: &[f32]) -> Result<Vec<f32>> {
        let (width, mut gx) = (width(shape), vec![0f32; y.len()]);
        limber_kernels::softmax_input_grad(y, gy, &mut gx, y.len() / width, width).map_err(candle_core::Error::wrap)?;
        Ok(gx)
    }
}
