//! A frozen 2-D convolution with its batch norm folded in: f32, no graph; on the kernels over weights packed at load.

use super::contiguous_f32;
use crate::backend::Backend;
use crate::ops::{Activation, channels_first, channels_last};
use crate::weights::{Init, ONES, WeightError, Weights, ZEROS};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Storage, Tensor};
use limber_kernels::Conv;
use std::sync::Arc;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// y = conv(x, W) + b, over channels-first or channels-last activations.
#[derive(Debug, Clone)]
pub struct FrozenConv {
    weight: Weight,
    n_in: usize,
}

#[derive(Debug, Clone)]
enum Weight {
    /// Packed for the kernel.
    Kernels(Arc<Conv>),
    /// For candle: `[O, I, k, k]` and `[1, O, 1, 1]`.
    Candle { weight: Tensor, bias: Option<Tensor>, stride: usize, padding: usize },
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
    ///
    /// # Errors
    /// A weight with other than four dimensions, a bias of another length, a stride of 0.
    pub fn new(weight: Tensor, bias: Option<Tensor>, stride: usize, padding: usize) -> Result<Self> {
        let backend = Backend::of(weight.device());
        Self::on(weight, bias, stride, padding, backend)
    }

    /// As [`Self::new`], computed by `backend`.
    ///
    /// # Errors
    /// As [`Self::new`]; the kernels on a device that is not the CPU.
    pub fn on(weight: Tensor, bias: Option<Tensor>, stride: usize, padding: usize, backend: Backend) -> Result<Self> {
        Self::scaled(weight, None, bias, [stride, padding], backend)
    }

    /// [`Self::on`] with the outputs' weights multiplied with `scale` `[O]` first.
    fn scaled(
        weight: Tensor,
        scale: Option<Tensor>,
        bias: Option<Tensor>,
        [stride, padding]: [usize; 2],
        backend: Backend,
    ) -> Result<Self> {
        let (o, n_in, height, width) = weight.dims4()?;
        if let Some(bias) = &bias
            && bias.dims() != [o]
        {
            candle_core::bail!("a bias of shape {:?} for a convolution of {o} outputs", bias.dims())
        }
        if backend.is_kernels() {
            let shape = limber_kernels::ConvShape {
                n_in,
                n_out: o,
                kernel: [height, width],
                stride: [stride; 2],
                padding: [padding; 4],
            };
            let list = |t: Option<Tensor>| t.map(|t| t.to_vec1::<f32>()).transpose();
            let (scale, bias) = (list(scale)?, list(bias)?);
            let weight = weight.contiguous()?;
            let (storage, layout) = weight.storage_and_layout();
            let Storage::Cpu(storage) = &*storage else {
                candle_core::bail!("the kernels run on the cpu, not on {:?}", weight.device().location())
            };
            let weight = contiguous_f32("frozen-convolution", storage, layout)?;
            let conv = match &scale {
                Some(scale) => Conv::scaled(shape, weight, scale, bias.as_deref()),
                None => Conv::new(shape, weight, bias.as_deref()),
            };
            let conv = Arc::new(conv.map_err(candle_core::Error::wrap)?);
            return Ok(Self { weight: Weight::Kernels(conv), n_in });
        }
        let weight = match scale {
            Some(scale) => weight.broadcast_mul(&scale.reshape((o, 1, 1, 1))?)?,
            None => weight,
        };
        let bias = bias.map(|b| b.reshape((1, o, 1, 1))).transpose()?.map(|b| b.detach());
        Ok(Self { weight: Weight::Candle { weight: weight.detach(), bias, stride, padding }, n_in })
    }

    /// `conv.weight` followed by the batch norm `norm.{weight, bias, running_mean, running_var}`, folded:
    /// W' = W g / sqrt(var + eps), b' = beta - mean g / sqrt(var + eps), eps = 1e-5. Where the source is random, `init`
    /// draws the filters and `gain` the norm's weight g.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    pub fn with_batch_norm(
        conv: &Weights,
        norm: &Weights,
        shape: ConvShape,
        init: Init,
        gain: Init,
    ) -> Result<Self, WeightError> {
        let ConvShape { n_in, n_out, kernel, stride, padding } = shape;
        let weight = conv.tensor("weight", &[n_out, n_in, kernel, kernel], init)?;
        let gain = norm.tensor("weight", &[n_out], gain)?;
        let shift = norm.tensor("bias", &[n_out], ZEROS)?;
        let mean = norm.tensor("running_mean", &[n_out], ZEROS)?;
        let var = norm.tensor("running_var", &[n_out], ONES)?;
        let fold = || -> Result<Self> {
            let scale = (gain / (var + 1e-5)?.sqrt()?)?; // [O]
            let bias = (shift - (mean * &scale)?)?;
            Self::scaled(weight, Some(scale), Some(bias), [stride, padding], conv.backend())
        };
        fold().map_err(|e| WeightError::Read { source_label: conv.source().label(), message: e.to_string() })
    }

    /// What computes this layer.
    pub fn backend(&self) -> Backend {
        match &self.weight {
            Weight::Kernels(_) => Backend::Kernels,
            Weight::Candle { .. } => Backend::Candle,
        }
    }

    /// x `[B, I, h, w]` f32 to `[B, O, h', w']` f32.
    ///
    /// # Errors
    /// Other channels, an image smaller than the kernel.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Kernels(_) => channels_first(&self.forward_nhwc(&channels_last(x)?, None, None)?),
            Weight::Candle { weight, bias, stride, padding } => {
                let y = x.detach().conv2d(weight, *padding, *stride, 1, 1)?;
                match bias {
                    Some(bias) => y.broadcast_add(bias),
                    None => Ok(y),
                }
            }
        }
    }

    /// The fast way, channels last: x `[B, h, w, I]` f32 to activation(conv(x) + residual) `[B, h', w', O]` f32.
    ///
    /// # Errors
    /// Other channels, an image smaller than the kernel, a residual of another shape than the result's.
    pub fn forward_nhwc(
        &self,
        x: &Tensor,
        activation: Option<Activation>,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let (_, _, _, channels) = x.dims4()?;
        if channels != self.n_in {
            candle_core::bail!("an image {:?} (channels last) for a convolution of {} channels", x.dims(), self.n_in)
        }
        match &self.weight {
            Weight::Kernels(conv) => {
                let op = Forward { conv: conv.clone(), activation };
                let x = x.contiguous()?;
                match residual {
                    Some(residual) => x.apply_op2_no_bwd(&residual.contiguous()?, &op),
                    None => x.apply_op1_no_bwd(&op),
                }
            }
            Weight::Candle { .. } => {
                let mut y = self.forward(&x.permute((0, 3, 1, 2))?.contiguous()?)?.permute((0, 2, 3, 1))?;
                if let Some(residual) = residual {
                    y = (y + residual.detach())?;
                }
                let y = y.contiguous()?;
                activation.map_or(Ok(y.clone()), |activation| activation.apply_on(Backend::Candle, &y))
            }
        }
    }
}

