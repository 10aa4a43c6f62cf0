//! Skinny GEMM (GEMV for one row): dot products of weight rows with up to sixteen rows of activations.
//!
//! Weights stream from memory once. Several weight rows are taken together, so that one load
//! of the activations serves them all and enough cache misses are under way.

use crate::blocks::DecodedRows;
use crate::gemm::{Target, tiles};
use crate::isa::{Isa, Kernel};
use crate::quant::{Q8_0_BYTES, half_at};
use crate::weight::{BlockFormat, BlockRows, Dense, Element, Q4Format, Q8Format, Source};
use std::mem::MaybeUninit;

/// Bytes ahead of its use that a weight is asked for: measured best on Zen 4, where the
/// hardware alone reads some 8 % slower and farther requests slow it down.
pub(crate) const AHEAD: usize = 256;

/// The same where many rows of activations take their time with each weight.
const AHEAD_MANY: usize = 512;
/// Rows of activations that count as many here.
const MANY: usize = 5;

/// Most rows of activations at once, and how many such groups.
const MOST_X: usize = 8;
const MOST_GROUPS: usize = 6;

/// Rows whose dot products with activations can be taken.
///
/// # Safety
///
/// The rows and columns asked for exist.
pub(crate) trait Dots: Source {
    /// What `block` points into.
    type As: Element;
    /// Most columns that `block` gives at once.
    const STEP: usize;

    /// Columns `k .. k + len` of a row as they lie, or widened into `room` (`STEP` floats), where they are if not `fresh`.
    unsafe fn block<I: Isa>(self, row: usize, k: usize, len: usize, room: *mut f32, fresh: bool) -> *const Self::As;

    /// Products of rows `row, row + step, ..`, `W` of them, with one row of activations.
    unsafe fn single<I: Isa, const W: usize>(self, row: usize, step: usize, x: *const f32, n_in: usize) -> [f32; W];
}

/// Adds the products of the first `len / LANES` whole vectors to `acc`; the activations are [`Interleaved`] of `rows`.
#[inline(always)]
unsafe fn accumulate<I: Isa, T: Element, const W: usize, const X: usize>(
    acc: &mut [[I::V; X]; W],
    w: [*const T; W],
    x: *const f32,
    rows: usize,
    len: usize,
    ahead: usize,
) {
    let mut k = 0;
    while k + I::LANES <= len {
        // SAFETY: the caller's rows have `len` elements.
        unsafe {
            // Weights stay in registers and activations pass by: so W X + W + 1 of them are enough.
            let mut v = [I::splat(0.0); W];
            for (v, w) in v.iter_mut().zip(w) {
                let w = w.add(k);
                if ahead > 0 {
                    I::prefetch(w.cast::<u8>().wrapping_add(ahead));
                }
                *v = T::load::<I>(w);
            }
            for i in 0..X {
                let x = I::load(x.add(k * rows + i * I::LANES));
                for (acc, &v) in acc.iter_mut().zip(&v) {
                    acc[i] = I::fma(v, x, acc[i]);
                }
            }
        }
        k += I::LANES;
    }
}

/// Sums over the lanes. Vector code stays out of closures: only `#[inline(always)]` functions
/// are sure to take on the instruction set of the kernel around them.
#[inline(always)]
unsafe fn sums<I: Isa, const W: usize>(acc: [[I::V; 1]; W]) -> [f32; W] {
    let mut out = [0f32; W];
    for (out, [v]) in out.iter_mut().zip(acc) {
        // SAFETY: no pointers.
        *out = unsafe { I::sum(v) };
    }
    out
}

impl<T: Element> Dots for Dense<T> {
    type As = T;
    const STEP: usize = usize::MAX;

    #[inline(always)]
    unsafe fn block<I: Isa>(self, row: usize, k: usize, _: usize, _: *mut f32, _: bool) -> *const T {
        // SAFETY: the trait's contract.
        unsafe { self.start.add(row * self.stride + k) }
    }

    #[inline(always)]
    unsafe fn single<I: Isa, const W: usize>(self, row: usize, step: usize, x: *const f32, n_in: usize) -> [f32; W] {
        // SAFETY: the trait's contract.
        unsafe {
            let mut w = [self.start; W];
            for (i, w) in w.iter_mut().enumerate() {
                *w = self.start.add((row + i * step) * self.stride);
            }
            let mut acc = [[I::splat(0.0); 1]; W];
            accumulate::<I, T, W, 1>(&mut acc, w, x, 1, n_in, AHEAD);
            let mut out = sums::<I, W>(acc);
            for k in n_in / I::LANES * I::LANES..n_in {
                for (out, w) in out.iter_mut().zip(w) {
                    *out += T::get(w.add(k)) * *x.add(k);
                }
            }
            out
        }
    }
}

