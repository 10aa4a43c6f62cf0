//! Rows of activations as fixed-point numbers.

use super::BLOCK;
use std::arch::x86_64::*;

/// The bytes of 32 fixed-point numbers, highest first; with two bytes a number the first are zero.
#[repr(C, align(32))]
#[derive(Clone, Copy)]
struct Digits([[i8; BLOCK]; 3]);

impl Digits {
    const ZERO: Digits = Digits([[0; BLOCK]; 3]);

    /// The last `D` bytes of each number.
    ///
    /// # Safety
    ///
    /// AVX2 is there.
    #[inline(always)]
    unsafe fn load<const D: usize>(&self) -> [__m256i; D] {
        // SAFETY: the caller's; 32 bytes lie at a 32-byte boundary.
        unsafe {
            let mut out = [_mm256_setzero_si256(); D];
            for i in 0..D {
                out[i] = _mm256_load_si256(self.0[3 - D + i].as_ptr().cast());
            }
            out
        }
    }
}

/// Largest number of two bytes, or of three: four products with a code of up to 255 still fit into 32 bits.
fn largest(digits: usize) -> f32 {
    if digits == 2 { 32_639.0 } else { 2_097_151.0 }
}

/// Rows of activations as fixed-point numbers.
pub(crate) struct Coded {
    rows: usize,
    /// Blocks of a row, those included that fill up its last eight.
    blocks: usize,
    digits: Vec<Digits>,
    /// Value of one unit of a block.
    units: Vec<f32>,
    /// Sums of the blocks' numbers, as values.
    sums: Vec<f32>,
    /// Eight of these sums, coded themselves, four times.
    sum_digits: Vec<Digits>,
    /// Their units.
    sum_units: Vec<f32>,
}

impl Coded {
    /// Codes rows of `n_in` activations, a multiple of 32, with two or three bytes each.
    ///
    /// # Safety
    ///
    /// AVX-512 F, BW, DQ and VL are there.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(crate) unsafe fn new(x: &[f32], n_in: usize, digits: usize) -> Coded {
        let (rows, blocks) = (x.len() / n_in, (n_in / BLOCK).next_multiple_of(8));
        let room = rows * blocks;
        let mut out = Coded {
            rows,
            blocks,
            digits: vec![Digits::ZERO; room],
            units: vec![0.0; room],
            sums: vec![0.0; room],
            sum_digits: vec![Digits::ZERO; room / 8],
            sum_units: vec![0.0; room / 8],
        };
        for (m, x) in x.chunks_exact(n_in).enumerate() {
            for (b, x) in x.chunks(8 * BLOCK).enumerate() {
                let at = m * blocks + 8 * b;
                let mut sums = [0f32; BLOCK];
                for (i, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
                    let (unit, total) = code(x, digits, &mut out.digits[at + i]);
                    out.units[at + i] = unit;
                    out.sums[at + i] = unit * total as f32;
                    for sums in sums.as_chunks_mut::<8>().0 {
                        sums[i] = out.sums[at + i];
                    }
                }
                (out.sum_units[at / 8], _) = code(&sums, 3, &mut out.sum_digits[at / 8]);
            }
        }
        out
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Row `m`, of `n_in` activations.
    pub(super) fn row(&self, m: usize, n_in: usize) -> Row<'_> {
        let (from, to) = (m * self.blocks, (m + 1) * self.blocks);
        Row {
            blocks: n_in / BLOCK,
            digits: &self.digits[from..to],
            units: &self.units[from..to],
            sums: &self.sums[from..to],
            sum_digits: &self.sum_digits[from / 8..to / 8],
            sum_units: &self.sum_units[from / 8..to / 8],
        }
    }
}

/// Codes a block; gives the value of its unit and the sum of its numbers.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn code(x: &[f32; BLOCK], digits: usize, to: &mut Digits) -> (f32, i32) {
    // SAFETY: both halves of the block are loaded.
    let x = unsafe { [_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x.as_ptr().add(16))] };
    let infinite = _mm512_set1_ps(f32::INFINITY);
    let most = _mm512_max_ps(_mm512_abs_ps(x[0]), _mm512_abs_ps(x[1]));
    let both = _mm512_add_ps(_mm512_sub_ps(x[0], x[0]), _mm512_sub_ps(x[1], x[1]));
    // Infinities and NaN have no fixed-point code: they make the whole sum NaN.
    if _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(both), infinite) != u16::MAX {
        return (f32::NAN, 1);
    }
    let most = _mm512_reduce_max_ps(most);
    let inverse = largest(digits) / most;
    if !inverse.is_finite() {
        return (0.0, 0);
    }
    let mut all = _mm512_setzero_si512();
    for (half, x) in x.into_iter().enumerate() {
        let mut number = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(inverse)));
        all = _mm512_add_epi32(all, number);
        for byte in (3 - digits..3).rev() {
            // SAFETY: 16 of the 32 bytes are written.
            unsafe { _mm_storeu_si128(to.0[byte].as_mut_ptr().add(16 * half).cast(), _mm512_cvtepi32_epi8(number)) };
            let low = _mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(number));
            number = _mm512_srai_epi32::<8>(_mm512_sub_epi32(number, low));
        }
    }
    (most / largest(digits), _mm512_reduce_add_epi32(all))
}

/// One row of coded activations.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    /// Blocks of the row.
    pub(super) blocks: usize,
    digits: &'a [Digits],
    /// Value of a unit of each block; zero beyond the last one up to a multiple of eight.
    pub(super) units: &'a [f32],
    /// Sum of each block's numbers, as values; likewise.
    pub(super) sums: &'a [f32],
    sum_digits: &'a [Digits],
    /// Unit of the coded sums of each eight blocks.
    pub(super) sum_units: &'a [f32],
}

impl Row<'_> {
    /// The numbers of block `b`.
    ///
    /// # Safety
    ///
    /// The block exists, and AVX2 is there.
    #[inline(always)]
    pub(super) unsafe fn digits<const D: usize>(&self, b: usize) -> [__m256i; D] {
        // SAFETY: the caller's.
        unsafe { self.digits.get_unchecked(b).load() }
    }

    /// The sums of eight blocks from `8 b` on, four times.
    ///
    /// # Safety
    ///
    /// As for [`Row::digits`].
    #[inline(always)]
    pub(super) unsafe fn sum_digits(&self, b: usize) -> [__m256i; 3] {
        // SAFETY: the caller's.
        unsafe { self.sum_digits.get_unchecked(b).load() }
    }
}
