//! Gradients of [`Attention`] for queries, keys and values; the probabilities are computed again, a block at a time.

use crate::attention::{Attention, Values};
use crate::attention_block::{Task, multiply};
use crate::elementwise::softmax_grad_row;
use crate::gemm::{ByColumn, ByRow, Target};
use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::math::{Times, map};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::weight::{Dense, ShapeError, check_len};

/// The gradients of an attention, all overwritten.
#[derive(Debug)]
pub struct AttentionGrads<'a> {
    /// Of the queries, `[B, T, H, head_dim]`.
    pub q: &'a mut [f32],
    /// Of the keys, `[B, P, Hkv, head_dim]`.
    pub k: &'a mut [f32],
    /// Of the values, `[B, P, Hkv, head_dim]`.
    pub v: &'a mut [f32],
}

impl Attention<'_> {
    /// The gradients for that of the output, `gout [B, T, H, head_dim]`. Keys and values are f32.
    ///
    /// Runs on the current rayon pool, one piece of work a key-value head.
    ///
    /// # Errors
    ///
    /// Where sizes do not fit together, or keys and values are not f32.
    pub fn input_grads(&self, gout: &[f32], grads: AttentionGrads) -> Result<(), ShapeError> {
        let (b, queries, keys) = (
            self.batch,
            [self.batch, self.queries, self.heads, self.head_dim],
            [self.batch, self.positions, self.kv_heads, self.head_dim],
        );
        check_len("gout", &queries, gout.len())?;
        check_len("gradient of q", &queries, grads.q.len())?;
        check_len("gradient of k", &keys, grads.k.len())?;
        check_len("gradient of v", &keys, grads.v.len())?;
        self.check()?;
        let (Values::F32(k), Values::F32(v)) = (self.k.data, self.v.data) else {
            let (what, found) = ("keys and values of a gradient", self.k.data.name());
            return Err(ShapeError::Type { what, found, expected: "f32" });
        };
        grads.k.fill(0.0);
        grads.v.fill(0.0);
        if gout.is_empty() {
            return Ok(());
        }
        let level = Level::current();
        let (q_to, k_to, v_to) =
            (Shared(grads.q.as_mut_ptr()), Shared(grads.k.as_mut_ptr()), Shared(grads.v.as_mut_ptr()));
        parallel::for_each(b * self.kv_heads, |i| {
            let (batch, kv_head) = (i / self.kv_heads, i % self.kv_heads);
            let work = Grads { attention: self, k, v, batch, kv_head, gout, to: [q_to, k_to, v_to] };
            // SAFETY: sizes are checked above; pieces write to their own heads.
            unsafe { dispatch(level, work) };
        });
        Ok(())
    }
}

/// One key-value head of one batch row, with the query heads that read it.
struct Grads<'a> {
    attention: &'a Attention<'a>,
    k: &'a [f32],
    v: &'a [f32],
    batch: usize,
    kv_head: usize,
    gout: &'a [f32],
    /// Of queries, keys, values.
    to: [Shared<f32>; 3],
}

impl Kernel for Grads<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let a = self.attention;
        let (group, block) = (a.heads / a.kv_heads, a.block());
        for head in self.kv_head * group..(self.kv_head + 1) * group {
            for from in (0..a.queries).step_by(block) {
                // SAFETY: sizes are checked by `input_grads`.
                unsafe { self.block::<I>(head, from, (from + block).min(a.queries)) }
            }
        }
    }
}

impl Grads<'_> {
    /// Adds what the queries `from .. to` of a head give to the gradients of keys and values, and writes their own.
    #[inline(always)]
    unsafe fn block<I: Isa>(&self, head: usize, from: usize, to: usize) {
        let a = self.attention;
        let (rows, dh) = (to - from, a.head_dim);
        let first = a.hidden(self.batch, from);
        let keys = a.seen(self.batch, to - 1) - first;
        let start = |s: &[usize; 3], head: usize, at: usize| self.batch * s[0] + head * s[1] + at * s[2];
        let (wide, narrow) = (a.heads * dh, a.kv_heads * dh);
        // SAFETY: `Attention::check` and `input_grads` have been over strides and sizes.
        unsafe {
            let q = a.q.data.as_ptr().add(start(&a.q.strides, head, from));
            let k = self.k.as_ptr().add(start(&a.k.strides, self.kv_head, first));
            let v = self.v.as_ptr().add(start(&a.v.strides, self.kv_head, first));
            let q = Dense { start: q, stride: a.q.strides[2] };
            let k = Dense { start: k, stride: a.k.strides[2] };
            let v = Dense { start: v, stride: a.v.strides[2] };
            let own = ((self.batch * a.queries + from) * a.heads + head) * dh;
            let gout = Dense { start: self.gout.as_ptr().add(own), stride: wide };
            let shared = ((self.batch * a.positions + first) * a.kv_heads + self.kv_head) * dh;
            let [q_to, k_to, v_to] = &self.to;
            let gq = Target::new(q_to.get().add(own), wide);
            let gk = Target { add: true, ..Target::new(k_to.get().add(shared), narrow) };
            let gv = Target { add: true, ..Target::new(v_to.get().add(shared), narrow) };

            if keys == 0 {
                for i in 0..rows {
                    gq.c.get().add(i * wide).write_bytes(0, dh);
                }
                return;
            }
            // Rows of queries, then of the output's gradient, side by side.
            let mut near = Scratch::take(rows * dh);
            let near = near.as_mut_ptr();
            for i in 0..rows {
                map::<I>(q.start.add(i * q.stride), near.add(i * dh), dh, Times(I::splat(a.scale)));
            }
            let mut scores = Scratch::take(rows * keys);
            let scores = scores.as_mut_ptr();
            multiply::<I, _>(near, rows, dh, ByRow(k), keys, Target::new(scores, keys));
            let task = Task {
                attention: a,
                batch: self.batch,
                head,
                queries: (from, to),
                out: std::ptr::null_mut(),
                probabilities: None,
            };
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
                map::<I>(row, row, keys, Times(I::splat(a.scale)));
            }
            multiply::<I, _>(slopes, rows, keys, ByColumn(k), dh, gq);
            transpose(slopes, rows, keys, turned);
            multiply::<I, _>(turned, keys, rows, ByColumn(q), dh, gk);
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