/// Blocks whose rows can be multiplied without widening them first, or piece by piece.
///
/// # Safety
///
/// As [`Dots::single`].
trait BlockDots: BlockFormat {
    unsafe fn single<I: Isa, const W: usize>(
        rows: BlockRows<'_, Self>,
        row: usize,
        step: usize,
        x: *const f32,
        n_in: usize,
    ) -> [f32; W];
}

impl<F: BlockDots> Dots for BlockRows<'_, F> {
    type As = f32;
    const STEP: usize = 256;

    #[inline(always)]
    unsafe fn block<I: Isa>(self, row: usize, k: usize, len: usize, room: *mut f32, fresh: bool) -> *const f32 {
        if fresh {
            // SAFETY: the trait's contract.
            unsafe { self.widen::<I>(row, k, len, room) };
        }
        room
    }

    #[inline(always)]
    unsafe fn single<I: Isa, const W: usize>(self, row: usize, step: usize, x: *const f32, n_in: usize) -> [f32; W] {
        // SAFETY: the trait's contract.
        unsafe { F::single::<I, W>(self, row, step, x, n_in) }
    }
}

impl BlockDots for Q8Format {
    #[inline(always)]
    unsafe fn single<I: Isa, const W: usize>(
        rows: BlockRows<'_, Self>,
        row: usize,
        step: usize,
        x: *const f32,
        _: usize,
    ) -> [f32; W] {
        let start = rows.bytes.as_ptr();
        // SAFETY: the trait's contract.
        unsafe {
            let mut acc = [[I::splat(0.0); 1]; W];
            for b in 0..rows.blocks {
                let x = x.add(32 * b);
                for (j, acc) in acc.iter_mut().enumerate() {
                    let block = start.add(((row + j * step) * rows.blocks + b) * Q8_0_BYTES);
                    if b % 2 == 0 {
                        I::prefetch(block.wrapping_add(AHEAD));
                    }
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
            sums::<I, W>(acc)
        }
    }
}

impl BlockDots for Q4Format {
    #[inline(always)]
    unsafe fn single<I: Isa, const W: usize>(
        rows: BlockRows<'_, Self>,
        row: usize,
        step: usize,
        x: *const f32,
        n_in: usize,
    ) -> [f32; W] {
        // SAFETY: the trait's contract.
        unsafe { widened_single::<I, _, W>(rows, row, step, x, n_in) }
    }
}

/// [`Dots::single`] of rows that are widened, 256 columns at a time.
#[inline(always)]
unsafe fn widened_single<I: Isa, S: Source, const W: usize>(
    rows: S,
    row: usize,
    step: usize,
    x: *const f32,
    n_in: usize,
) -> [f32; W] {
    let mut room = [[0f32; 256]; W];
    // SAFETY: the caller's.
    unsafe {
        let mut acc = [[I::splat(0.0); 1]; W];
        for k in (0..n_in).step_by(256) {
            let len = 256.min(n_in - k);
            for (j, room) in room.iter_mut().enumerate() {
                rows.widen::<I>(row + j * step, k, len, room.as_mut_ptr());
            }
            let mut w = [std::ptr::null(); W];
            for (w, room) in w.iter_mut().zip(&room) {
                *w = room.as_ptr();
            }
            accumulate::<I, f32, W, 1>(&mut acc, w, x.add(k), 1, len, 0);
        }
        sums::<I, W>(acc)
    }
}

impl<const N: usize> Dots for DecodedRows<'_, N> {
    type As = f32;
    const STEP: usize = 256;

    #[inline(always)]
    unsafe fn block<I: Isa>(self, row: usize, k: usize, len: usize, room: *mut f32, fresh: bool) -> *const f32 {
        if fresh {
            // SAFETY: the trait's contract.
            unsafe { self.widen::<I>(row, k, len, room) };
        }
        room
    }

    #[inline(always)]
    unsafe fn single<I: Isa, const W: usize>(self, row: usize, step: usize, x: *const f32, n_in: usize) -> [f32; W] {
        // SAFETY: the trait's contract.
        unsafe { widened_single::<I, _, W>(self, row, step, x, n_in) }
    }
}

/// Rows of activations, of all of them the first `LANES` columns, then the next ones: so they are read in one stream, and
/// none drives another one out of the nearest cache.
#[derive(Clone, Copy)]
pub(crate) struct Interleaved {
    pub start: *const f32,
    pub rows: usize,
}

impl Interleaved {
    /// Where column `k` of row `m` goes.
    #[inline(always)]
    pub(crate) fn offset<I: Isa>(rows: usize, m: usize, k: usize) -> usize {
        (k / I::LANES * rows + m) * I::LANES + k % I::LANES
    }

