//! q4_k: four bits as they lie, the upper ones sixteen-fold, which their scales take away again.

use super::*;
use crate::quant::Q4K_BYTES;

/// Rows of q4_k super-blocks.
pub(crate) enum Q4 {}

/// Bytes of a coded activation: with three of them the arithmetic and not the memory sets the pace.
const D: usize = 2;

/// Bytes ahead of the next super-block that a weight is asked for: measured best on Zen 4.
const AHEAD: usize = 128;

impl Blocks for Q4 {
    const DIGITS: usize = D;

    #[inline(always)]
    unsafe fn dots(weight: *const u8, row: usize, step: usize, x: Row) -> [f32; ROWS] {
        // SAFETY: blocks of the rows asked for exist; any address may be prefetched.
        unsafe {
            let zero = _mm256_setzero_ps();
            let (mut acc, mut minima) = ([[zero; W]; GROUPS], [zero; GROUPS]);
            let blocks = x.blocks / 8;
            let mut block = [[weight; W]; GROUPS];
            for (j, block) in block.as_flattened_mut().iter_mut().enumerate() {
                *block = weight.add((row + j * step) * blocks * Q4K_BYTES);
            }
            // Scales are made one step ahead, for the products of a step fill the processor's window.
            let mut scales = [[[[0f32; 8]; W]; GROUPS]; 2];
            for g in 0..GROUPS {
                minima[g] = add_heads(block[g], x, 0, &mut scales[0][g], minima[g]);
            }
            for b in 0..blocks {
                let mut next = block;
                for next in next.as_flattened_mut() {
                    *next = next.wrapping_add(Q4K_BYTES);
                    _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(AHEAD).cast());
                    _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add(AHEAD + 64).cast());
                }
                if b + 1 < blocks {
                    for g in 0..GROUPS {
                        minima[g] = add_heads(next[g], x, b + 1, &mut scales[1 - b % 2][g], minima[g]);
                    }
                }
                let scales = &scales[b % 2];
                for part in 0..4 {
                    for g in 0..GROUPS {
                        let (low, high) = (_mm256_set1_epi8(15), _mm256_set1_epi8(-16));
                        let (mut even, mut odd) = ([low; W], [high; W]);
                        for j in 0..W {
                            let q = _mm256_loadu_si256(block[g][j].add(16 + 32 * part).cast());
                            (even[j], odd[j]) = (_mm256_and_si256(q, low), _mm256_and_si256(q, high));
                        }
                        add_products(even, x.digits::<D>(8 * b + 2 * part), &scales[g], 2 * part, &mut acc[g]);
                        add_products(odd, x.digits::<D>(8 * b + 2 * part + 1), &scales[g], 2 * part + 1, &mut acc[g]);
                    }
                }
                block = next;
            }
            let mut out = [0f32; ROWS];
            for g in 0..GROUPS {
                let mut taken = [0f32; 8];
                _mm256_storeu_ps(taken.as_mut_ptr(), minima[g]);
                for j in 0..W {
                    out[W * g + j] = sum(acc[g][j]) - (taken[2 * ORDER[j]] + taken[2 * ORDER[j] + 1]);
                }
            }
            out
        }
    }
}

/// Where two rows of two vectors lie after their halves are brought together.
const ORDER: [usize; W] = [0, 2, 1, 3];

/// The scales of super-block `b` in each row, times the activations' units; gives `minima` with what these minima take.
///
/// `minima` has two numbers a row, rows in `ORDER`.
///
/// # Safety
///
/// The blocks are super-blocks `b` of their rows, and it exists, and the features of [`skinny`].
#[inline(always)]
unsafe fn add_heads(blocks: [*const u8; W], x: Row, b: usize, scales: &mut [[f32; 8]; W], minima: __m256) -> __m256 {
    // SAFETY: the caller's.
    unsafe {
        let sixteenth = _mm256_setr_ps(1.0, 0.0625, 1.0, 0.0625, 1.0, 0.0625, 1.0, 0.0625);
        let units = _mm256_mul_ps(_mm256_loadu_ps(x.units.as_ptr().add(8 * b)), sixteenth);
        let (first, second) = (unpack(blocks[0], blocks[1]), unpack(blocks[2], blocks[3]));
        let mut d = [0i32; W];
        for j in 0..W {
            d[ORDER[j]] = blocks[j].cast::<i32>().read_unaligned();
        }
        let d = _mm256_cvtph_ps(_mm_setr_epi32(d[0], d[1], d[2], d[3]));
        // Both lanes of a row.
        let (d, d_min) = (_mm256_moveldup_ps(d), _mm256_movehdup_ps(d));
        let mut factors = [0f32; 8];
        _mm256_storeu_ps(factors.as_mut_ptr(), d);
        let bytes = [
            _mm256_castsi256_si128(first),
            _mm256_extracti128_si256::<1>(first),
            _mm256_castsi256_si128(second),
            _mm256_extracti128_si256::<1>(second),
        ];
        for j in 0..W {
            let scale = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes[j]));
            let scale = _mm256_mul_ps(_mm256_mul_ps(scale, units), _mm256_set1_ps(factors[2 * ORDER[j]]));
            _mm256_storeu_ps(scales[j].as_mut_ptr(), scale);
        }
        let [sums] = products([_mm256_unpackhi_epi64(first, second)], x.sum_digits(b));
        let unit = _mm256_mul_ps(d_min, _mm256_set1_ps(*x.sum_units.get_unchecked(b)));
        _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), unit, minima)
    }
}

/// Eight scales, then eight minima, a byte each, of two super-blocks.
///
/// # Safety
///
/// 16 bytes are readable at both, and the features of [`skinny`] are there.
#[inline(always)]
unsafe fn unpack(a: *const u8, b: *const u8) -> __m256i {
    // SAFETY: the caller's.
    unsafe {
        let head =
            _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(_mm_loadu_si128(a.cast())), _mm_loadu_si128(b.cast()));
        // Bytes 4.. of the head hold three words a, b, c; scales 0-3 and minima 0-3 are the low
        // six bits of a and b; of the others c has the low four bits, a and b the upper two.
        let low = _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
        let top = _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11);
        let (low, top) = (_mm256_broadcastsi128_si256(low), _mm256_broadcastsi128_si256(top));
        let four = _mm256_setr_epi32(0, 0, 0, 4, 0, 0, 0, 4);
        let (a, b) = (0x3f3f_3f3f, 0x0f0f_0f0f);
        let low_bits = _mm256_setr_epi32(a, b, a, b, a, b, a, b);
        let low = _mm256_srlv_epi32(_mm256_shuffle_epi8(head, low), four);
        let top = _mm256_srli_epi32::<2>(_mm256_shuffle_epi8(head, top));
        let top = _mm256_and_si256(top, _mm256_set1_epi8(0x30));
        _mm256_or_si256(_mm256_and_si256(low, low_bits), top)
    }
}
