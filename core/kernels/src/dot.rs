//! The few-rows regime: dot products of weight rows with up to sixteen rows of activations.
//!
//! Weights stream from memory once. Several weight rows are taken together, so that one load
//! of the activations serves them all and enough cache misses are under way.

use crate::gemm::{Target, tiles};
use crate::isa::{Isa, Kernel};
use crate::quant::{Q8_0_BYTES, half_at};
use crate::weight::{Dense, Element, Q4, Q8, Source};

/// Rows whose dot products with activations can be taken.
///
/// # Safety
///
/// `dots` gives the products of weight rows `row, row + step, ..`, `W` of them, with `X` rows
/// of `n_in` activations that begin `stride` apart; all of them must exist.
pub(crate) trait Dots: Source {
    unsafe fn dots<I: Isa, const W: usize, const X: usize>(
        self,
        row: usize,
        step: usize,
        x: *const f32,
        stride: usize,
        n_in: usize,
    ) -> [[f32; X]; W];
}

/// Adds the products of the first `len / LANES` whole vectors to `acc`.
#[inline(always)]
unsafe fn accumulate<I: Isa, T: Element, const W: usize, const X: usize>(
    acc: &mut [[I::V; X]; W],
    w: [*const T; W],
    x: *const f32,
    stride: usize,
    len: usize,
) {
    let mut k = 0;
    while k + I::LANES <= len {
        // SAFETY: the caller's rows have `len` elements.
        unsafe {
            let mut v = [I::splat(0.0); X];
            for (i, v) in v.iter_mut().enumerate() {
                *v = I::load(x.add(i * stride + k));
            }
            for (acc, w) in acc.iter_mut().zip(w) {
                let w = T::load::<I>(w.add(k));
                for (acc, &v) in acc.iter_mut().zip(&v) {
                    *acc = I::fma(w, v, *acc);
                }
            }
        }
        k += I::LANES;
    }
}

#[inline(always)]
unsafe fn reduce<I: Isa, const W: usize, const X: usize>(acc: [[I::V; X]; W]) -> [[f32; X]; W] {
    // SAFETY: no pointers.
    acc.map(|row| row.map(|v| unsafe { I::sum(v) }))
}

impl<T: Element> Dots for Dense<T> {
    #[inline(always)]
    unsafe fn dots<I: Isa, const W: usize, const X: usize>(
        self,
        row: usize,
        step: usize,
        x: *const f32,
        stride: usize,
        n_in: usize,
    ) -> [[f32; X]; W] {
        // SAFETY: the trait's contract.
        unsafe {
            let w: [*const T; W] = std::array::from_fn(|i| self.start.add((row + i * step) * self.stride));
            let mut acc = [[I::splat(0.0); X]; W];
            accumulate::<I, T, W, X>(&mut acc, w, x, stride, n_in);
            let mut out = reduce::<I, W, X>(acc);
            for k in n_in / I::LANES * I::LANES..n_in {
                for (out, w) in out.iter_mut().zip(w) {
                    let w = T::get(w.add(k));
                    for (i, out) in out.iter_mut().enumerate() {
                        *out += w * *x.add(i * stride + k);
                    }
                }
            }
            out
        }
    }
}

/// Widens a stretch of the rows into the first-level cache, then multiplies that.
#[inline(always)]
unsafe fn widened<S: Source, I: Isa, const W: usize, const X: usize>(
    source: S,
    row: usize,
    step: usize,
    x: *const f32,
    stride: usize,
    n_in: usize,
) -> [[f32; X]; W] {
    const STEP: usize = 256;
    let mut wide = [[0f32; STEP]; W];
    // SAFETY: the caller's rows exist, and quantised rows are whole blocks.
    unsafe {
        let mut acc = [[I::splat(0.0); X]; W];
        for k in (0..n_in).step_by(STEP) {
            let len = STEP.min(n_in - k);
            for (i, wide) in wide.iter_mut().enumerate() {
                source.widen::<I>(row + i * step, k, len, wide.as_mut_ptr());
            }
            let w: [*const f32; W] = std::array::from_fn(|i| wide[i].as_ptr());
            accumulate::<I, f32, W, X>(&mut acc, w, x.add(k), stride, len);
        }
        reduce::<I, W, X>(acc)
    }
}

