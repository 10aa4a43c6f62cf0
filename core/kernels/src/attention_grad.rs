//! Gradients of causal self-attention for queries, keys and values, in their own places; the probabilities are computed
//! again, a block at a time.

use crate::attention::{Attention, Heads, ScoreBias, Values, Visible, check_heads};
use crate::attention_block::{Task, multiply};
use crate::elementwise::softmax_grad_row;
use crate::gemm::{ByColumn, ByRow, Target};
use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::math::{Times, map, map2};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::shape::{ShapeError, check_len};
use crate::soft_cap::Cap;
use crate::weight::Dense;

/// Causal self-attention of T positions, whose queries, keys and values become their gradients.
#[derive(Debug)]
pub struct CausalGrads<'a> {
    /// Queries `[B, T, H, head_dim]`.
    pub q: &'a mut [f32],
    /// Keys `[B, T, Hkv, head_dim]`.
    pub k: &'a mut [f32],
    /// Values `[B, T, Hkv, head_dim]`.
    pub v: &'a mut [f32],
    /// B.
    pub batch: usize,
    /// T.
    pub positions: usize,
    /// H.
    pub heads: usize,
    /// Hkv, a divisor of H.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// How many keys a query sees at most, its own included; None: all up to its own.
    pub window: Option<usize>,
    /// Further keys to leave out: zeros in `[B, T]`.
    pub mask: Option<&'a [u8]>,
    /// c where scaled scores s become c tanh(s / c), above 0.
    pub soft_cap: Option<f32>,
    /// Added to the scores; it has no gradient.
    pub bias: Option<ScoreBias<'a>>,
}

impl CausalGrads<'_> {
    /// Overwrites queries, keys and values with the gradients for that of the output, `gout [B, T, H, head_dim]`.
    ///
    /// Runs on the current rayon pool, one piece of work a key-value head.
    ///
    /// # Errors
    ///
    /// Where sizes do not fit together.
    pub fn run(self, gout: &[f32]) -> Result<(), ShapeError> {
        let Self { batch, positions, heads, kv_heads, head_dim, scale, window, mask, soft_cap, bias, .. } = self;
        let (queries, keys) = ([batch, positions, heads, head_dim], [batch, positions, kv_heads, head_dim]);
        check_len("q", &queries, self.q.len())?;
        check_len("k", &keys, self.k.len())?;
        check_len("v", &keys, self.v.len())?;
        check_len("gout", &queries, gout.len())?;
        if gout.is_empty() {
            check_heads(heads, kv_heads)?;
            self.k.fill(0.0);
            self.v.fill(0.0);
            return Ok(());
        }
        let past = vec![0; batch];
        // What decides which keys count; the numbers themselves are not reached through it.
        let nothing = Heads { data: Values::F32(&[]), strides: [0; 3] };
        let attention = Attention {
            q: Heads { data: &[], strides: [0; 3] },
            k: nothing,
            v: nothing,
            batch,
            heads,
            kv_heads,
            queries: positions,
            positions,
            head_dim,
            scale,
            visible: window.map_or(Visible::Causal(&past), |width| Visible::Window(&past, width)),
            mask,
            // The scores are capped here, where their derivative needs them.
            soft_cap: None,
            bias,
        };
        attention.check_bias(attention.check_counts()?)?;
        let level = Level::current();
        let places = [Shared(self.q.as_mut_ptr()), Shared(self.k.as_mut_ptr()), Shared(self.v.as_mut_ptr())];
        parallel::for_each(batch * kv_heads, |i| {
            let (batch, kv_head) = (i / kv_heads, i % kv_heads);
            let work = Grads { attention: &attention, soft_cap, batch, kv_head, gout, places };
            // SAFETY: sizes are checked above; pieces read and write their own heads.
            unsafe { dispatch(level, work) };
        });
        Ok(())
    }
}

/// One key-value head of one batch row, with the query heads that read it.
struct Grads<'a> {
    attention: &'a Attention<'a>,
    soft_cap: Option<f32>,
    batch: usize,
    kv_head: usize,
    gout: &'a [f32],
    /// Queries, keys, values.
    places: [Shared<f32>; 3],
}

