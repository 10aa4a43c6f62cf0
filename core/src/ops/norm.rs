//! Layer norm over the last dimension: y = (x - mean) / sqrt(var + eps) * g + b, var biased (PyTorch's).

use super::kernel_node::{self, Kernel};
use crate::backend::Backend;
use crate::graph::recomputed;
use crate::weights::{ONES, WeightError, Weights, ZEROS};
use candle_core::{D, DType, Device, Shape, Tensor};
use std::sync::Arc;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// A frozen layer norm: `[.., D]` f32 to `[.., D]` f32, with the input's gradient.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    gain: Tensor,
    shift: Tensor,
    kernel: Option<Parameters>,
    eps: f64,
}

#[derive(Debug, Clone)]
struct Parameters {
    gain: Arc<[f32]>,
    shift: Arc<[f32]>,
    eps: f32,
    /// Whether nothing reads the value, which is left at zeros.
    backward_only: bool,
}

impl LayerNorm {
    /// A norm of `gain` and `shift`, both `[D]` f32.
    ///
    /// # Errors
    /// Parameters that are not f32 vectors.
    pub fn new(gain: Tensor, shift: Tensor, eps: f64) -> Result<Self> {
        let backend = Backend::of(gain.device());
        Self::on(gain, shift, eps, backend)
    }

    /// As [`Self::new`], computed by `backend`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn on(gain: Tensor, shift: Tensor, eps: f64, backend: Backend) -> Result<Self> {
        let kernel = if backend.is_kernels() {
            Some(Parameters {
                gain: gain.to_vec1::<f32>()?.into(),
                shift: shift.to_vec1::<f32>()?.into(),
                eps: eps as f32,
                backward_only: false,
            })
        } else {
            None
        };
        Ok(Self { gain: gain.detach(), shift: shift.detach(), kernel, eps })
    }

    /// `weight` and `bias` `[width]` under `weights`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn load(weights: &Weights, width: usize, eps: f64) -> Result<Self, WeightError> {
        Self::load_with(weights, width, eps, true)
    }

    /// As [`Self::load`], without a `bias` where `biased` says so.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(weights: &Weights, width: usize, eps: f64, biased: bool) -> Result<Self, WeightError> {
        let gain = weights.tensor("weight", &[width], ONES)?;
        let shift = match biased {
            true => weights.tensor("bias", &[width], ZEROS)?,
            false => gain.zeros_like().map_err(|e| weights.failure(e))?,
        };
        Self::on(gain, shift, eps, weights.backend()).map_err(|e| weights.failure(e))
    }

    /// A norm without parameters of its own.
    ///
    /// # Errors
    /// A device that is out of memory.
    pub fn plain(width: usize, eps: f64, device: &Device) -> Result<Self> {
        Self::plain_on(width, eps, device, Backend::of(device))
    }

    /// As [`Self::plain`], computed by `backend`.
    ///
    /// # Errors
    /// As [`Self::plain`].
    pub fn plain_on(width: usize, eps: f64, device: &Device, backend: Backend) -> Result<Self> {
        Self::on(Tensor::ones(width, DType::F32, device)?, Tensor::zeros(width, DType::F32, device)?, eps, backend)
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
            candle_core::bail!("input of shape {:?} for a layer norm of width {width}", x.dims())
        }
        if let Some(parameters) = &self.kernel {
            return kernel_node::apply(x, Parameters { backward_only, ..parameters.clone() });
        }
        let (gain, shift, eps) = (self.gain.clone(), self.shift.clone(), self.eps);
        recomputed("layer-norm", x, move |x| layer_norm_trainable(x, &gain, &shift, eps))
    }
}

/// The same norm composed of candle's operations, so that gradients reach `gain` and `shift` as well.
///
/// # Errors
/// Shapes that do not fit.
pub fn layer_norm_trainable(x: &Tensor, gain: &Tensor, shift: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    normed.broadcast_mul(gain)?.broadcast_add(shift)
}

impl Kernel for Parameters {
    const NAME: &'static str = "frozen-layer-norm";
    const GRADIENT: &'static str = "frozen-layer-norm-gradient";

    fn forward(&self, x: &[f32], _: &Shape) -> Result<Vec<f32>> {
        let (width, mut y) = (self.gain.len(), vec![0f32; x.len()]);
        limber_kernels::layer_norm(x, &self.gain, Some(&self.shift), self.eps, &mut y, x.len() / width, width)
            .map_err(candle_core::Error::wrap)?;
        Ok(y)
    }

    fn input_gradient(&self, x: &[f32], _: &Shape, gy: &[f32]) -> Result<Vec<f32>> {
        let (width, mut gx) = (self.gain.len(), vec![0f32; x.len()]);
        limber_kernels::layer_norm_input_grad(x, &self.gain, self.eps, gy, &mut gx, x.len() / width, width)
            .map_err(candle_core::Error::wrap)?;
        Ok(gx)
    }

    fn backward_only(&self) -> bool {
        self.backward_only
    }
}
