//! Rotary position embedding on the first elements of every head; the rest passes through.
//!
//! Sources followed: transformers' `modeling_gptj.py` (interleaved pairs), `modeling_gpt_neox.py` (halves) and, for
//! frequencies that change with the length, `modeling_rope_utils.py` (`dynamic`).

use crate::backend::Backend;
use crate::frozen::{contiguous_f32, take};
use crate::graph::node;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor};
use std::sync::{Arc, Mutex};

/// Which two elements a rotation takes: 2i and 2i + 1 (GPT-J), or i and i + dim / 2 (GPT-NeoX, Llama).
pub use limber_kernels::RotaryStyle;

/// The angles of every position, as cosines and sines that are made when they are first needed.
#[derive(Debug, Clone)]
pub struct Rotary {
    pub(crate) frequencies: Arc<[f32]>,
    style: RotaryStyle,
    pub(crate) positions: usize,
    /// What cosines and sines are multiplied with.
    pub(crate) factor: f32,
    pub(crate) growth: Option<Growth>,
    tables: Arc<Mutex<Arc<Tables>>>,
}

/// Frequencies of rows longer than what the model was trained with.
///
/// As transformers computes them, a step over a cache takes its own length's frequencies and leaves cached keys as
/// they were rotated.
#[derive(Debug, Clone, PartialEq)]
pub enum Growth {
    /// Those of a base that grows with the row's length ("dynamic NTK").
    Base {
        /// Rotated elements of a head, above 2.
        dim: usize,
        /// The base of the trained frequencies.
        base: f64,
        /// How strongly the base grows.
        factor: f64,
        /// Positions up to which the trained frequencies hold.
        trained: usize,
    },
    /// Those of a second list ("longrope").
    Listed {
        /// As many as the trained ones.
        frequencies: Arc<[f32]>,
        /// Positions up to which the trained frequencies hold.
        trained: usize,
    },
}

impl Growth {
    /// Positions up to which the trained frequencies hold.
    pub(crate) fn trained(&self) -> usize {
        match self {
            Self::Base { trained, .. } | Self::Listed { trained, .. } => *trained,
        }
    }

    /// The frequencies of a row of `length` positions.
    pub(crate) fn frequencies(&self, length: usize) -> Vec<f32> {
        match self {
            Self::Base { dim, base, factor, trained } => {
                let scale = factor * length as f64 / *trained as f64 - (factor - 1.0);
                let power = *dim as f64 / (*dim as f64 - 2.0);
                frequencies(*dim, base * scale.powf(power))
            }
            Self::Listed { frequencies, .. } => frequencies.to_vec(),
        }
    }
}

/// base^(-2 i / dim) for i in 0..dim / 2, as transformers computes them in f32; an odd `dim` is rounded up.
pub fn frequencies(dim: usize, base: f64) -> Vec<f32> {
    (0..dim).step_by(2).map(|i| (1.0 / base.powf(i as f64 / dim as f64)) as f32).collect()
}

/// Cosines and sines of some positions, each `[positions, dim / 2]`.
#[derive(Debug, Default)]
struct Tables {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Tables {
    /// Adds the positions of a range.
    fn extend(&mut self, frequencies: &[f32], positions: std::ops::Range<usize>, factor: f32) {
        for position in positions {
            for frequency in frequencies {
                // The angle is rounded to f32 as in PyTorch, its cosine and sine are exact for that angle.
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                self.cos.push(cos as f32 * factor);
                self.sin.push(sin as f32 * factor);
            }
        }
    }
}

impl Rotary {
    /// Angles position * base^(-2 i / dim) for i in 0..dim / 2, for positions below `positions`.
    pub fn new(dim: usize, positions: usize, base: f64, style: RotaryStyle) -> Self {
        Self::from_frequencies(&frequencies(dim, base), positions, style)
    }

    /// Angles `position * frequencies[i]`: for models that scale their frequencies.
    pub fn from_frequencies(frequencies: &[f32], positions: usize, style: RotaryStyle) -> Self {
        let frequencies = frequencies.into();
        Self { frequencies, style, positions, factor: 1.0, growth: None, tables: Arc::default() }
    }

    /// The same with cosines and sines multiplied by `factor`, so that scores are by its square (YaRN).
    pub fn with_factor(self, factor: f64) -> Self {
        Self { factor: factor as f32, tables: Arc::default(), ..self }
    }

    /// The same with other frequencies for rows longer than the model was trained with.
    pub fn with_growth(self, growth: Growth) -> Self {
        Self { growth: Some(growth), ..self }
    }

    /// Elements of a head that are rotated.
    pub fn dim(&self) -> usize {
        2 * self.frequencies.len()
    }

    /// Positions up to which a row's length does not change its frequencies.
    pub fn steady(&self) -> usize {
        self.growth.as_ref().map_or(self.positions, Growth::trained)
    }

