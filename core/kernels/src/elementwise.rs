//! What surrounds the matrix products: layer norm, softmax, each on all threads.

use crate::isa::Isa;
use crate::math::{Dot, Row, Step, Sum, Times, Unary, exp, fold, for_rows, largest, map, shared};
use crate::norm_gradient::NormGradient;
use crate::parallel::Shared;
use crate::shape::{ShapeError, check_len};

/// Layer norm of `x [rows, d]`: `(x - mean) / sqrt(var + eps) * weight + bias` into `y`.
///
/// # Errors
///
/// Where a slice does not have its shape's length.
pub fn layer_norm(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    y: &mut [f32],
    rows: usize,
    d: usize,
) -> Result<(), ShapeError> {
    check_len("x", &[rows, d], x.len())?;
    check_len("weight", &[d], weight.len())?;
    check_len("bias", &[d], bias.map_or(d, <[f32]>::len))?;
    check_len("y", &[rows, d], y.len())?;
    let (x, y, weight) = (shared(x), Shared(y.as_mut_ptr()), shared(weight));
    let bias = bias.map(shared);
    // SAFETY: lengths are checked above; rows do not overlap.
    unsafe { for_rows(rows, d, Norm { x, weight, bias, eps, y, d }) };
    Ok(())
}

/// The sum of squared distances of the first row to a constant.
#[derive(Clone, Copy)]
struct Squares<V>(V);
impl<I: Isa> Step<I, 1> for Squares<I::V> {
    #[inline(always)]
    unsafe fn of(self, [sum]: [I::V; 1], a: I::V, _: I::V) -> [I::V; 1] {
        // SAFETY: no pointers.
        unsafe {
            let c = I::sub(a, self.0);
            [I::fma(c, c, sum)]
        }
    }
}

/// The sums of the first row, and of its products with the second less a constant.
#[derive(Clone, Copy)]
struct Moments<V>(V);
impl<I: Isa> Step<I, 2> for Moments<I::V> {
    #[inline(always)]
    unsafe fn of(self, [sum, dot]: [I::V; 2], a: I::V, b: I::V) -> [I::V; 2] {
        // SAFETY: no pointers.
        unsafe { [I::add(sum, a), I::fma(a, I::sub(b, self.0), dot)] }
    }
}

/// `e^(x - c)`.
#[derive(Clone, Copy)]
struct ExpLess<V>(V);
impl<I: Isa> Unary<I> for ExpLess<I::V> {
    #[inline(always)]
    unsafe fn of(self, x: I::V) -> I::V {
        // SAFETY: no pointers.
        unsafe { exp::<I>(I::sub(x, self.0)) }
    }
}

/// Mean and 1 / standard deviation of a row, in two passes.
#[inline(always)]
unsafe fn moments<I: Isa>(x: *const f32, d: usize, eps: f32) -> (f32, f32) {
    // SAFETY: the caller's row has `d` numbers.
    unsafe {
        let [sum] = fold::<I, 1>(x, x, d, Sum);
        let mean = sum / d as f32;
        let whole = d / I::LANES * I::LANES;
        let [mut square] = fold::<I, 1>(x, x, whole, Squares(I::splat(mean)));
        for i in whole..d {
            square += (*x.add(i) - mean) * (*x.add(i) - mean);
        }
        (mean, 1.0 / (square / d as f32 + eps).sqrt())
    }
}

#[derive(Clone, Copy)]
struct Norm {
    x: Shared<f32>,
    weight: Shared<f32>,
    bias: Option<Shared<f32>>,
    eps: f32,
    y: Shared<f32>,
    d: usize,
}

impl Row for Norm {
    #[inline(always)]
    unsafe fn row<I: Isa>(self, row: usize) {
        // SAFETY: lengths are checked by `layer_norm`.
        unsafe {
            let x = self.x.get().add(row * self.d);
            let y = self.y.get().add(row * self.d);
            let (mean, scale) = moments::<I>(x, self.d, self.eps);
            let (m, s) = (I::splat(mean), I::splat(scale));
            let (weight, bias) = (self.weight.get(), self.bias.map(|b| b.get()));
            let mut i = 0;
            while i + I::LANES <= self.d {
                let centred = I::mul(I::sub(I::load(x.add(i)), m), s);
                let b = bias.map_or(I::splat(0.0), |b| I::load(b.add(i)));
                I::store(y.add(i), I::fma(centred, I::load(weight.add(i)), b));
                i += I::LANES;
            }
            for i in i..self.d {
                let b = bias.map_or(0.0, |b| *b.add(i));
                *y.add(i) = (*x.add(i) - mean) * scale * *weight.add(i) + b;
            }
        }
    }
}

/// Gradient of [`layer_norm`] for its input: from `x` and `gy [rows, d]` to `gx`.
///
/// # Errors
///
/// Where a slice does not have its shape's length.
pub fn layer_norm_input_grad(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    gy: &[f32],
    gx: &mut [f32],
    rows: usize,
    d: usize,
) -> Result<(), ShapeError> {
    let gradient = NormGrad(NormGradient::new([x, weight, gy], gx, eps, rows, d)?);
    // SAFETY: lengths are checked; rows do not overlap.
    unsafe { for_rows(rows, d, gradient) };
    Ok(())
}

