//! q8_0: signed bytes become unsigned by 128 more, which the activations' sums take away again.

use super::*;
use crate::quant::Q8_0_BYTES;

/// Rows of q8_0 blocks.
pub(crate) enum Q8 {}

/// Blocks whose scales are made together.
const STEP: usize = 8;

/// Bytes ahead of its use that a weight is asked for: measured best on Zen 4.
const AHEAD: usize = 512;

impl Blocks for Q8 {
    const DIGITS: usize = 3;

    #[inline(always)]
    unsafe fn dots(weight: *const u8, row: usize, step: usize, x: Row) -> [f32; ROWS] {
        // SAFETY: blocks of the rows asked for exist; any address may be prefetched.
        unsafe {
            let zero = _mm256_setzero_ps();
            let (mut acc, mut offset) = ([[zero; W]; GROUPS], [[zero; W]; GROUPS]);
            let mut first = [[weight; W]; GROUPS];
            for (j, first) in first.as_flattened_mut().iter_mut().enumerate() {
                *first = weight.add((row + j * step) * x.blocks * Q8_0_BYTES);
            }
            // Scales are made one step ahead, for the products of a step fill the processor's window.
            let mut scales = [[[[0f32; STEP]; W]; GROUPS]; 2];
            for g in 0..GROUPS {
                step_scales(first[g], x, 0, &mut scales[0][g], &mut offset[g]);
            }
            for (at, b) in (0..x.blocks).step_by(STEP).enumerate() {
                if b + STEP < x.blocks {
                    for g in 0..GROUPS {
                        step_scales(first[g], x, b + STEP, &mut scales[1 - at % 2][g], &mut offset[g]);
                    }
                }
                let scales = &scales[at % 2];
                if b + STEP <= x.blocks {
                    for i in (0..STEP).step_by(2) {
                        for g in 0..GROUPS {
                            for first in first[g] {
                                _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add((b + i) * Q8_0_BYTES + AHEAD).cast());
                            }
                            add_block(first[g], x, b, i, &scales[g], &mut acc[g]);
                        }
                        for g in 0..GROUPS {
                            add_block(first[g], x, b, i + 1, &scales[g], &mut acc[g]);
                        }
                    }
                } else {
                    for i in 0..x.blocks - b {
                        for g in 0..GROUPS {
                            add_block(first[g], x, b, i, &scales[g], &mut acc[g]);
                        }
                    }
                }
            }
            let mut out = [0f32; ROWS];
            for j in 0..ROWS {
                out[j] = sum(_mm256_fnmadd_ps(offset[j / W][j % W], _mm256_set1_ps(128.0), acc[j / W][j % W]));
            }
            out
        }
    }
}

/// Block `b + i` of each row.
///
/// # Safety
///
/// The block exists, and the features of [`skinny`].
#[inline(always)]
unsafe fn add_block(
    first: [*const u8; W],
    x: Row,
    b: usize,
    i: usize,
    scales: &[[f32; STEP]; W],
    acc: &mut [__m256; W],
) {
    // SAFETY: the caller's.
    unsafe {
        let sign = _mm256_set1_epi8(-128);
        let mut q = [sign; W];
        for j in 0..W {
            let block = first[j].add((b + i) * Q8_0_BYTES);
            q[j] = _mm256_xor_si256(_mm256_loadu_si256(block.add(2).cast()), sign);
        }
        add_products(q, x.digits::<3>(b + i), scales, i, acc);
    }
}

/// The scales of a step of blocks from `b` on, times the activations' units; what 128 more takes is added to `offset`.
///
/// # Safety
///
/// Block `b`, a multiple of `STEP`, exists in each row, and the features of [`skinny`].
#[inline(always)]
unsafe fn step_scales(
    first: [*const u8; W],
    x: Row,
    b: usize,
    scales: &mut [[f32; STEP]; W],
    offset: &mut [__m256; W],
) {
    // SAFETY: the caller's; numbers of activations are there for the whole step, zeros where blocks have ended.
    unsafe {
        let units = _mm256_loadu_ps(x.units.as_ptr().add(b));
        let sums = _mm256_loadu_ps(x.sums.as_ptr().add(b));
        for j in 0..W {
            let d = halves(first[j].add(b * Q8_0_BYTES), x.blocks - b);
            offset[j] = _mm256_fmadd_ps(d, sums, offset[j]);
            _mm256_storeu_ps(scales[j].as_mut_ptr(), _mm256_mul_ps(d, units));
        }
    }
}

/// The scales of eight blocks, or of `count` and the last one's again.
///
/// # Safety
///
/// The blocks exist, and the features of [`skinny`].
#[inline(always)]
unsafe fn halves(block: *const u8, count: usize) -> __m256 {
    // SAFETY: the caller's.
    unsafe {
        let mut d = [0i16; STEP];
        for i in 0..STEP {
            let i_read = if count >= STEP { i } else { i.min(count - 1) };
            d[i] = block.add(i_read * Q8_0_BYTES).cast::<i16>().read_unaligned();
        }
        _mm256_cvtph_ps(_mm_setr_epi16(d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]))
    }
}