    /// x `[B, T, H, head_dim]` f32, whose row b starts at position `past[b]`, rotated by its positions.
    ///
    /// # Errors
    /// A position outside the tables, a head smaller than the rotated part.
    pub fn apply(&self, x: &Tensor, past: &[usize]) -> Result<Tensor> {
        self.apply_rows(x, past, &vec![x.dim(1)?; past.len()])
    }

    /// As [`Self::apply`], where the first `lengths[b]` positions of row b are no padding: frequencies that grow
    /// with a row's length need to know.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_rows(&self, x: &Tensor, past: &[usize], lengths: &[usize]) -> Result<Tensor> {
        self.apply_on(Backend::of(x.device()), x, past, lengths, false)
    }

    /// As [`Self::apply_rows`] by a backend. Where `own` says that nothing else reads x, the kernels rotate it in its own
    /// memory, and x is left without elements.
    pub(crate) fn apply_on(
        &self,
        backend: Backend,
        x: &Tensor,
        past: &[usize],
        lengths: &[usize],
        own: bool,
    ) -> Result<Tensor> {
        let op = self.rotate(x, past, lengths)?;
        if !backend.is_kernels() {
            let back = op.inverted();
            return node("rotary-embedding", x, op.composed(&x.detach())?, move |grad| back.composed(grad));
        }
        let x = x.contiguous()?;
        let elements = if own { Some(take(&x)?) } else { None };
        x.apply_op1(Rotate { elements: Mutex::new(elements), ..op })
    }

    fn rotate(&self, x: &Tensor, past: &[usize], lengths: &[usize]) -> Result<Rotate> {
        let (b, t, _, d) = x.dims4()?;
        let last = past.iter().max().copied().unwrap_or(0) + t;
        if past.len() != b || lengths.len() != b || last > self.positions || d < self.dim() {
            candle_core::bail!(
                "rotary embedding of {} positions and {} elements for input {:?} after {past:?} positions",
                self.positions,
                self.dim(),
                x.dims()
            )
        }
        let (tables, entries) = self.entries(past, lengths, t);
        Ok(Rotate { style: self.style, dim: self.dim(), tables, entries, inverse: false, elements: Mutex::new(None) })
    }

    /// Tables, and the entry of each of the B * T positions in them.
    fn entries(&self, past: &[usize], lengths: &[usize], t: usize) -> (Arc<Tables>, Vec<usize>) {
        if let Some(growth) = &self.growth
            && past.iter().zip(lengths).any(|(past, length)| past + length > growth.trained())
        {
            let mut tables = Tables::default();
            for (past, length) in past.iter().zip(lengths) {
                let grown = (past + length > growth.trained()).then(|| growth.frequencies(past + length));
                tables.extend(grown.as_deref().unwrap_or(&self.frequencies), *past..past + t, self.factor);
            }
            return (Arc::new(tables), (0..past.len() * t).collect());
        }
        let entries: Vec<usize> = past.iter().flat_map(|past| *past..past + t).collect();
        let needed = past.iter().max().map_or(0, |past| past + t);
        (self.tables(needed), entries)
    }

    /// Tables of at least `needed` positions, kept for the next run.
    fn tables(&self, needed: usize) -> Arc<Tables> {
        let mut held = self.tables.lock().unwrap_or_else(|e| e.into_inner());
        let known = held.cos.len() / self.frequencies.len().max(1);
        if known < needed {
            let wanted = needed.next_power_of_two().max(256).min(self.positions);
            let mut longer = Tables { cos: held.cos.clone(), sin: held.sin.clone() };
            longer.extend(&self.frequencies, known..wanted, self.factor);
            *held = Arc::new(longer);
        }
        held.clone()
    }
}

struct Rotate {
    style: RotaryStyle,
    dim: usize,
    tables: Arc<Tables>,
    /// The entry of each of the B * T positions in the tables.
    entries: Vec<usize>,
    inverse: bool,
    /// What is rotated, where the operation has been given it.
    elements: Mutex<Option<Vec<f32>>>,
}

impl Rotate {
    /// The rotation back.
    fn inverted(&self) -> Self {
        let (tables, entries) = (self.tables.clone(), self.entries.clone());
        let (style, dim, inverse) = (self.style, self.dim, !self.inverse);
        Self { style, dim, tables, entries, inverse, elements: Mutex::new(None) }
    }

