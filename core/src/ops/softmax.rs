//! Softmax over the last dimension, with a backward. A row that is -inf everywhere gives zeros.

use crate::backend::Backend;
use crate::frozen::contiguous_f32;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};

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
        return x.contiguous()?.apply_op1(Forward);
    }
    let max = x.max_keepdim(D::Minus1)?.detach().maximum(-1e30)?;
    let exp = x.broadcast_sub(&max)?.exp()?;
    let sum = exp.sum_keepdim(D::Minus1)?.maximum(1e-30)?;
    exp.broadcast_div(&sum)
}

struct Forward;

impl CustomOp1 for Forward {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(self.name(), storage, layout)?;
        let width = layout.dims().last().copied().unwrap_or(1).max(1);
        let mut y = vec![0f32; x.len()];
        limber_kernels::softmax(x, &mut y, x.len() / width, width).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(res.apply_op2_no_bwd(&grad.contiguous()?, &Backward)?))
    }
}

/// gx = y (gy - sum(gy y)).
struct Backward;

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "softmax-gradient"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = contiguous_f32(self.name(), s1, l1)?;
        let gy = contiguous_f32(self.name(), s2, l2)?;
        let width = l1.dims().last().copied().unwrap_or(1).max(1);
        let mut gx = vec![0f32; y.len()];
        limber_kernels::softmax_input_grad(y, gy, &mut gx, y.len() / width, width).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(gx), l1.shape().clone()))
    }
}
