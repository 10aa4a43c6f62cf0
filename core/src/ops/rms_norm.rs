//! RMS norm over the last dimension: y = x / sqrt(mean(x^2) + eps) * g (Llama's).

use crate::backend::Backend;
use crate::frozen::contiguous_f32;
use crate::graph::recomputed;
use crate::weights::{ONES, WeightError, Weights, ZEROS};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Shape, Tensor};
use std::sync::Arc;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// A frozen RMS norm: `[.., D]` f32 to `[.., D]` f32, with the input's gradient.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    gain: Tensor,
    kernel: Option<Parameters>,
    eps: f64,
}

#[derive(Debug, Clone)]
struct Parameters {
    gain: Arc<[f32]>,
    eps: f32,
    /// Whether nothing reads the value, which is left at zeros.
    backward_only: bool,
}

impl RmsNorm {
    /// A norm of `gain` `[D]` f32.
    ///
    /// # Errors
    /// A gain that is no f32 vector.
    pub fn new(gain: Tensor, eps: f64) -> Result<Self> {
        let backend = Backend::of(gain.device());
        Self::on(gain, eps, backend)
    }

    /// As [`Self::new`], computed by `backend`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn on(gain: Tensor, eps: f64, backend: Backend) -> Result<Self> {
        let kernel = if backend.is_kernels() {
            Some(Parameters { gain: gain.to_vec1::<f32>()?.into(), eps: eps as f32, backward_only: false })
        } else {
            None
        };
        Ok(Self { gain: gain.detach(), kernel, eps })
    }

    /// `weight` `[width]` under `weights`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn load(weights: &Weights, width: usize, eps: f64) -> Result<Self, WeightError> {
        let gain = weights.tensor("weight", &[width], ONES)?;
        Self::on(gain, eps, weights.backend()).map_err(|e| weights.failure(e))
    }

    /// As [`Self::load`], of a gain that is stored less 1: Gemma's.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_less_one(weights: &Weights, width: usize, eps: f64) -> Result<Self, WeightError> {
        let gain = weights.tensor("weight", &[width], ZEROS)?;
        (gain + 1.0).and_then(|gain| Self::on(gain, eps, weights.backend())).map_err(|e| weights.failure(e))
    }

    /// x `[.., D]` f32 to `[.., D]` f32.
    ///
    /// # Errors
    /// Another last dimension.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, false)
    }

    /// [`Self::forward`] as a backward-only node of the kernels: nothing reads its value.
    pub(crate) fn backward_only(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, true)
    }

    fn run(&self, x: &Tensor, backward_only: bool) -> Result<Tensor> {
        let width = self.gain.dim(0)?;
        if x.dims().last() != Some(&width) {
            candle_core::bail!("input of shape {:?} for an RMS norm of width {width}", x.dims())
        }
        if let Some(parameters) = &self.kernel {
            return x.contiguous()?.apply_op1(Parameters { backward_only, ..parameters.clone() });
        }
        let (gain, eps) = (self.gain.clone(), self.eps);
        recomputed("rms-norm", x, move |x| {
            let square = x.sqr()?.mean_keepdim(D::Minus1)?;
            x.broadcast_div(&(square + eps)?.sqrt()?)?.broadcast_mul(&gain)
        })
    }
}

impl CustomOp1 for Parameters {
    fn name(&self) -> &'static str {
        "frozen-rms-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        if self.backward_only {
            return Ok((CpuStorage::F32(vec![0f32; layout.shape().elem_count()]), layout.shape().clone()));
        }
        let x = contiguous_f32(self.name(), storage, layout)?;
        let width = self.gain.len();
        let mut y = vec![0f32; x.len()];
        limber_kernels::rms_norm(x, &self.gain, self.eps, &mut y, x.len() / width, width)
            .map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let op = Backward(self.clone());
        Ok(Some(arg.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &op)?))
    }
}

/// The gradient of the input.
struct Backward(Parameters);

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "frozen-rms-norm-gradient"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(self.name(), s1, l1)?;
        let gy = contiguous_f32(self.name(), s2, l2)?;
        let Parameters { gain, eps, .. } = &self.0;
        let mut gx = vec![0f32; x.len()];
        limber_kernels::rms_norm_input_grad(x, gain, *eps, gy, &mut gx, x.len() / gain.len(), gain.len())
            .map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(gx), l1.shape().clone()))
    }
}
