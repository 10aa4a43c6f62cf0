//! Layer norm over the last dimension: y = (x - mean) / sqrt(var + eps) * g + b, var biased (PyTorch's).

use crate::frozen::contiguous_f32;
use crate::weights::{ONES, WeightError, Weights, ZEROS};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, DType, Device, Layout, Shape, Tensor};
use std::sync::Arc;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// A frozen layer norm: `[.., D]` f32 to `[.., D]` f32, with the input's gradient.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    gain: Tensor,
    shift: Tensor,
    cpu: Option<Parameters>,
    eps: f64,
}

#[derive(Debug, Clone)]
struct Parameters {
    gain: Arc<[f32]>,
    shift: Arc<[f32]>,
    eps: f32,
}

impl LayerNorm {
    /// A norm of `gain` and `shift`, both `[D]` f32.
    ///
    /// # Errors
    /// Parameters that are not f32 vectors.
    pub fn new(gain: Tensor, shift: Tensor, eps: f64) -> Result<Self> {
        let cpu = if gain.device().is_cpu() {
            Some(Parameters {
                gain: gain.to_vec1::<f32>()?.into(),
                shift: shift.to_vec1::<f32>()?.into(),
                eps: eps as f32,
            })
        } else {
            None
        };
        Ok(Self { gain: gain.detach(), shift: shift.detach(), cpu, eps })
    }

    /// `weight` and `bias` `[width]` under `weights`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn load(weights: &Weights, width: usize, eps: f64) -> Result<Self, WeightError> {
        let gain = weights.tensor("weight", &[width], ONES)?;
        let shift = weights.tensor("bias", &[width], ZEROS)?;
        Self::new(gain, shift, eps)
            .map_err(|e| WeightError::Read { source_label: weights.source().label(), message: e.to_string() })
    }

    /// A norm without parameters of its own.
    ///
    /// # Errors
    /// A device that is out of memory.
    pub fn plain(width: usize, eps: f64, device: &Device) -> Result<Self> {
        Self::new(Tensor::ones(width, DType::F32, device)?, Tensor::zeros(width, DType::F32, device)?, eps)
    }

    /// x `[.., D]` f32 to `[.., D]` f32.
    ///
    /// # Errors
    /// Another last dimension.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let width = self.gain.dim(0)?;
        if x.dims().last() != Some(&width) {
            candle_core::bail!("input of shape {:?} for a layer norm of width {width}", x.dims())
        }
        match &self.cpu {
            Some(parameters) => x.contiguous()?.apply_op1(parameters.clone()),
            None => layer_norm_trainable(x, &self.gain, &self.shift, self.eps),
        }
    }
}

impl LayerNorm {
    /// [`Self::forward`] where the value has no part in what is asked for: on the CPU it is left out.
    pub(crate) fn without_value(&self, x: &Tensor) -> Result<Tensor> {
        match &self.cpu {
            Some(parameters) if x.dims().last() == Some(&parameters.gain.len()) => {
                x.contiguous()?.apply_op1(WithoutValue(parameters.clone()))
            }
            _ => self.forward(x),
        }
    }
}

struct WithoutValue(Parameters);

impl CustomOp1 for WithoutValue {
    fn name(&self) -> &'static str {
        "frozen-layer-norm-without-value"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(Vec::new()), layout.shape().clone()))
    }

    fn bwd(&self, arg: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        self.0.bwd(arg, res, grad)
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

impl CustomOp1 for Parameters {
    fn name(&self) -> &'static str {
        "frozen-layer-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(self.name(), storage, layout)?;
        let width = self.gain.len();
        let mut y = vec![0f32; x.len()];
        limber_kernels::layer_norm(x, &self.gain, Some(&self.shift), self.eps, &mut y, x.len() / width, width)
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
        "frozen-layer-norm-gradient"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(self.name(), s1, l1)?;
        let gy = contiguous_f32(self.name(), s2, l2)?;
        let Parameters { gain, eps, .. } = &self.0;
        let mut gx = vec![0f32; x.len()];
        limber_kernels::layer_norm_input_grad(x, gain, *eps, gy, &mut gx, x.len() / gain.len(), gain.len())
            .map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(gx), l1.shape().clone()))
    }
}
