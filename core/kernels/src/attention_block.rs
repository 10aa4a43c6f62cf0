//! One head and one block of queries of [`Attention`]: scores, softmax, mixture of values.

use crate::attention::{Attention, ScoreBias, Values};
use crate::dot::{Interleave, Interleaved, Skinny};
use crate::elementwise::softmax_row;
use crate::gemm::{Block, ByColumn, ByRow, Columns, Filled, PANEL_FLOATS, Target, pack_row, packed_floats};
use crate::isa::{Isa, Kernel, dispatch};
use crate::math::map;
use crate::parallel::Shared;
use crate::scratch::Scratch;
use crate::soft_cap::Cap;
use crate::weight::{Dense, Element, PrefetchRegion};

/// Most queries of a block for which keys and values are read where they lie.
const FEW_QUERIES: usize = 4;

/// Bytes ahead of its use that a value is asked for.
const AHEAD: usize = 1024;

/// The queries `queries.0 .. queries.1` of one head of one batch row.
pub(crate) struct Task<'a> {
    pub attention: &'a Attention<'a>,
    pub batch: usize,
    pub head: usize,
    pub queries: (usize, usize),
    /// `[B, T, H, head_dim]`
    pub out: *mut f32,
    /// `[B, H, T, P]`
    pub probabilities: Option<*mut f32>,
}

impl Kernel for Task<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let a = self.attention;
        // SAFETY: `Attention::check` vouches for every access below.
        unsafe {
            match (a.k.data, a.v.data) {
                (Values::F32(k), Values::F32(v)) => self.typed::<I, _>(k, v),
                (Values::F16(k), Values::F16(v)) => self.typed::<I, _>(k, v),
                (Values::Bf16(k), Values::Bf16(v)) => self.typed::<I, _>(k, v),
                _ => unreachable!("keys and values have one type"),
            }
        }
    }
}

impl Task<'_> {
    #[inline(always)]
    unsafe fn typed<I: Isa, T: Element>(&self, k: &[T], v: &[T]) {
        let a = self.attention;
        let q = a.q.data;
        let (from, to) = self.queries;
        let (rows, dh) = (to - from, a.head_dim);
        let kv_head = self.head / (a.heads / a.kv_heads);
        let start = |s: &[usize; 3], head: usize| self.batch * s[0] + head * s[1];
        // Keys that no query of the block sees are not read: the first query's window begins first.
        let first = a.hidden(self.batch, from);
        let keys = a.seen(self.batch, to - 1) - first;
        // SAFETY: `Attention::check` has been over strides and sizes.
        unsafe {
            let row = a.heads * dh;
            let out = self.out.add(((self.batch * a.queries + from) * a.heads + self.head) * dh);
            let out = Target::new(out, row);

            if keys == 0 {
                for i in 0..rows {
                    out.c.get().add(i * row).write_bytes(0, dh);
                }
                return self.weigh::<I>(out.c.get(), 0, 0);
            }
            let k = k.as_ptr().add(start(&a.k.strides, kv_head) + first * a.k.strides[2]);
            let v = v.as_ptr().add(start(&a.v.strides, kv_head) + first * a.v.strides[2]);
            let q = q.as_ptr().add(start(&a.q.strides, self.head) + from * a.q.strides[2]);
            let k = Dense { start: k, stride: a.k.strides[2] };
            let v = Dense { start: v, stride: a.v.strides[2] };
            let mut scaled = Scratch::take(Interleave::room(rows, dh));
            let scaled = scaled.as_mut_ptr();
            for i in 0..rows {
                for j in 0..dh {
                    let place = if rows <= FEW_QUERIES { Interleaved::offset::<I>(rows, i, j) } else { i * dh + j };
                    *scaled.add(place) = *q.add(i * a.q.strides[2] + j) * a.scale;
                }
            }
            let mut scores = Scratch::take(rows * keys);
            let scores = scores.as_mut_ptr();
            let s = Target::new(scores, keys);
            if rows <= FEW_QUERIES {
                let x = Interleaved { start: scaled, rows };
                let skinny = Skinny { source: k, x, n_in: dh, from: 0, to: keys, target: s };
                dispatch(I::LEVEL, skinny);
                self.weigh::<I>(scores, first, keys);
                for i in 0..rows {
                    let p = scores.add(i * keys);
                    mix::<I, T>(p, keys, v, dh, out.c.get().add(i * row));
                }
            } else {
                multiply::<I, _>(scaled, rows, dh, ByRow(k), keys, s);
                self.weigh::<I>(scores, first, keys);
                multiply::<I, _>(scores, rows, keys, ByColumn(v), dh, out);
            }
        }
    }

    /// Turns scores `[rows, keys]` of the keys from `first` on into probabilities, with zeros where a query sees no key.
    #[inline(always)]
    pub(crate) unsafe fn weigh<I: Isa>(&self, scores: *mut f32, first: usize, keys: usize) {
        let a = self.attention;
        let (from, to) = self.queries;
        for t in from..to {
            let (hidden, seen) = (a.hidden(self.batch, t), a.seen(self.batch, t));
            // SAFETY: `first <= hidden <= seen <= first + keys`, and bias, mask and probabilities have been checked.
            unsafe {
                let row = scores.add((t - from) * keys);
                let window = row.add(hidden - first);
                if let Some(cap) = a.soft_cap {
                    map::<I>(window, window, seen - hidden, Cap::new::<I>(cap));
                }
                match a.bias {
                    // Where no key is seen, nothing has been said of the strides.
                    Some(ScoreBias::Each { data, strides: [b, h, q] }) if hidden < seen => {
                        let at = self.batch * b + self.head * h + t * q;
                        for (i, v) in data[at + hidden..at + seen].iter().enumerate() {
                            *window.add(i) += v;
                        }
                    }
                    Some(ScoreBias::Grid(bias)) => {
                        bias.add(self.head, t, std::slice::from_raw_parts_mut(window, seen - hidden));
                    }
                    Some(ScoreBias::Slopes(slopes)) => {
                        let (slope, last) = (slopes[self.head], (seen - hidden) as i32 - 1);
                        let scores = std::slice::from_raw_parts_mut(window, seen - hidden);
                        for (i, score) in scores.iter_mut().enumerate() {
                            *score -= slope * (last - i as i32) as f32;
                        }
                    }
                    _ => {}
                }
                if let Some(mask) = a.mask {
                    let mask = &mask[self.batch * a.positions..][hidden..seen];
                    for (i, &m) in mask.iter().enumerate() {
                        if m == 0 {
                            *window.add(i) = f32::NEG_INFINITY;
                        }
                    }
                }
                row.write_bytes(0, hidden - first);
                softmax_row::<I>(window, window, seen - hidden);
                row.add(seen - first).write_bytes(0, first + keys - seen);
                if let Some(p) = self.probabilities {
                    let at = (self.batch * a.heads + self.head) * a.queries + t;
                    let p = p.add(at * a.positions);
                    p.write_bytes(0, first);
                    p.add(first).copy_from_nonoverlapping(row, keys);
                    p.add(first + keys).write_bytes(0, a.positions - first - keys);
                }
            }
        }
    }
}

