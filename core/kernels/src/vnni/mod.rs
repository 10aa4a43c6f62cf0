//! q8_0 and q4_k weights times few rows of activations (skinny GEMM) with 8-bit integer dot products (AVX-512 VNNI).
//!
//! Widening quantised weights to f32 costs more time than reading them. Here 32 activations at a time become fixed-point
//! numbers of a unit of their own, kept as two or three signed bytes each, and the sums of their products with the
//! weights' codes are exact integers. With 22 bits (q8_0) the result is as good as f32 arithmetic on the dequantised
//! weights; with 16 (q4_k) it is within some 1e-5 of it, where the 8 bits that others use are 4e-3 off.
//!
//! Vectors have 256 bits: this way a scale is broadcast by the multiplication that uses it, and on Zen 4 two of them
//! take as long as one of 512.

mod coded;
mod q4;
mod q8;

use crate::gemm::Target;
pub(crate) use coded::Coded;
use coded::Row;
pub(crate) use q4::Q4;
pub(crate) use q8::Q8;
use std::arch::x86_64::*;

/// Activations that share a unit.
const BLOCK: usize = 32;
/// Weight rows that take every step together.
const W: usize = 4;
/// Such groups of rows that are read side by side: the more streams of memory, the better it is prefetched.
const GROUPS: usize = 2;
/// Weight rows that are read side by side.
const ROWS: usize = W * GROUPS;

/// Quantised rows that are multiplied with coded activations.
pub(crate) trait Blocks {
    /// Bytes of a coded activation.
    const DIGITS: usize;

    /// Products of `ROWS` weight rows, `step` apart from `row` on, with one row of activations.
    ///
    /// # Safety
    ///
    /// The features of [`skinny`] are there, and so are the rows.
    unsafe fn dots(weight: *const u8, row: usize, step: usize, x: Row) -> [f32; ROWS];
}

// Only functions that are always inlined are sure to take on the instruction set of `skinny`: what is below has none of
// its own, and no closures.

/// Adds the products of 32 unsigned codes of each row with a block of activations, times scale `at` of the row, to `acc`.
///
/// # Safety
///
/// The features of [`skinny`] are there.
#[inline(always)]
unsafe fn add_products<const D: usize>(
    q: [__m256i; W],
    x: [__m256i; D],
    scales: &[[f32; 8]; W],
    at: usize,
    acc: &mut [__m256; W],
) {
    // SAFETY: the caller's.
    unsafe {
        let sums = products(q, x);
        for j in 0..W {
            acc[j] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[j]), _mm256_set1_ps(scales[j][at]), acc[j]);
        }
    }
}

/// Sums of four products of unsigned codes with fixed-point numbers.
///
/// Rows take every step together: one after the other, their chains of instructions would fill the scheduler.
///
/// # Safety
///
/// The features of [`skinny`] are there.
#[inline(always)]
unsafe fn products<const N: usize, const D: usize>(q: [__m256i; N], x: [__m256i; D]) -> [__m256i; N] {
    // SAFETY: the caller's.
    unsafe {
        let mut sums = [_mm256_setzero_si256(); N];
        for j in 0..N {
            sums[j] = _mm256_dpbusd_epi32(sums[j], q[j], x[0]);
        }
        for i in 1..D {
            for j in 0..N {
                sums[j] = _mm256_slli_epi32::<8>(sums[j]);
            }
            for j in 0..N {
                sums[j] = _mm256_dpbusd_epi32(sums[j], q[j], x[i]);
            }
        }
        sums
    }
}

/// Sum of the lanes.
///
/// # Safety
///
/// AVX is there.
#[inline(always)]
unsafe fn sum(v: __m256) -> f32 {
    // SAFETY: the caller's.
    unsafe {
        let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
    }
}

/// Products of weight rows `from .. to` of `n_in` numbers with all rows of coded activations.
///
/// # Safety
///
/// AVX-512 F, BW, DQ, VL, VNNI and F16C are there; `weight` has the rows; the target has room.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(crate) unsafe fn skinny<B: Blocks>(weight: &[u8], n_in: usize, x: &Coded, from: usize, to: usize, target: Target) {
    let bias = |n: usize| {
        // SAFETY: a bias has as many numbers as there are weight rows.
        if target.bias.is_null() { 0.0 } else { unsafe { *target.bias.add(n) } }
    };
    // Runs of weight rows side by side, as in `dot`; what is left goes one by one, as so many of the same.
    let step = (to - from) / ROWS;
    for m in 0..x.rows() {
        let x = x.row(m, n_in);
        // SAFETY: the target has room, and the rows exist, by the caller.
        unsafe {
            let y = target.c.get().add(m * target.stride);
            for row in from..from + step {
                for (j, v) in B::dots(weight.as_ptr(), row, step, x).into_iter().enumerate() {
                    let n = row + j * step;
                    *y.add(n) = v + bias(n);
                }
            }
            for n in from + ROWS * step..to {
                *y.add(n) = B::dots(weight.as_ptr(), n, 0, x)[0] + bias(n);
            }
        }
    }
}