    /// The same from candle's operations.
    fn composed(&self, x: &Tensor) -> Result<Tensor> {
        let (b, t, h, d) = x.dims4()?;
        let half = self.dim / 2;
        let entries = |table: &[f32], sign: f32| -> Result<Tensor> {
            let rows = self.entries.iter().flat_map(|entry| &table[entry * half..(entry + 1) * half]);
            let rows: Vec<f32> = rows.map(|x| sign * x).collect();
            Tensor::from_vec(rows, (b, t, 1, half), &Device::Cpu)?.to_device(x.device())
        };
        let sign = if self.inverse { -1.0 } else { 1.0 };
        let (cos, sin) = (entries(&self.tables.cos, 1.0)?, entries(&self.tables.sin, sign)?);
        let rotated = x.narrow(3, 0, self.dim)?;
        let (first, second) = match self.style {
            RotaryStyle::Interleaved => {
                let pairs = rotated.contiguous()?.reshape((b, t, h, half, 2))?;
                (pairs.narrow(4, 0, 1)?.squeeze(4)?, pairs.narrow(4, 1, 1)?.squeeze(4)?)
            }
            RotaryStyle::Half => (rotated.narrow(3, 0, half)?, rotated.narrow(3, half, half)?),
        };
        let a = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
        let c = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
        let rotated = match self.style {
            RotaryStyle::Interleaved => Tensor::stack(&[a, c], 4)?.reshape((b, t, h, self.dim))?,
            RotaryStyle::Half => Tensor::cat(&[a, c], 3)?,
        };
        if d == self.dim {
            return Ok(rotated);
        }
        Tensor::cat(&[rotated, x.narrow(3, self.dim, d - self.dim)?], 3)
    }
}

impl CustomOp1 for Rotate {
    fn name(&self) -> &'static str {
        "rotary-embedding"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, _, h, d) = layout.shape().dims4()?;
        let Tables { cos, sin } = self.tables.as_ref();
        let kernel = limber_kernels::Rotary { style: self.style, rotary: self.dim, cos, sin };
        let given = self.elements.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?.take();
        let mut y = match given {
            Some(elements) => elements,
            None => contiguous_f32(self.name(), storage, layout)?.to_vec(),
        };
        let rotate = if self.inverse { limber_kernels::Rotary::invert } else { limber_kernels::Rotary::apply };
        rotate(&kernel, &mut y, &self.entries, h, d).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        // A rotation's transpose is the rotation back, whatever it is multiplied with.
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&self.inverted())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::{largest, random};

    #[test]
    fn the_kernel_equals_the_composed_rotation() {
        let x = random(&[2, 5, 3, 10], 1);
        let growth = Growth::Base { dim: 6, base: 100.0, factor: 2.0, trained: 7 };
        for style in [RotaryStyle::Interleaved, RotaryStyle::Half] {
            for rotary in [
                Rotary::new(6, 400, 10_000.0, style),
                Rotary::new(10, 400, 10_000.0, style).with_factor(1.5),
                Rotary::new(6, 400, 100.0, style).with_growth(growth.clone()),
            ] {
                // The second call needs longer tables than the first made.
                for past in [[0, 4], [300, 1]] {
                    let lengths = [5, 2];
                    let (tables, entries) = rotary.entries(&past, &lengths, 5);
                    let elements = Mutex::new(None);
                    let op = Rotate { style, dim: rotary.dim(), tables, entries, inverse: false, elements };
                    let ours = rotary.apply_rows(&x, &past, &lengths).unwrap();
                    // One product and one sum of numbers of order 1.
                    assert!(largest(&ours, &op.composed(&x).unwrap()) < 1e-6, "{style:?} {past:?}");
                }
            }
        }
    }

    #[test]
    fn growth_begins_behind_the_trained_length_and_row_by_row() {
        let plain = Rotary::new(6, 64, 100.0, RotaryStyle::Half);
        let grown = plain.clone().with_growth(Growth::Base { dim: 6, base: 100.0, factor: 2.0, trained: 8 });
        let x = random(&[2, 8, 1, 6], 1);
        let apply = |rotary: &Rotary, past: &[usize], lengths: &[usize]| rotary.apply_rows(&x, past, lengths).unwrap();
        assert_eq!(largest(&apply(&plain, &[0, 0], &[8, 8]), &apply(&grown, &[0, 0], &[8, 8])), 0.0);
        assert_eq!((plain.steady(), grown.steady()), (64, 8));
        // Row 0 reaches position 10, row 1 is padding behind position 7.
        let (a, b) = (apply(&plain, &[2, 5], &[8, 2]), apply(&grown, &[2, 5], &[8, 2]));
        assert!(largest(&a.get(0).unwrap(), &b.get(0).unwrap()) > 1e-2);
        assert_eq!(largest(&a.get(1).unwrap(), &b.get(1).unwrap()), 0.0);
    }

    #[test]
    fn positions_beyond_the_tables_are_an_error() {
        let rotary = Rotary::new(6, 8, 100.0, RotaryStyle::Half);
        let message = rotary.apply(&random(&[1, 5, 1, 6], 1), &[4]).unwrap_err().to_string();
        assert!(message.starts_with("rotary embedding of 8 positions and 6 elements"), "{message}");
        assert!(rotary.apply(&random(&[1, 5, 1, 4], 1), &[0]).is_err());
        assert!(rotary.apply(&random(&[2, 5, 1, 6], 1), &[0]).is_err());
    }
}
