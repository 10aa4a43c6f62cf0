//! Soft caps of scores, `c tanh(s / c)`, and their gradient.
//!
//! tanh is a quotient of polynomials as in Eigen's `generic_fast_tanh_float`, good to a few units in the last place for
//! small and large arguments alike, so that scores far below the cap keep their digits.

use crate::isa::Isa;
use crate::math::{Binary, Unary};

/// Beyond this tanh is 1 in f32.
const LARGEST: f32 = 7.905_311;
/// The numerator's coefficients of x^13 down to x, and the denominator's of x^6 down to 1.
const NUMERATOR: [f32; 7] =
    [-2.760_768_5e-16, 2.000_188e-13, -8.604_672e-11, 5.122_297_1e-8, 1.485_722_4e-5, 6.372_619_3e-4, 4.893_524_6e-3];
const DENOMINATOR: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];

/// `tanh(x)`.
#[inline(always)]
unsafe fn tanh<I: Isa>(x: I::V) -> I::V {
    // SAFETY: no pointers.
    unsafe {
        let x = I::min(I::splat(LARGEST), I::max(I::splat(-LARGEST), x));
        let square = I::mul(x, x);
        let mut above = I::splat(NUMERATOR[0]);
        for &c in &NUMERATOR[1..] {
            above = I::fma(above, square, I::splat(c));
        }
        let mut below = I::splat(DENOMINATOR[0]);
        for &c in &DENOMINATOR[1..] {
            below = I::fma(below, square, I::splat(c));
        }
        I::div(I::mul(x, above), below)
    }
}

/// c and 1 / c: a score to its capped one; and a gradient, the second of a pair, times the derivative where the capped
/// score is the first.
#[derive(Clone, Copy)]
pub(crate) struct Cap<V>(pub V, pub V);

impl<I: Isa> Unary<I> for Cap<I::V> {
    #[inline(always)]
    unsafe fn of(self, x: I::V) -> I::V {
        // SAFETY: no pointers.
        unsafe { I::mul(self.0, tanh::<I>(I::mul(x, self.1))) }
    }
}

impl<I: Isa> Binary<I> for Cap<I::V> {
    #[inline(always)]
    unsafe fn of(self, capped: I::V, gradient: I::V) -> I::V {
        // SAFETY: no pointers.
        unsafe {
            let tanh = I::mul(capped, self.1);
            I::mul(gradient, I::fnma(tanh, tanh, I::splat(1.0)))
        }
    }
}

impl<V: Copy> Cap<V> {
    /// A cap of `cap`.
    #[inline(always)]
    pub unsafe fn new<I: Isa<V = V>>(cap: f32) -> Self {
        // SAFETY: no pointers.
        unsafe { Self(I::splat(cap), I::splat(1.0 / cap)) }
    }
}
