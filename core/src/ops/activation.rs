//! GELU in its two forms, with backward, over all threads.

use crate::frozen::contiguous_f32;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

/// GELU by the tanh approximation: transformers' `gelu_new`, the original GPT's.
///
/// # Errors
/// A tensor that is not f32.
pub fn gelu_tanh(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { x.contiguous()?.apply_op1(GeluTanh) } else { x.gelu() }
}

/// GELU by the error function: PyTorch's default.
///
/// # Errors
/// A tensor that is not a float tensor.
pub fn gelu_erf(x: &Tensor) -> Result<Tensor> {
    x.gelu_erf()
}

struct GeluTanh;

impl CustomOp1 for GeluTanh {
    fn name(&self) -> &'static str {
        "gelu-tanh"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(self.name(), storage, layout)?;
        let mut y = vec![0f32; x.len()];
        limber_kernels::gelu_new(x, &mut y).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(arg.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &GeluTanhGradient)?))
    }
}

struct GeluTanhGradient;

impl CustomOp2 for GeluTanhGradient {
    fn name(&self) -> &'static str {
        "gelu-tanh-gradient"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(self.name(), s1, l1)?;
        let gy = contiguous_f32(self.name(), s2, l2)?;
        let mut gx = vec![0f32; x.len()];
        limber_kernels::gelu_new_input_grad(x, gy, &mut gx).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(gx), l1.shape().clone()))
    }
}