struct Forward {
    conv: Arc<Conv>,
    activation: Option<Activation>,
}

impl Forward {
    fn run(&self, x: &[f32], layout: &Layout, residual: Option<&[f32]>) -> Result<(CpuStorage, Shape)> {
        let (b, h, w, _) = layout.shape().dims4()?;
        let activation = self.activation.map(Activation::kernel);
        let y = self.conv.run(x, [b, h, w], residual, activation).map_err(candle_core::Error::wrap)?;
        let shape = self.conv.shape();
        let (h, w) = shape.output(h, w).unwrap_or_default();
        Ok((CpuStorage::F32(y), Shape::from((b, h, w, shape.n_out))))
    }
}

impl CustomOp1 for Forward {
    fn name(&self) -> &'static str {
        "frozen-convolution"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(contiguous_f32("frozen-convolution", storage, layout)?, layout, None)
    }
}

impl CustomOp2 for Forward {
    fn name(&self) -> &'static str {
        "frozen-convolution"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let residual = contiguous_f32("frozen-convolution", s2, l2)?;
        self.run(contiguous_f32("frozen-convolution", s1, l1)?, l1, Some(residual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{largest, random};

    #[test]
    fn both_layouts_equal_candles_convolution() {
        for (n_in, n_out, kernel, stride, padding) in
            [(3, 20, 7, 2, 3), (20, 17, 3, 1, 1), (9, 33, 1, 1, 0), (4, 5, 2, 2, 0)]
        {
            let weight = (random(&[n_out, n_in, kernel, kernel], 1) * 0.1).unwrap();
            let (bias, x) = (random(&[n_out], 2), random(&[2, n_in, 11, 14], 3));
            let theirs = x.conv2d(&weight, padding, stride, 1, 1).unwrap();
            let theirs = theirs.broadcast_add(&bias.reshape((1, n_out, 1, 1)).unwrap()).unwrap();
            let residual = random(theirs.dims(), 4);
            let expected = (&theirs + &residual).unwrap().silu().unwrap();
            for backend in [Backend::Kernels, Backend::Candle] {
                let ours = FrozenConv::on(weight.clone(), Some(bias.clone()), stride, padding, backend).unwrap();
                // Sums of up to 180 terms of order 0.1 in f32.
                assert!(largest(&ours.forward(&x).unwrap(), &theirs) < 1e-5);
                let (x, residual) = (channels_last(&x).unwrap(), channels_last(&residual).unwrap());
                let y = ours.forward_nhwc(&x, Some(Activation::Silu), Some(&residual)).unwrap();
                assert!(largest(&channels_first(&y).unwrap(), &expected) < 1e-5);
            }
        }
    }

    #[test]
    fn a_batch_norm_is_folded_alike_on_both_backends() {
        let shape = ConvShape { n_in: 3, n_out: 5, kernel: 3, stride: 1, padding: 1 };
        let [ours, candles] = [Backend::Kernels, Backend::Candle].map(|backend| {
            let weights = Weights::random(1).with_backend(backend);
            let spread = Init::Uniform { low: 0.5, high: 1.5 };
            let conv =
                FrozenConv::with_batch_norm(&weights.pp("c"), &weights.pp("n"), shape, Init::normal(0.5), spread);
            let conv = conv.unwrap();
            assert_eq!(conv.backend(), backend);
            conv.forward(&random(&[2, 3, 6, 7], 2)).unwrap()
        });
        // Sums of 27 terms of order 1 in f32.
        assert!(largest(&ours, &candles) < 1e-5);
    }

    #[test]
    fn shapes_that_do_not_fit() {
        let conv = FrozenConv::new(random(&[4, 3, 3, 3], 1), None, 1, 0).unwrap();
        let message = conv.forward_nhwc(&random(&[1, 5, 5, 2], 2), None, None).unwrap_err().to_string();
        assert!(
            message.starts_with("an image [1, 5, 5, 2] (channels last) for a convolution of 3 channels"),
            "{message}"
        );
        let message = conv.forward(&random(&[1, 3, 2, 5], 2)).unwrap_err().to_string();
        assert!(message.contains("side of a convolution's input is 2"), "{message}");
        let message = FrozenConv::new(random(&[4, 3, 3, 3], 1), Some(random(&[3], 1)), 1, 0).unwrap_err().to_string();
        assert!(message.starts_with("a bias of shape [3] for a convolution of 4 outputs"), "{message}");
    }
}
