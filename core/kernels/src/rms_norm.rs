//! RMS norm (Zhang and Sennrich, arXiv 1910.07467) over rows, and the gradient of its input.

use crate::isa::Isa;
use crate::math::{Dot, Row, fold, for_rows, shared};
use crate::norm_gradient::NormGradient;
use crate::parallel::Shared;
use crate::shape::{ShapeError, check_len};

/// RMS norm of `x [rows, d]`: `x / sqrt(mean(x^2) + eps) * weight` into `y`.
///
/// # Errors
///
/// Where a slice does not have its shape's length.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32], rows: usize, d: usize) -> Result<(), ShapeError> {
    check_len("x", &[rows, d], x.len())?;
    check_len("weight", &[d], weight.len())?;
    check_len("y", &[rows, d], y.len())?;
    let (x, y, weight) = (shared(x), Shared(y.as_mut_ptr()), shared(weight));
    // SAFETY: lengths are checked above; rows do not overlap.
    unsafe { for_rows(rows, d, Norm { x, weight, eps, y, d }) };
    Ok(())
}

/// Gradient of [`rms_norm`] for its input: from `x` and `gy [rows, d]` to `gx`.
///
/// # Errors
///
/// Where a slice does not have its shape's length.
pub fn rms_norm_input_grad(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    gy: &[f32],
    gx: &mut [f32],
    rows: usize,
    d: usize,
) -> Result<(), ShapeError> {
    let gradient = Gradient(NormGradient::new([x, weight, gy], gx, eps, rows, d)?);
    // SAFETY: lengths are checked; rows do not overlap.
    unsafe { for_rows(rows, d, gradient) };
    Ok(())
}

/// 1 / root of the mean square of a row.
#[inline(always)]
unsafe fn scale<I: Isa>(x: *const f32, d: usize, eps: f32) -> f32 {
    // SAFETY: the caller's row has `d` numbers.
    let [square] = unsafe { fold::<I, 1>(x, x, d, Dot) };
    1.0 / (square / d as f32 + eps).sqrt()
}

#[derive(Clone, Copy)]
struct Norm {
    x: Shared<f32>,
    weight: Shared<f32>,
    eps: f32,
    y: Shared<f32>,
    d: usize,
}

impl Row for Norm {
    #[inline(always)]
    unsafe fn row<I: Isa>(self, row: usize) {
        // SAFETY: lengths are checked by `rms_norm`.
        unsafe {
            let x = self.x.get().add(row * self.d);
            let y = self.y.get().add(row * self.d);
            let weight = self.weight.get();
            let scale = scale::<I>(x, self.d, self.eps);
            let s = I::splat(scale);
            let mut i = 0;
            while i + I::LANES <= self.d {
                let normed = I::mul(I::load(x.add(i)), s);
                I::store(y.add(i), I::mul(normed, I::load(weight.add(i))));
                i += I::LANES;
            }
            for i in i..self.d {
                *y.add(i) = *x.add(i) * scale * *weight.add(i);
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Gradient(NormGradient);

impl Row for Gradient {
    #[inline(always)]
    unsafe fn row<I: Isa>(self, row: usize) {
        // With g = gy w: gx = s (g - x s^2 mean(g x)).
        // SAFETY: lengths are checked by `rms_norm_input_grad`.
        unsafe {
            let d = self.0.d;
            let (x, gx) = self.0.row::<I>(row);
            let scale = scale::<I>(x, d, self.0.eps);
            let [dot] = fold::<I, 1>(gx, x, d, Dot);
            let dot = dot * scale * scale / d as f32;
            let (b, s) = (I::splat(dot), I::splat(scale));
            let mut i = 0;
            while i + I::LANES <= d {
                let g = I::fnma(I::load(x.add(i)), b, I::load(gx.add(i)));
                I::store(gx.add(i), I::mul(g, s));
                i += I::LANES;
            }
            for i in i..d {
                *gx.add(i) = (*gx.add(i) - *x.add(i) * dot) * scale;
            }
        }
    }
}
