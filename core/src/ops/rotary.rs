//! Rotary position embedding on the first `dim` elements of every head; the rest passes through.
//!
//! Sources followed: transformers' `modeling_gptj.py` (interleaved pairs) and `modeling_gpt_neox.py` (halves).

use crate::frozen::contiguous_f32;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use std::sync::Arc;

/// Which two elements a rotation turns: 2i and 2i + 1 (GPT-J), or i and i + dim / 2 (GPT-NeoX, Llama).
pub use limber_kernels::RotaryStyle;

/// Tables of cosines and sines for every position.
#[derive(Debug, Clone)]
pub struct Rotary {
    dim: usize,
    style: RotaryStyle,
    positions: usize,
    /// Cosines and sines, each `[positions, dim / 2]`.
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
}

impl Rotary {
    /// Angles position * base^(-2 i / dim) for i in 0..dim / 2, as transformers computes them in f32.
    pub fn new(dim: usize, positions: usize, base: f64, style: RotaryStyle) -> Self {
        let inverse: Vec<f32> = (0..dim / 2).map(|i| (1.0 / base.powf((2 * i) as f64 / dim as f64)) as f32).collect();
        Self::from_frequencies(&inverse, positions, style)
    }

    /// Angles `position * frequencies[i]`: for models that scale their frequencies.
    pub fn from_frequencies(frequencies: &[f32], positions: usize, style: RotaryStyle) -> Self {
        // The angle is rounded to f32 as in PyTorch, its cosine and sine are exact for that angle.
        let angles: Vec<f64> =
            (0..positions).flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * f))).collect();
        let cos = angles.iter().map(|angle| angle.cos() as f32).collect();
        let sin = angles.iter().map(|angle| angle.sin() as f32).collect();
        Self { dim: 2 * frequencies.len(), style, positions, cos, sin }
    }

    /// x `[B, T, H, head_dim]` f32, whose row b starts at position `past[b]`, turned by its positions.
    ///
    /// # Errors
    /// A position outside the tables, a head smaller than the rotated part.
    pub fn apply(&self, x: &Tensor, past: &[usize]) -> Result<Tensor> {
        let (b, t, h, d) = x.dims4()?;
        let last = past.iter().max().copied().unwrap_or(0) + t;
        if past.len() != b || last > self.positions || d < self.dim {
            candle_core::bail!(
                "rotary embedding of {} positions and {} elements for input {:?} after {past:?} positions",
                self.positions,
                self.dim,
                x.dims()
            )
        }
        if x.device().is_cpu() {
            let op = Rotate { rotary: self.clone(), past: past.to_vec(), inverse: false };
            return x.contiguous()?.apply_op1(op);
        }
        self.composed(x, past, (b, t, h, d))
    }

    /// The same from candle's operations.
    fn composed(&self, x: &Tensor, past: &[usize], dims: (usize, usize, usize, usize)) -> Result<Tensor> {
        let (b, t, h, d) = dims;
        let half = self.dim / 2;
        let (mut cos, mut sin) = (Vec::with_capacity(b * t * half), Vec::with_capacity(b * t * half));
        for start in past {
            cos.extend_from_slice(&self.cos[start * half..(start + t) * half]);
            sin.extend_from_slice(&self.sin[start * half..(start + t) * half]);
        }
        let put = |v: Vec<f32>| Tensor::from_vec(v, (b, t, 1, half), &Device::Cpu)?.to_device(x.device());
        let (cos, sin) = (put(cos)?, put(sin)?);
        let turned = x.narrow(3, 0, self.dim)?;
        let (first, second) = match self.style {
            RotaryStyle::Interleaved => {
                let pairs = turned.contiguous()?.reshape((b, t, h, half, 2))?;
                (pairs.narrow(4, 0, 1)?.squeeze(4)?, pairs.narrow(4, 1, 1)?.squeeze(4)?)
            }
            RotaryStyle::Half => (turned.narrow(3, 0, half)?, turned.narrow(3, half, half)?),
        };
        let a = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
        let c = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
        let turned = match self.style {
            RotaryStyle::Interleaved => Tensor::stack(&[a, c], 4)?.reshape((b, t, h, self.dim))?,
            RotaryStyle::Half => Tensor::cat(&[a, c], 3)?,
        };
        if d == self.dim {
            return Ok(turned);
        }
        Tensor::cat(&[turned, x.narrow(3, self.dim, d - self.dim)?], 3)
    }
}

struct Rotate {
    rotary: Rotary,
    past: Vec<usize>,
    inverse: bool,
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rotary-embedding"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(self.name(), storage, layout)?;
        let (_, t, h, d) = layout.shape().dims4()?;
        let positions: Vec<usize> = self.past.iter().flat_map(|past| *past..*past + t).collect();
        let Rotary { dim, style, cos, sin, .. } = &self.rotary;
        let kernel = limber_kernels::Rotary { style: *style, rotary: *dim, cos, sin };
        let mut y = x.to_vec();
        if self.inverse { kernel.invert(&mut y, &positions, h, d) } else { kernel.apply(&mut y, &positions, h, d) }
            .map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        // A rotation's transpose is the rotation back.
        let op = Rotate { rotary: self.rotary.clone(), past: self.past.clone(), inverse: !self.inverse };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&op)?))
    }
}