impl Kernel for Grads<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let a = self.attention;
        let (t, dh, block) = (a.positions, a.head_dim, a.block());
        let group = a.heads / a.kv_heads;
        let (mut gk, mut gv) = (Scratch::take(t * dh), Scratch::take(t * dh));
        let sums = [gk.as_mut_ptr(), gv.as_mut_ptr()];
        // SAFETY: sizes are checked by `CausalGrads::run`.
        unsafe {
            sums[0].write_bytes(0, t * dh);
            sums[1].write_bytes(0, t * dh);
            for head in self.kv_head * group..(self.kv_head + 1) * group {
                for from in (0..t).step_by(block) {
                    self.block::<I>(head, from, (from + block).min(t), sums);
                }
            }
            for (place, sum) in self.places[1..].iter().zip(sums) {
                for at in 0..t {
                    let to = place.get().add(((self.batch * t + at) * a.kv_heads + self.kv_head) * dh);
                    to.copy_from_nonoverlapping(sum.add(at * dh), dh);
                }
            }
        }
    }
}

impl Grads<'_> {
    /// Adds what the queries `from .. to` of a head give to the gradients of keys and values, `sums`, and writes their own.
    #[inline(always)]
    unsafe fn block<I: Isa>(&self, head: usize, from: usize, to: usize, sums: [*mut f32; 2]) {
        let a = self.attention;
        let (rows, t, dh) = (to - from, a.positions, a.head_dim);
        let first = a.hidden(self.batch, from);
        let keys = a.seen(self.batch, to - 1) - first;
        let (wide, narrow) = (a.heads * dh, a.kv_heads * dh);
        let own = ((self.batch * t + from) * a.heads + head) * dh;
        let theirs = ((self.batch * t + first) * a.kv_heads + self.kv_head) * dh;
        // SAFETY: sizes are checked by `CausalGrads::run`.
        unsafe {
            let [q_place, k_place, v_place] = &self.places;
            let q = Dense { start: q_place.get().add(own).cast_const(), stride: wide };
            let k = Dense { start: k_place.get().add(theirs).cast_const(), stride: narrow };
            let v = Dense { start: v_place.get().add(theirs).cast_const(), stride: narrow };
            let gout = Dense { start: self.gout.as_ptr().add(own), stride: wide };
            let [gk, gv] = sums.map(|sum| Target { add: true, ..Target::new(sum.add(first * dh), dh) });

            // Rows of queries, then of the output's gradient, side by side.
            let mut near = Scratch::take(rows * dh);
            let near = near.as_mut_ptr();
            for i in 0..rows {
                map::<I>(q.start.add(i * wide), near.add(i * dh), dh, Times(I::splat(a.scale)));
            }
            let mut scores = Scratch::take(rows * keys);
            let scores = scores.as_mut_ptr();
            multiply::<I, _>(near, rows, dh, ByRow(k), keys, Target::new(scores, keys));
            let capped = match self.soft_cap {
                Some(cap) => {
                    let (cap, mut capped) = (Cap::new::<I>(cap), Scratch::take(rows * keys));
                    map::<I>(scores, scores, rows * keys, cap);
                    capped.as_mut_ptr().copy_from_nonoverlapping(scores, rows * keys);
                    Some((cap, capped))
                }
                None => None,
            };
            let (batch, queries, out) = (self.batch, (from, to), std::ptr::null_mut());
            let task = Task { attention: a, batch, head, queries, out, probabilities: None };
            task.weigh::<I>(scores, first, keys);

            let mut turned = Scratch::take(keys * rows);
            let turned = turned.as_mut_ptr();
            transpose(scores, rows, keys, turned);
            multiply::<I, _>(turned, keys, rows, ByColumn(gout), dh, gv);

            for i in 0..rows {
                near.add(i * dh).copy_from_nonoverlapping(gout.start.add(i * wide), dh);
            }
            let mut slopes = Scratch::take(rows * keys);
            let slopes = slopes.as_mut_ptr();
            multiply::<I, _>(near, rows, dh, ByRow(v), keys, Target::new(slopes, keys));
            for i in 0..rows {
                let row = slopes.add(i * keys);
                softmax_grad_row::<I>(scores.add(i * keys), row, row, keys);
                if let Some((cap, capped)) = &capped {
                    map2::<I>(capped.as_ptr().add(i * keys), row, row, keys, *cap);
                }
                map::<I>(row, row, keys, Times(I::splat(a.scale)));
            }
            transpose(slopes, rows, keys, turned);
            multiply::<I, _>(turned, keys, rows, ByColumn(q), dh, gk);
            // Last, for it takes the queries' place.
            multiply::<I, _>(slopes, rows, keys, ByColumn(k), dh, Target::new(q_place.get().add(own), wide));
        }
    }
}

/// `[rows, columns]` to `[columns, rows]`.
#[inline(always)]
unsafe fn transpose(x: *const f32, rows: usize, columns: usize, to: *mut f32) {
    for i in 0..rows {
        for j in 0..columns {
            // SAFETY: both have `rows * columns` numbers.
            unsafe { *to.add(j * rows + i) = *x.add(i * columns + j) };
        }
    }
}
