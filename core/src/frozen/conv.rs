//! A frozen 2-D convolution with its batch norm folded in: f32, no graph.

use crate::weights::{Init, ONES, WeightError, Weights, ZEROS};
use candle_core::Tensor;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// y = conv(x, W) + b; x `[B, I, h, w]` f32 to `[B, O, h', w']` f32.
#[derive(Debug, Clone)]
pub struct FrozenConv {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: usize,
    padding: usize,
}

/// The sizes of a convolution with a square kernel.
#[derive(Debug, Clone, Copy)]
pub struct ConvShape {
    /// Channels in.
    pub n_in: usize,
    /// Channels out.
    pub n_out: usize,
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Zeros on each side.
    pub padding: usize,
}

impl FrozenConv {
    /// A convolution of `weight` `[O, I, k, k]` and `bias` `[O]`.
    pub fn new(weight: Tensor, bias: Option<Tensor>, stride: usize, padding: usize) -> Result<Self> {
        let o = weight.dim(0)?;
        let bias = bias.map(|b| b.reshape((1, o, 1, 1))).transpose()?;
        Ok(Self { weight: weight.detach(), bias: bias.map(|b| b.detach()), stride, padding })
    }

    /// `conv.weight` followed by the batch norm `norm.{weight, bias, running_mean, running_var}`, folded:
    /// W' = W g / sqrt(var + eps), b' = beta - mean g / sqrt(var + eps), eps = 1e-5.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn with_batch_norm(conv: &Weights, norm: &Weights, shape: ConvShape, init: Init) -> Result<Self, WeightError> {
        let ConvShape { n_in, n_out, kernel, stride, padding } = shape;
        let weight = conv.tensor("weight", &[n_out, n_in, kernel, kernel], init)?;
        let gain = norm.tensor("weight", &[n_out], ONES)?;
        let shift = norm.tensor("bias", &[n_out], ZEROS)?;
        let mean = norm.tensor("running_mean", &[n_out], ZEROS)?;
        let var = norm.tensor("running_var", &[n_out], ONES)?;
        let fold = || -> Result<Self> {
            let scale = (gain / (var + 1e-5)?.sqrt()?)?; // [O]
            let weight = weight.broadcast_mul(&scale.reshape((n_out, 1, 1, 1))?)?;
            let bias = (shift - (mean * scale)?)?;
            Self::new(weight, Some(bias), stride, padding)
        };
        fold().map_err(|e| WeightError::Read { source_label: conv.source().label(), message: e.to_string() })
    }

    /// x `[B, I, h, w]` to `[B, O, h', w']`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (o, i, k, _) = self.weight.dims4()?;
        let y = if k == 1 && self.stride == 1 && self.padding == 0 {
            // A 1 x 1 convolution is a matrix product over the channels; im2col would only copy.
            let (b, c, h, w) = x.dims4()?;
            let flat = x.contiguous()?.reshape((b, c, h * w))?;
            let weight = self.weight.reshape((1, o, i))?.broadcast_as((b, o, i))?;
            weight.matmul(&flat)?.reshape((b, o, h, w))?
        } else {
            x.conv2d(&self.weight, self.padding, self.stride, 1, 1)?
        };
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