#[derive(Clone, Copy)]
struct NormGrad(NormGradient);

impl Row for NormGrad {
    #[inline(always)]
    unsafe fn row<I: Isa>(self, row: usize) {
        // With n = (x - mean) s and g = gy w: gx = s (g - mean(g) - n mean(g n)).
        // SAFETY: lengths are checked by `layer_norm_input_grad`.
        unsafe {
            let d = self.0.d;
            let (x, gx) = self.0.row::<I>(row);
            let (mean, scale) = moments::<I>(x, d, self.0.eps);
            let m = I::splat(mean);
            let [sum, dot] = fold::<I, 2>(gx, x, d, Moments(m));
            let (sum, dot) = (sum / d as f32, dot * scale * scale / d as f32);
            let (a, b, s) = (I::splat(sum), I::splat(dot), I::splat(scale));
            let mut i = 0;
            while i + I::LANES <= d {
                let g = I::sub(I::load(gx.add(i)), a);
                let g = I::fnma(I::sub(I::load(x.add(i)), m), b, g);
                I::store(gx.add(i), I::mul(g, s));
                i += I::LANES;
            }
            for i in i..d {
                *gx.add(i) = (*gx.add(i) - sum - (*x.add(i) - mean) * dot) * scale;
            }
        }
    }
}

/// Softmax of one row in place of `dst`; a row of negative infinities gives zeros.
#[inline(always)]
pub(crate) unsafe fn softmax_row<I: Isa>(src: *const f32, dst: *mut f32, d: usize) {
    // SAFETY: the caller's rows have `d` numbers.
    unsafe {
        let top = largest::<I>(src, d);
        if top == f32::NEG_INFINITY {
            dst.write_bytes(0, d);
            return;
        }
        let t = I::splat(top);
        map::<I>(src, dst, d, ExpLess(t));
        let [sum] = fold::<I, 1>(dst, dst, d, Sum);
        let inverse = I::splat(1.0 / sum);
        map::<I>(dst, dst, d, Times(inverse));
    }
}

/// Softmax over the last dimension of `x [rows, d]`; a row of negative infinities gives zeros.
///
/// # Errors
///
/// Where a slice does not have its shape's length.
pub fn softmax(x: &[f32], y: &mut [f32], rows: usize, d: usize) -> Result<(), ShapeError> {
    #[derive(Clone, Copy)]
    struct Soft(Shared<f32>, Shared<f32>, usize);
    impl Row for Soft {
        #[inline(always)]
        unsafe fn row<I: Isa>(self, row: usize) {
            // SAFETY: lengths are checked by `softmax`.
            unsafe {
                let at = row * self.2;
                softmax_row::<I>(self.0.get().add(at), self.1.get().add(at), self.2);
            }
        }
    }
    check_len("x", &[rows, d], x.len())?;
    check_len("y", &[rows, d], y.len())?;
    // SAFETY: lengths are checked above; rows do not overlap.
    unsafe { for_rows(rows, d, Soft(shared(x), Shared(y.as_mut_ptr()), d)) };
    Ok(())
}

/// `gx = y (gy - sum(y gy))`, `d` numbers; `gx` may be `gy`.
#[inline(always)]
pub(crate) unsafe fn softmax_grad_row<I: Isa>(y: *const f32, gy: *const f32, gx: *mut f32, d: usize) {
    // SAFETY: the caller's rows have `d` numbers.
    unsafe {
        let [dot] = fold::<I, 1>(y, gy, d, Dot);
        let v = I::splat(dot);
        let mut i = 0;
        while i + I::LANES <= d {
            let g = I::sub(I::load(gy.add(i)), v);
            I::store(gx.add(i), I::mul(I::load(y.add(i)), g));
            i += I::LANES;
        }
        for i in i..d {
            *gx.add(i) = *y.add(i) * (*gy.add(i) - dot);
        }
    }
}

/// Gradient of [`softmax`] for its input, from its output `y` and `gy [rows, d]`:
/// `gx = y (gy - sum(y gy))`.
///
/// # Errors
///
/// Where a slice does not have its shape's length.
pub fn softmax_input_grad(y: &[f32], gy: &[f32], gx: &mut [f32], rows: usize, d: usize) -> Result<(), ShapeError> {
    #[derive(Clone, Copy)]
    struct Grad(Shared<f32>, Shared<f32>, Shared<f32>, usize);
    impl Row for Grad {
        #[inline(always)]
        unsafe fn row<I: Isa>(self, row: usize) {
            let Grad(y, gy, gx, d) = self;
            // SAFETY: lengths are checked by `softmax_input_grad`.
            unsafe {
                let (y, gy) = (y.get().add(row * d), gy.get().add(row * d));
                softmax_grad_row::<I>(y, gy, gx.get().add(row * d), d);
            }
        }
    }
    check_len("y", &[rows, d], y.len())?;
    check_len("gy", &[rows, d], gy.len())?;
    check_len("gx", &[rows, d], gx.len())?;
    // SAFETY: lengths are checked above; rows do not overlap.
    unsafe { for_rows(rows, d, Grad(shared(y), shared(gy), Shared(gx.as_mut_ptr()), d)) };
    Ok(())
}