    /// Row `m` from column `k` on.
    #[inline(always)]
    unsafe fn at<I: Isa>(self, m: usize, k: usize) -> *const f32 {
        // SAFETY: the caller's row and column exist.
        unsafe { self.start.add(Self::offset::<I>(self.rows, m, k)) }
    }
}

/// Interleaves rows of `n_in` activations; `to` has room for rows of whole vectors.
pub(crate) struct Interleave<'a> {
    pub x: &'a [f32],
    pub n_in: usize,
    pub to: *mut f32,
}

impl Interleave<'_> {
    /// Floats that any level needs.
    pub(crate) fn room(rows: usize, n_in: usize) -> usize {
        rows * n_in.next_multiple_of(16)
    }
}

impl Kernel for Interleave<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let rows = self.x.len() / self.n_in;
        for (m, row) in self.x.chunks_exact(self.n_in).enumerate() {
            let whole = self.n_in / I::LANES * I::LANES;
            // SAFETY: offsets lie within the room.
            unsafe {
                for k in (0..whole).step_by(I::LANES) {
                    I::store(self.to.add(Interleaved::offset::<I>(rows, m, k)), I::load(row.as_ptr().add(k)));
                }
                for (k, &v) in row.iter().enumerate().skip(whole) {
                    *self.to.add(Interleaved::offset::<I>(rows, m, k)) = v;
                }
            }
        }
    }
}

/// Products of weight rows `from .. to` with all rows of activations.
pub(crate) struct Skinny<D> {
    pub source: D,
    pub x: Interleaved,
    pub n_in: usize,
    pub from: usize,
    pub to: usize,
    pub target: Target,
}

impl<D: Dots> Skinny<D> {
    /// Writes the product of weight row `n` and activations `m`.
    #[inline(always)]
    unsafe fn put(&self, m: usize, n: usize, v: f32) {
        // SAFETY: the target has room, by `Skinny`'s maker.
        unsafe {
            let bias = self.target.bias;
            let bias = if bias.is_null() { 0.0 } else { *bias.add(n) };
            *self.target.c.get().add(m * self.target.stride + n) = v + bias;
        }
    }

    /// Columns `from .. to` of `W` weight rows with `X` rows of activations from `m` on, added to `sums`.
    #[inline(always)]
    unsafe fn micro_kernel<I: Isa, const W: usize, const X: usize>(
        &self,
        sums: &mut [[I::V; MOST_X]; W],
        rows: WeightRows,
        m: usize,
        (from, to): (usize, usize),
        ahead: usize,
    ) {
        // SAFETY: the caller's rows have these columns.
        unsafe {
            let mut acc = [[I::splat(0.0); X]; W];
            for (acc, sums) in acc.iter_mut().zip(&*sums) {
                acc.copy_from_slice(&sums[..X]);
            }
            // Step by step the rows go through their room, while the sums stay in registers.
            for k in (from..to).step_by(D::STEP) {
                let end = to.min(k.saturating_add(D::STEP));
                let mut w = [std::ptr::null(); W];
                for (j, w) in w.iter_mut().enumerate() {
                    let room = rows.room.add(j).cast();
                    *w = self.source.block::<I>(rows.first + j * rows.step, k, end - k, room, rows.fresh);
                }
                accumulate::<I, D::As, W, X>(&mut acc, w, self.x.at::<I>(m, k), self.x.rows, end - k, ahead);
            }
            for (sums, acc) in sums.iter_mut().zip(acc) {
                sums[..X].copy_from_slice(&acc);
            }
        }
    }

