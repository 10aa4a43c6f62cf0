//! Activations of MLPs and convolutions, element by element, and their gradients, on all threads.
//!
//! Gelu: x Phi(x) with Phi(-a) = e^(-a^2 / 2) R(a) for a >= 0, R fitted by a polynomial in 1 / (1 + a / 4) to a relative
//! error of 1e-8, so that the result has all of f32's digits in the far tail too.
//! GeluNew: `0.5 x (1 + tanh(u))` with `u = sqrt(2 / pi) (x + 0.044715 x^3)` equals `x / (1 + e^(-2 u))`, which loses no
//! digits where tanh is near -1.

use crate::isa::Isa;
use crate::math::{Binary, Product, Row, Sum, Unary, exp, for_rows, map, map2, shared};
use crate::parallel::Shared;
use crate::shape::{ShapeError, check_len};

/// What is applied to every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// x Phi(x), Phi the normal distribution: PyTorch's default GELU.
    Gelu,
    /// GELU by its tanh approximation, as transformers' `NewGELUActivation`.
    GeluNew,
    /// x sigmoid(1.702 x).
    QuickGelu,
    /// x sigmoid(x).
    Silu,
}

impl Activation {
    /// All of them.
    pub const ALL: [Activation; 5] =
        [Activation::Relu, Activation::Gelu, Activation::GeluNew, Activation::QuickGelu, Activation::Silu];
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;
const QUICK: f32 = 1.702;
/// Coefficients of R(a) / t in t = 1 / (1 + a / 4), highest power first.
const TAIL: [f32; 10] = [
    0.016_579_753,
    -0.062_792_696,
    0.051_653_53,
    0.028_434_394,
    0.012_712_897,
    0.086_656_414,
    0.071_999_55,
    0.095_515_7,
    0.099_492_56,
    0.099_747_9,
];
/// Numbers in a piece of work.
const PIECE: usize = 1 << 14;

/// `1 / (1 + e^-x)`.
#[inline(always)]
unsafe fn sigmoid<I: Isa>(x: I::V) -> I::V {
    // SAFETY: no pointers.
    unsafe {
        let one = I::splat(1.0);
        I::div(one, I::add(one, exp::<I>(I::sub(I::splat(0.0), x))))
    }
}

/// `|x|`, `Phi(-|x|)` and `e^(-x^2 / 2)`.
#[inline(always)]
unsafe fn tail<I: Isa>(x: I::V) -> (I::V, I::V, I::V) {
    // SAFETY: no pointers.
    unsafe {
        let a = I::max(I::sub(I::splat(0.0), x), x);
        let t = I::div(I::splat(1.0), I::fma(a, I::splat(0.25), I::splat(1.0)));
        let mut p = I::splat(TAIL[0]);
        for &c in &TAIL[1..] {
            p = I::fma(p, t, I::splat(c));
        }
        // The rounding error of a^2 would be one of e^(-a^2 / 2), many times larger: where
        // a product can be fused it is found and put back.
        let square = I::mul(a, a);
        let error = I::fnma(a, a, square);
        let e = exp::<I>(I::mul(square, I::splat(-0.5)));
        let e = I::fma(e, I::mul(error, I::splat(0.5)), e);
        (a, I::mul(I::mul(p, t), e), e)
    }
}

/// `1 / (1 + e^(-2 u(x)))`.
#[inline(always)]
unsafe fn gate<I: Isa>(x: I::V) -> I::V {
    // SAFETY: no pointers.
    unsafe {
        let cubic = I::fma(I::mul(x, x), I::splat(CUBIC), I::splat(1.0));
        sigmoid::<I>(I::mul(I::mul(x, I::splat(2.0 * SQRT_2_OVER_PI)), cubic))
    }
}

/// One vector of the activation.
#[inline(always)]
unsafe fn forward<I: Isa>(activation: Activation, x: I::V) -> I::V {
    // SAFETY: no pointers.
    unsafe {
        match activation {
            Activation::Relu => I::max(I::splat(0.0), x),
            Activation::Gelu => {
                let (a, phi, _) = tail::<I>(x);
                I::fnma(a, phi, I::max(I::splat(0.0), x))
            }
            Activation::GeluNew => I::mul(x, gate::<I>(x)),
            Activation::QuickGelu => I::mul(x, sigmoid::<I>(I::mul(x, I::splat(QUICK)))),
            Activation::Silu => I::mul(x, sigmoid::<I>(x)),
        }
    }
}

/// One vector of the derivative.
#[inline(always)]
unsafe fn slope<I: Isa>(activation: Activation, x: I::V) -> I::V {
    // SAFETY: no pointers.
    unsafe {
        let one = I::splat(1.0);
        match activation {
            // x / x where x > 0, and 0 elsewhere, also at 0 as PyTorch has it.
            Activation::Relu => {
                let positive = I::max(x, I::splat(0.0));
                I::div(positive, I::max(positive, I::splat(f32::MIN_POSITIVE)))
            }
            Activation::Gelu => {
                // Phi(x) + x phi(x), Phi(x) = 1/2 + sign(x) (1/2 - Phi(-|x|)).
                let (a, phi, e) = tail::<I>(x);
                let sign = I::div(x, I::max(a, I::splat(f32::MIN_POSITIVE)));
                let half = I::splat(0.5);
                let whole = I::fma(sign, I::sub(half, phi), half);
                I::fma(I::mul(x, I::splat(0.398_942_3)), e, whole)
            }
            Activation::GeluNew => {
                // gate + x gate (1 - gate) 2 u'(x)
                let g = gate::<I>(x);
                let slope = I::fma(I::mul(x, x), I::splat(3.0 * CUBIC), one);
                let slope = I::mul(I::mul(x, I::splat(2.0 * SQRT_2_OVER_PI)), slope);
                I::fma(I::mul(g, I::sub(one, g)), slope, g)
            }
            Activation::QuickGelu | Activation::Silu => {
                let k = I::splat(if activation == Activation::Silu { 1.0 } else { QUICK });
                let z = I::mul(x, k);
                let g = sigmoid::<I>(z);
                I::fma(I::mul(z, g), I::sub(one, g), g)
            }
        }
    }
}

/// The activation.
#[derive(Clone, Copy)]
struct Forward(Activation);
impl<I: Isa> Unary<I> for Forward {
    #[inline(always)]
    unsafe fn of(self, x: I::V) -> I::V {
        // SAFETY: no pointers.
        unsafe { forward::<I>(self.0, x) }
    }
}

/// A gradient, the second of a pair, times the derivative at the first.
#[derive(Clone, Copy)]
struct Slope(Activation);
impl<I: Isa> Binary<I> for Slope {
    #[inline(always)]
    unsafe fn of(self, x: I::V, g: I::V) -> I::V {
        // SAFETY: no pointers.
        unsafe { I::mul(g, slope::<I>(self.0, x)) }
    }
}

/// Applies `$body` with `$a` a constant of each activation, so that the choice is made outside the loop.
macro_rules! each {
    ($activation:expr, $a:ident => $body:expr) => {
        each!($activation, $a => $body; Relu, Gelu, GeluNew, QuickGelu, Silu)
    };
    ($activation:expr, $a:ident => $body:expr; $($name:ident),*) => {
        match $activation {
            $(Activation::$name => {
                const $a: Activation = Activation::$name;
                $body
            })*
        }
    };
}

/// The activation of `len` numbers; `src` and `dst` may be one.
#[inline(always)]
pub(crate) unsafe fn apply_row<I: Isa>(activation: Activation, src: *const f32, dst: *mut f32, len: usize) {
    // SAFETY: the caller's rows have `len` numbers.
    unsafe { each!(activation, A => map::<I>(src, dst, len, Forward(A))) }
}

/// `gx = gy activation'(x)`, `len` numbers.
#[inline(always)]
pub(crate) unsafe fn slope_row<I: Isa>(
    activation: Activation,
    x: *const f32,
    gy: *const f32,
    gx: *mut f32,
    len: usize,
) {
    // SAFETY: the caller's rows have `len` numbers.
    unsafe { each!(activation, A => map2::<I>(x, gy, gx, len, Slope(A))) }
}

/// `dst += src`, `len` numbers.
#[inline(always)]
pub(crate) unsafe fn add_rows<I: Isa>(dst: *mut f32, src: *const f32, len: usize) {
    // SAFETY: the caller's rows have `len` numbers.
    unsafe { map2::<I>(dst, src, dst, len, Sum) }
}

/// `dst *= src`, `len` numbers.
#[inline(always)]
pub(crate) unsafe fn scale_rows<I: Isa>(dst: *mut f32, src: *const f32, len: usize) {
    // SAFETY: the caller's rows have `len` numbers.
    unsafe { map2::<I>(dst, src, dst, len, Product) }
}

#[derive(Clone, Copy)]
struct Apply {
    activation: Activation,
    x: Shared<f32>,
    y: Shared<f32>,
    len: usize,
}

impl Row for Apply {
    #[inline(always)]
    unsafe fn row<I: Isa>(self, row: usize) {
        let at = row * PIECE;
        // SAFETY: lengths are checked by the callers.
        unsafe {
            apply_row::<I>(self.activation, self.x.get().add(at), self.y.get().add(at), PIECE.min(self.len - at));
        }
    }
}

/// `y = activation(x)`, element by element.
///
/// # Errors
///
/// Where the lengths differ.
pub fn activate(activation: Activation, x: &[f32], y: &mut [f32]) -> Result<(), ShapeError> {
    check_len("y", &[x.len()], y.len())?;
    let work = Apply { activation, x: shared(x), y: Shared(y.as_mut_ptr()), len: x.len() };
    // SAFETY: lengths are equal; pieces do not overlap.
    unsafe { for_rows(x.len().div_ceil(PIECE), PIECE, work) };
    Ok(())
}

/// `x = activation(x)` in place.
pub fn activate_in_place(activation: Activation, x: &mut [f32]) {
    let start = Shared(x.as_mut_ptr());
    let work = Apply { activation, x: start, y: start, len: x.len() };
    // SAFETY: each number is read before it is written; pieces do not overlap.
    unsafe { for_rows(x.len().div_ceil(PIECE), PIECE, work) };
}

/// Gradient of [`activate`]: `gx = gy activation'(x)`.
///
/// # Errors
///
/// Where the lengths differ.
pub fn activate_input_grad(activation: Activation, x: &[f32], gy: &[f32], gx: &mut [f32]) -> Result<(), ShapeError> {
    #[derive(Clone, Copy)]
    struct Grad(Activation, Shared<f32>, Shared<f32>, Shared<f32>, usize);
    impl Row for Grad {
        #[inline(always)]
        unsafe fn row<I: Isa>(self, row: usize) {
            let Grad(activation, x, gy, gx, len) = self;
            let at = row * PIECE;
            let len = PIECE.min(len - at);
            // SAFETY: lengths are checked by `activate_input_grad`.
            unsafe {
                let (x, gy, gx) = (x.get().add(at), gy.get().add(at), gx.get().add(at));
                slope_row::<I>(activation, x, gy, gx, len);
            }
        }
    }
    check_len("gy", &[x.len()], gy.len())?;
    check_len("gx", &[x.len()], gx.len())?;
    let work = Grad(activation, shared(x), shared(gy), Shared(gx.as_mut_ptr()), x.len());
    // SAFETY: lengths are equal; pieces do not overlap.
    unsafe { for_rows(x.len().div_ceil(PIECE), PIECE, work) };
    Ok(())
}
