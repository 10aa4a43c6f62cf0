//! RMS norm over the last dimension: y = x / sqrt(mean(x^2) + eps) * g (Llama's).

use super::kernel_node::{self, Kernel};
use crate::backend::Backend;
use crate::graph::recomputed;
use crate::weights::{ONES, WeightError, Weights, ZEROS};
use candle_core::{D, Shape, Tensor};
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
            return kernel_node::apply(x, Parameters { backward_only, ..parameters.clone() });
        }
        let (gain, eps) = (self.gain.clone(), self.eps);
        recomputed("rms-norm", x, move |x| {
            let square = x.sqr()?.mean_keepdim(D::Minus1)?;
            x.broadcast_div(&(square + eps)?.sqrt()?)?.broadcast_mul(&gain)
        })
    }
}

impl Kernel for Parameters {
    const NAME: &'static str = "frozen-rms-norm";
    const GRADIENT: &'static str = "frozen-rms-norm-gradient";

    fn forward(&self, x: &[f32], _: &Shape) -> Result<Vec<f32>> {
        let (width, mut y) = (self.gain.len(), vec![0f32; x.len()]);
        limber_kernels::rms_norm(x, &self.gain, self.eps, &mut y, x.len() / width, width)
            .map_err(candle_core::Error::wrap)?;
        Ok(y)
    }

    fn input_gradient(&self, x: &[f32], _: &Shape, gy: &[f32]) -> Result<Vec<f32>> {
        let (width, mut gx) = (self.gain.len(), vec![0f32; x.len()]);
        limber_kernels::rms_norm_input_grad(x, &self.gain, self.eps, gy, &mut gx, x.len() / width, width)
            .map_err(candle_core::Error::wrap)?;
        Ok(gx)
    }

    fn backward_only(&self) -> bool {
        self.backward_only
    }
}