impl Dots for Q8<'_> {
    #[inline(always)]
    unsafe fn dots<I: Isa, const W: usize, const X: usize>(
        self,
        row: usize,
        step: usize,
        x: *const f32,
        stride: usize,
        n_in: usize,
    ) -> [[f32; X]; W] {
        // SAFETY: the trait's contract.
        unsafe {
            if X > 1 {
                return widened::<Self, I, W, X>(self, row, step, x, stride, n_in);
            }
            let start = self.bytes.as_ptr();
            let mut acc = [[I::splat(0.0); X]; W];
            for b in 0..self.blocks {
                let x = x.add(32 * b);
                for (j, acc) in acc.iter_mut().enumerate() {
                    let block = start.add(((row + j * step) * self.blocks + b) * Q8_0_BYTES);
                    let q = block.add(2).cast::<i8>();
                    let mut sum = I::mul(I::load_i8(q), I::load(x));
                    let mut i = I::LANES;
                    while i < 32 {
                        sum = I::fma(I::load_i8(q.add(i)), I::load(x.add(i)), sum);
                        i += I::LANES;
                    }
                    acc[0] = I::fma(sum, I::splat(half_at::<I>(block)), acc[0]);
                }
            }
            reduce::<I, W, X>(acc)
        }
    }
}

impl Dots for Q4<'_> {
    #[inline(always)]
    unsafe fn dots<I: Isa, const W: usize, const X: usize>(
        self,
        row: usize,
        step: usize,
        x: *const f32,
        stride: usize,
        n_in: usize,
    ) -> [[f32; X]; W] {
        // SAFETY: the trait's contract.
        unsafe { widened::<Self, I, W, X>(self, row, step, x, stride, n_in) }
    }
}

/// Products of weight rows `from .. to` with all rows of activations.
pub(crate) struct Few<D> {
    pub source: D,
    pub x: *const f32,
    pub rows: usize,
    pub n_in: usize,
    pub from: usize,
    pub to: usize,
    pub target: Target,
}

impl<D: Dots> Few<D> {
    #[inline(always)]
    unsafe fn group<I: Isa, const W: usize, const X: usize>(
        &self,
        row: usize,
        step: usize,
        m: usize,
    ) {
        // SAFETY: rows and activations lie within their slices, by `Few`'s maker.
        unsafe {
            let x = self.x.add(m * self.n_in);
            let out = self.source.dots::<I, W, X>(row, step, x, self.n_in, self.n_in);
            for (j, out) in out.iter().enumerate() {
                let n = row + j * step;
                let bias = self.target.bias;
                let bias = if bias.is_null() { 0.0 } else { *bias.add(n) };
                for (i, &v) in out.iter().enumerate() {
                    *self.target.c.get().add((m + i) * self.target.stride + n) = v + bias;
                }
            }
        }
    }

    /// `W` weight rows, `step` apart, with all rows of activations, up to `most` at a time.
    #[inline(always)]
    unsafe fn rows<I: Isa, const W: usize>(&self, row: usize, step: usize, most: usize) {
        for (m, end) in tiles(self.rows, most) {
            // SAFETY: as for `group`.
            unsafe {
                match end - m {
                    1 => self.group::<I, W, 1>(row, step, m),
                    2 => self.group::<I, W, 2>(row, step, m),
                    3 if I::LANES > 4 => self.group::<I, W, 3>(row, step, m),
                    4 if I::LANES == 16 && W < 8 => self.group::<I, W, 4>(row, step, m),
                    5 if I::LANES == 16 && W < 8 => self.group::<I, W, 5>(row, step, m),
                    6 if I::LANES == 16 && W < 8 => self.group::<I, W, 6>(row, step, m),
                    _ => unreachable!("a group has 1..=most rows"),
                }
            }
        }
    }

    /// All weight rows: `W` equal runs of them side by side, then what is left one by one.
    ///
    /// Each run is one stream through memory, and the hardware prefetches within a stream:
    /// the more of them, and the longer, the nearer to the memory's limit.
    #[inline(always)]
    unsafe fn streams<I: Isa, const W: usize>(&self, most: usize) {
        let step = (self.to - self.from) / W;
        // SAFETY: as for `group`.
        unsafe {
            for i in 0..step {
                self.rows::<I, W>(self.from + i, step, most);
            }
            for row in self.from + W * step..self.to {
                self.rows::<I, 1>(row, 1, most);
            }
        }
    }
}

impl<D: Dots> Kernel for Few<D> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        // As many sums as the registers hold beside the operands.
        let (most, most_eight) = match I::LANES {
            16 => (6, 3),
            8 => (3, 1),
            _ => (2, 1),
        };
        // SAFETY: as for `group`.
        unsafe {
            if self.rows <= most_eight {
                self.streams::<I, 8>(most_eight);
            } else {
                self.streams::<I, 4>(most);
            }
        }
    }
}
