//! The micro-tile: up to `Isa::MR` rows of packed A times one panel of B, and what is done to it at the end.

use super::A_STRIDE;
use crate::activation::{self, Activation};
use crate::isa::{Isa, Kernel};
use crate::parallel::Shared;
use std::ptr;

/// Where a product goes: `C` row-major with a row stride, what it starts from and what becomes of it.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub c: Shared<f32>,
    pub stride: usize,
    /// Added to every row, `[N]`; null for none.
    pub bias: *const f32,
    /// Multiplies every row once the product and the bias are summed, `[N]`; null for none.
    pub scale: *const f32,
    /// Added after that, laid out as C; null for none.
    pub residual: *const f32,
    /// Applied to the sum of all.
    pub activation: Option<Activation>,
    /// Whether the product is added to what C holds; bias, scale and residual are then not used.
    pub add: bool,
}
// SAFETY: `bias`, `scale` and `residual` are read only, and `Shared` speaks for `c`.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// Plain overwriting of `c`, rows `stride` apart.
    pub(crate) fn new(c: *mut f32, stride: usize) -> Target {
        let none = ptr::null();
        Target { c: Shared(c), stride, bias: none, scale: none, residual: none, activation: None, add: false }
    }

    /// The same with a bias `[N]`, if there is one.
    pub(crate) fn with_bias(self, bias: Option<&[f32]>) -> Target {
        Target { bias: bias.map_or(ptr::null(), <[f32]>::as_ptr), ..self }
    }

    /// Whether [`finish`] has anything to do.
    pub(crate) fn unfinished(&self) -> bool {
        !self.scale.is_null() || !self.residual.is_null() || self.activation.is_some()
    }
}

/// One tile: A [M, depth] B [depth, 2 LANES], rows of A `A_STRIDE` apart.
#[inline(always)]
unsafe fn tile<I: Isa, const M: usize>(a: *const f32, b: *const f32, depth: usize) -> [[I::V; 2]; M] {
    // SAFETY: the caller passes `M` rows of `depth` and `depth * 2 LANES` floats.
    unsafe {
        let mut acc = [[I::splat(0.0); 2]; M];
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let (b0, b1) = (I::load(b), I::load(b.add(I::LANES)));
            for (i, acc) in acc.iter_mut().enumerate() {
                // The stride is a constant, so that one register addresses all rows.
                let x = I::splat(*a.add(i * A_STRIDE));
                acc[0] = I::fma(x, b0, acc[0]);
                acc[1] = I::fma(x, b1, acc[1]);
            }
            a = a.add(1);
            b = b.add(2 * I::LANES);
        }
        acc
    }
}

/// [`finish`] of all of a block of columns, where no tile does it.
#[derive(Clone, Copy)]
pub(crate) struct Finish {
    pub to: Target,
    pub rows: usize,
    /// Columns `n .. n + width`.
    pub n: usize,
    pub width: usize,
}

impl Kernel for Finish {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        // SAFETY: the maker's columns lie within C.
        unsafe { finish::<I>(&self.to, 0, self.rows, self.n, self.width) }
    }
}

/// Computes a tile and adds it to C (`first`: to the bias) at row `m`, columns `n .. n + width`.
#[inline(always)]
pub(super) unsafe fn run<I: Isa, const M: usize>(
    a: *const f32,
    b: *const f32,
    depth: usize,
    to: &Target,
    m: usize,
    n: usize,
    width: usize,
    first: bool,
) {
    // SAFETY: the caller's tile lies within A, B and C.
    unsafe {
        let acc = tile::<I, M>(a, b, depth);
        let wide = 2 * I::LANES;
        let mut edge = [0f32; 32];
        for (i, acc) in acc.iter().enumerate() {
            let c = to.c.get().add((m + i) * to.stride + n);
            if width < wide {
                // The last panel is narrower: its row passes through a buffer.
                I::store(edge.as_mut_ptr(), acc[0]);
                I::store(edge.as_mut_ptr().add(I::LANES), acc[1]);
                for (j, &v) in edge[..width].iter().enumerate() {
                    let old = match (first, to.bias.is_null()) {
                        (false, _) => *c.add(j),
                        (true, true) => 0.0,
                        (true, false) => *to.bias.add(n + j),
                    };
                    *c.add(j) = old + v;
                }
                continue;
            }
            let (c0, c1) = (c, c.add(I::LANES));
            let (mut v0, mut v1) = (acc[0], acc[1]);
            if !first {
                v0 = I::add(v0, I::load(c0));
                v1 = I::add(v1, I::load(c1));
            } else if !to.bias.is_null() {
                v0 = I::add(v0, I::load(to.bias.add(n)));
                v1 = I::add(v1, I::load(to.bias.add(n + I::LANES)));
            }
            I::store(c0, v0);
            I::store(c1, v1);
        }
    }
}

/// Scale, residual and activation of rows `m .. end`, columns `n .. n + width` of C, while they are in the nearest cache.
#[inline(always)]
pub(crate) unsafe fn finish<I: Isa>(to: &Target, m: usize, end: usize, n: usize, width: usize) {
    // SAFETY: the caller's tile lies within C, the scale and the residual.
    unsafe {
        for row in m..end {
            let at = row * to.stride + n;
            let c = to.c.get().add(at);
            if !to.scale.is_null() {
                activation::scale_rows::<I>(c, to.scale.add(n), width);
            }
            if !to.residual.is_null() {
                activation::add_rows::<I>(c, to.residual.add(at), width);
            }
            if let Some(activation) = to.activation {
                activation::apply_row::<I>(activation, c, c, width);
            }
        }
    }
}