/// C [rows, n] = A [rows, depth] B [depth, n] on one thread.
#[inline(always)]
pub(crate) unsafe fn multiply<I: Isa, C: Columns>(
    a: *const f32,
    rows: usize,
    depth: usize,
    columns: C,
    n: usize,
    to: Target,
) {
    let mut packed = Scratch::take(packed_floats(rows, depth));
    let mut panels = Scratch::take(PANEL_FLOATS);
    // SAFETY: the caller's A, B and C have these sizes; the buffers are as large as needed.
    unsafe {
        for row in 0..rows {
            pack_row(a.add(row * depth), depth, row, rows, packed.as_mut_ptr());
        }
        for n0 in (0..n).step_by(C::N_BLOCK) {
            let block = Block {
                a: Shared(packed.as_mut_ptr()),
                rows,
                depth,
                to,
                tile_range: (0, rows.div_ceil(I::MR)),
                n0,
                width: C::N_BLOCK.min(n - n0),
                panels: Shared(panels.as_mut_ptr()),
                after: PrefetchRegion::NONE,
            };
            dispatch(I::LEVEL, Filled(block, columns));
        }
    }
}

/// `out [dh] = p [keys] V [keys, dh]`, V read where it lies: as many columns at once as the registers hold sums of.
#[inline(always)]
unsafe fn mix<I: Isa, T: Element>(p: *const f32, keys: usize, v: Dense<T>, dh: usize, out: *mut f32) {
    // SAFETY: the caller's rows have these sizes.
    unsafe {
        let mut d = 0;
        if I::LANES == 16 {
            while d + 16 * I::LANES <= dh {
                mix_columns::<I, T, 16, 1>(p, keys, v, d, out);
                d += 16 * I::LANES;
            }
        }
        while d + 8 * I::LANES <= dh {
            mix_columns::<I, T, 8, 1>(p, keys, v, d, out);
            d += 8 * I::LANES;
        }
        while d + 4 * I::LANES <= dh {
            mix_columns::<I, T, 4, 2>(p, keys, v, d, out);
            d += 4 * I::LANES;
        }
        while d + I::LANES <= dh {
            mix_columns::<I, T, 1, 4>(p, keys, v, d, out);
            d += I::LANES;
        }
        for d in d..dh {
            let one = |key: usize| *p.add(key) * T::get(v.start.add(key * v.stride + d));
            *out.add(d) = (0..keys).map(one).sum();
        }
    }
}

/// `N` vectors of columns from `d` on of [`mix`]; `K` keys have sums of their own, so that at least four hide the latency
/// of an addition.
#[inline(always)]
unsafe fn mix_columns<I: Isa, T: Element, const N: usize, const K: usize>(
    p: *const f32,
    keys: usize,
    v: Dense<T>,
    d: usize,
    out: *mut f32,
) {
    // SAFETY: the caller's rows have these sizes; any address may be prefetched.
    unsafe {
        let mut acc = [[I::splat(0.0); N]; K];
        for key in (0..keys).step_by(K) {
            for (k, acc) in acc.iter_mut().enumerate() {
                if key + k < keys {
                    let w = I::splat(*p.add(key + k));
                    let v = v.start.add((key + k) * v.stride + d);
                    for (j, acc) in acc.iter_mut().enumerate() {
                        let v = v.add(j * I::LANES);
                        if N >= 8 && (j * I::LANES * size_of::<T>()).is_multiple_of(64) {
                            I::prefetch(v.cast::<u8>().wrapping_add(AHEAD));
                        }
                        *acc = I::fma(w, T::load::<I>(v), *acc);
                    }
                }
            }
        }
        for j in 0..N {
            let mut sum = acc[0][j];
            for acc in &acc[1..] {
                sum = I::add(sum, acc[j]);
            }
            I::store(out.add(d + j * I::LANES), sum);
        }
    }
}