    /// `W` weight rows, `step` apart, with up to `MOST_GROUPS` groups of `most` rows of activations from `m0` on.
    #[inline(always)]
    unsafe fn group<I: Isa, const W: usize>(&self, row: usize, step: usize, m0: usize, rows: usize, most: usize) {
        let mut room = MaybeUninit::<[[f32; 256]; W]>::uninit();
        let room = room.as_mut_ptr().cast::<[f32; 256]>();
        // SAFETY: rows and activations lie within their slices, by `Skinny`'s maker.
        unsafe {
            // Zeros where there are rows, for filling all the room would take its time.
            let mut sums = [const { MaybeUninit::uninit() }; MOST_GROUPS];
            let sums = &mut sums[..tiles(rows, most).count()];
            for sums in &mut *sums {
                sums.write([[I::splat(0.0); MOST_X]; W]);
            }
            let sums = sums.assume_init_mut();
            let whole = self.n_in / I::LANES * I::LANES;
            // Where several groups are multiplied with weights that are widened for them, that happens once for all.
            let each = if rows <= most { usize::MAX } else { D::STEP };
            for k in (0..whole).step_by(each) {
                let part = (k, whole.min(k.saturating_add(each)));
                for ((m, end), sums) in tiles(rows, most).zip(&mut *sums) {
                    let weights = WeightRows { first: row, step, room, fresh: m == 0 };
                    let ahead = match D::BLOCK {
                        1 if m == 0 => {
                            if rows < MANY {
                                AHEAD
                            } else {
                                AHEAD_MANY
                            }
                        }
                        _ => 0,
                    };
                    match end - m {
                        1 => self.micro_kernel::<I, W, 1>(sums, weights, m0 + m, part, ahead),
                        2 => self.micro_kernel::<I, W, 2>(sums, weights, m0 + m, part, ahead),
                        3 if I::LANES > 4 && W <= 6 => self.micro_kernel::<I, W, 3>(sums, weights, m0 + m, part, ahead),
                        4 if I::LANES == 16 && W <= 6 => {
                            self.micro_kernel::<I, W, 4>(sums, weights, m0 + m, part, ahead)
                        }
                        5 if I::LANES == 16 && W <= 4 => {
                            self.micro_kernel::<I, W, 5>(sums, weights, m0 + m, part, ahead)
                        }
                        6 if I::LANES == 16 && W <= 4 => {
                            self.micro_kernel::<I, W, 6>(sums, weights, m0 + m, part, ahead)
                        }
                        7 if I::LANES == 16 && W < 4 => {
                            self.micro_kernel::<I, W, 7>(sums, weights, m0 + m, part, ahead)
                        }
                        8 if I::LANES == 16 && W < 4 => {
                            self.micro_kernel::<I, W, 8>(sums, weights, m0 + m, part, ahead)
                        }
                        _ => unreachable!("a group has 1..=most rows"),
                    }
                }
            }
            for ((m, end), sums) in tiles(rows, most).zip(&*sums) {
                for (j, sums) in sums.iter().enumerate() {
                    for i in 0..end - m {
                        let mut v = I::sum(sums[i]);
                        // Only dense rows have an end that fills no vector.
                        if whole < self.n_in {
                            let n = self.n_in - whole;
                            let w = self.source.block::<I>(row + j * step, whole, n, room.cast(), true);
                            let x = self.x.at::<I>(m0 + m + i, whole);
                            for k in 0..n {
                                v += D::As::get(w.add(k)) * *x.add(k);
                            }
                        }
                        self.put(m0 + m + i, row + j * step, v);
                    }
                }
            }
        }
    }
}

/// Weight rows `first, first + step, ..`, with room to widen each; `fresh` ones have not been widened yet.
#[derive(Clone, Copy)]
struct WeightRows {
    first: usize,
    step: usize,
    room: *mut [f32; 256],
    fresh: bool,
}

impl<D: Dots> Kernel for Skinny<D> {
    type Out = ();
    /// Weight rows go as equal runs side by side, then what is left one by one.
    ///
    /// Each run is one stream through memory, and the hardware prefetches within a stream:
    /// the more of them, and the longer, the nearer to the memory's limit.
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        // SAFETY: rows and activations lie within their slices, by `Skinny`'s maker.
        unsafe {
            if self.x.rows == 1 {
                let step = (self.to - self.from) / 8;
                for row in self.from..self.from + step {
                    let out = self.source.single::<I, 8>(row, step, self.x.start, self.n_in);
                    for (j, v) in out.into_iter().enumerate() {
                        self.put(0, row + j * step, v);
                    }
                }
                for row in self.from + 8 * step..self.to {
                    let [v] = self.source.single::<I, 1>(row, 1, self.x.start, self.n_in);
                    self.put(0, row, v);
                }
                return;
            }
            // As many sums as the registers hold beside the operands, and as many weight rows as the activations leave room
            // for: each is a stream, and each weight is widened once for all activations of its group.
            let (most, each) = match (I::LANES, self.x.rows) {
                (16, 2) => (2, 8),
                (16, 3 | 4) => (4, 6),
                (16, 7 | 8 | 13..=16) => (MOST_X, 3),
                (16, _) => (6, 4),
                (8, _) => (3, 4),
                _ => (2, 4),
            };
            let step = (self.to - self.from) / each;
            for m0 in (0..self.x.rows).step_by(most * MOST_GROUPS) {
                let rows = (most * MOST_GROUPS).min(self.x.rows - m0);
                for row in self.from..self.from + step {
                    match each {
                        8 if I::LANES == 16 => self.group::<I, 8>(row, step, m0, rows, most),
                        6 if I::LANES == 16 => self.group::<I, 6>(row, step, m0, rows, most),
                        3 if I::LANES == 16 => self.group::<I, 3>(row, step, m0, rows, most),
                        _ => self.group::<I, 4>(row, step, m0, rows, most),
                    }
                }
                for row in self.from + each * step..self.to {
                    self.group::<I, 1>(row, 1, m0, rows, most);
                }
            }
        }
    }
}
