//! Rotary position embedding on the first `dim` elements of every head; the rest passes through.
//!
//! Sources followed: transformers' `modeling_gptj.py` (interleaved pairs) and `modeling_gpt_neox.py` (halves).

use crate::frozen::contiguous_f32;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// Which two elements a rotation turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RotaryStyle {
    /// Elements 2i and 2i + 1 (GPT-J).
    Interleaved,
    /// Elements i and i + dim / 2 (GPT-NeoX, Llama).
    Halves,
}

/// Tables of cosines and sines for every position.
#[derive(Debug, Clone)]
pub struct Rotary {
    dim: usize,
    style: RotaryStyle,
    positions: usize,
    /// `[positions, dim / 2, 2]`: cosine and sine.
    table: Arc<[(f32, f32)]>,
}

impl Rotary {
    /// Angles position * base^(-2 i / dim) for i in 0..dim / 2, as transformers computes them in f32.
    pub fn new(dim: usize, positions: usize, base: f64, style: RotaryStyle) -> Self {
        let inverse: Vec<f32> = (0..dim / 2).map(|i| (1.0 / base.powf((2 * i) as f64 / dim as f64)) as f32).collect();
        Self::from_frequencies(&inverse, positions, style)
    }

    /// Angles position * frequencies[i]: for models that scale their frequencies.
    pub fn from_frequencies(frequencies: &[f32], positions: usize, style: RotaryStyle) -> Self {
        let table = (0..positions)
            .flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * f)))
            .map(|angle| (angle.cos() as f32, angle.sin() as f32))
            .collect();
        Self { dim: 2 * frequencies.len(), style, positions, table }
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
            for (c, s) in &self.table[start * half..(start + t) * half] {
                cos.push(*c);
                sin.push(*s);
            }
        }
        let put = |v: Vec<f32>| Tensor::from_vec(v, (b, t, 1, half), &Device::Cpu)?.to_device(x.device());
        let (cos, sin) = (put(cos)?, put(sin)?);
        let turned = x.narrow(3, 0, self.dim)?;
        let (first, second) = match self.style {
            RotaryStyle::Interleaved => {
                let pairs = turned.contiguous()?.reshape((b, t, h, half, 2))?;
                (pairs.narrow(4, 0, 1)?.squeeze(4)?, pairs.narrow(4, 1, 1)?.squeeze(4)?)
            }
            RotaryStyle::Halves => (turned.narrow(3, 0, half)?, turned.narrow(3, half, half)?),
        };
        let a = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
        let c = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
        let turned = match self.style {
            RotaryStyle::Interleaved => Tensor::stack(&[a, c], 4)?.reshape((b, t, h, self.dim))?,
            RotaryStyle::Halves => Tensor::cat(&[a, c], 3)?,
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
        let Rotary { dim, style, table, .. } = &self.rotary;
        let half = dim / 2;
        let sign = if self.inverse { -1.0 } else { 1.0 };
        let mut y = x.to_vec();
        // One chunk holds the heads of one token.
        y.par_chunks_mut(h * d).enumerate().for_each(|(token, heads)| {
            let position = self.past[token / t] + token % t;
            let angles = &table[position * half..(position + 1) * half];
            for head in heads.chunks_mut(d) {
                for (i, (cos, sin)) in angles.iter().enumerate() {
                    let (a, b) = match style {
                        RotaryStyle::Interleaved => (2 * i, 2 * i + 1),
                        RotaryStyle::Halves => (i, i + half),
                    };
                    let (first, second, sin) = (head[a], head[b], sin * sign);
                    head[a] = first * cos - second * sin;
                    head[b] = second * cos + first * sin;
                }
            }
        });
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        // A rotation's transpose is the rotation back.
        let op = Rotate { rotary: self.rotary.clone(), past: self.past.clone(), inverse: !self.inverse };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&op)?))
    }
}
