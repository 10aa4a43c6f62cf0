//! GELU by its tanh approximation, as transformers' `NewGELUActivation`, and its gradient.
//!
//! `0.5 x (1 + tanh(u))` with `u = sqrt(2 / pi) (x + 0.044715 x^3)` equals `x / (1 + e^(-2 u))`,
//! which loses no digits where tanh is near -1.

use crate::isa::Isa;
use crate::math::{Row, exp, for_rows, map, shared};
use crate::parallel::Shared;
use crate::weight::{ShapeError, check_len};

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;
/// Numbers in a piece of work.
const PIECE: usize = 1 << 14;

/// `1 / (1 + e^(-2 u(x)))`.
#[inline(always)]
unsafe fn gate<I: Isa>(x: I::V) -> I::V {
    // SAFETY: no pointers.
    unsafe {
        let cubic = I::fma(I::mul(x, x), I::splat(CUBIC), I::splat(1.0));
        let minus_2u = I::mul(I::mul(x, I::splat(-2.0 * SQRT_2_OVER_PI)), cubic);
        I::div(I::splat(1.0), I::add(I::splat(1.0), exp::<I>(minus_2u)))
    }
}

#[derive(Clone, Copy)]
struct Gelu {
    x: Shared<f32>,
    y: Shared<f32>,
    len: usize,
}

impl Row for Gelu {
    #[inline(always)]
    unsafe fn row<I: Isa>(self, row: usize) {
        let at = row * PIECE;
        let len = PIECE.min(self.len - at);
        // SAFETY: lengths are checked by the callers.
        unsafe {
            let (x, y) = (self.x.get().add(at), self.y.get().add(at));
            map::<I>(x, y, len, |x| I::mul(x, gate::<I>(x)));
        }
    }
}

/// `y = gelu_new(x)`, element by element.
///
/// # Errors
///
/// Where the lengths differ.
pub fn gelu_new(x: &[f32], y: &mut [f32]) -> Result<(), ShapeError> {
    check_len("y", &[x.len()], y.len())?;
    let work = Gelu { x: shared(x), y: Shared(y.as_mut_ptr()), len: x.len() };
    // SAFETY: lengths are equal; pieces do not overlap.
    unsafe { for_rows(x.len().div_ceil(PIECE), PIECE, work) };
    Ok(())
}

/// `x = gelu_new(x)` in place.
pub fn gelu_new_in_place(x: &mut [f32]) {
    let start = Shared(x.as_mut_ptr());
    // SAFETY: each number is read before it is written; pieces do not overlap.
    unsafe { for_rows(x.len().div_ceil(PIECE), PIECE, Gelu { x: start, y: start, len: x.len() }) };
}

/// Gradient of [`gelu_new`]: `gx = gy gelu_new'(x)`.
///
/// # Errors
///
/// Where the lengths differ.
pub fn gelu_new_input_grad(x: &[f32], gy: &[f32], gx: &mut [f32]) -> Result<(), ShapeError> {
    #[derive(Clone, Copy)]
    struct Grad(Shared<f32>, Shared<f32>, Shared<f32>, usize);
    impl Row for Grad {
        #[inline(always)]
        unsafe fn row<I: Isa>(self, row: usize) {
            let at = row * PIECE;
            let len = PIECE.min(self.3 - at);
            // SAFETY: lengths are checked by `gelu_new_input_grad`.
            unsafe {
                let (x, gy) = (self.0.get().add(at), self.1.get().add(at));
                let gx = self.2.get().add(at);
                // gate + x gate (1 - gate) 2 u'(x)
                map::<I>(x, gx, len, |x| {
                    let g = gate::<I>(x);
                    let slope = I::fma(I::mul(x, x), I::splat(3.0 * CUBIC), I::splat(1.0));
                    let slope = I::mul(I::mul(x, I::splat(2.0 * SQRT_2_OVER_PI)), slope);
                    I::fma(I::mul(g, I::sub(I::splat(1.0), g)), slope, g)
                });
                for i in 0..len {
                    *gx.add(i) *= *gy.add(i);
                }
            }
        }
    }
    check_len("gy", &[x.len()], gy.len())?;
    check_len("gx", &[x.len()], gx.len())?;
    let work = Grad(shared(x), shared(gy), Shared(gx.as_mut_ptr()), x.len());
    // SAFETY: lengths are equal; pieces do not overlap.
    unsafe { for_rows(x.len().div_ceil(PIECE), PIECE, work) };
    Ok(())
}
