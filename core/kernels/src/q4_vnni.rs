//! q4_k weights times one row of activations with 8-bit integer dot products (AVX-512 VNNI).
//!
//! Widening 4-bit weights to f32 costs more time than reading them. Here the activations of a
//! super-block become 24-bit fixed-point numbers, kept as three signed bytes each, and the
//! sums of products are exact integers: the result is as good as f32 arithmetic on the
//! dequantised weights, unlike with 8-bit activations.

use crate::dot::AHEAD;
use crate::gemm::Target;
use crate::quant::Q4K_BYTES;
use std::arch::x86_64::*;

/// Activations of one super-block.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(crate) struct Coded {
    /// `[half of the super-block][low or high nibbles][top, middle, bottom byte][64]`
    bytes: [[[[i8; 64]; 3]; 2]; 2],
    /// Eight zeros, then the sums of 32 activations each.
    sums: [f32; 16],
    /// Eight times the value of one unit of the fixed-point numbers, then ones.
    factors: [f32; 16],
}

/// Largest fixed-point number: its top byte is 127 and the lower ones are free to round.
const LARGEST: f32 = 127.0 * 65536.0;

/// Weight rows that are read side by side.
const STREAMS: usize = 4;

/// Codes rows of whole super-blocks.
pub(crate) fn code(x: &[f32]) -> Vec<Coded> {
    x.as_chunks::<256>().0.iter().map(code_block).collect()
}

fn code_block(x: &[f32; 256]) -> Coded {
    let mut out = Coded { bytes: [[[[0; 64]; 3]; 2]; 2], sums: [0.0; 16], factors: [1.0; 16] };
    let amax = x.iter().fold(0f32, |a, v| a.max(v.abs()));
    // Infinities and NaN have no fixed-point code: they make the whole sum NaN.
    let finite = x.iter().all(|v| v.is_finite());
    out.factors[..8].fill(if finite { amax / LARGEST } else { f32::NAN });
    let inverse = if amax > 0.0 && finite { LARGEST / amax } else { 0.0 };
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    for (j, x) in x.as_chunks::<32>().0.iter().enumerate() {
        out.sums[8 + j] = x.iter().sum();
        let (half, high, at) = (j / 4, j % 2, j % 4 / 2 * 32);
        let [top, middle, bottom] = &mut out.bytes[half][high];
        for (i, &v) in x.iter().enumerate() {
            let number = (v * inverse).round_ties_even() as i32;
            let low = number as i8;
            let rest = (number - i32::from(low)) >> 8;
            let mid = rest as i8;
            bottom[at + i] = low;
            middle[at + i] = mid;
            top[at + i] = ((rest - i32::from(mid)) >> 8) as i8;
        }
    }
    out
}

/// Products of weight rows `from .. to` with `rows` rows of coded activations.
///
/// # Safety
///
/// AVX-512 F, BW, VL, VNNI and F16C are there; `weight` points to whole rows of `blocks`
/// super-blocks; `x` holds `rows * blocks` codes; the target has room.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(crate) unsafe fn few(weight: *const u8, blocks: usize, x: &[Coded], from: usize, to: usize, target: Target) {
    let rows = x.len() / blocks;
    let bias = |n: usize| {
        // SAFETY: a bias has as many numbers as there are weight rows.
        if target.bias.is_null() { 0.0 } else { unsafe { *target.bias.add(n) } }
    };
    // Runs of weight rows side by side, as in `dot`.
    let step = (to - from) / STREAMS;
    for m in 0..rows {
        let x = &x[m * blocks..][..blocks];
        // SAFETY: the target has room, by the caller.
        let y = unsafe { target.c.get().add(m * target.stride) };
        for row in from..from + step {
            // SAFETY: the caller's.
            unsafe {
                for (j, v) in dots::<STREAMS>(weight, row, step, x).into_iter().enumerate() {
                    let n = row + j * step;
                    *y.add(n) = v + bias(n);
                }
            }
        }
        for n in from + STREAMS * step..to {
            // SAFETY: the caller's.
            unsafe { *y.add(n) = dots::<1>(weight, n, 1, x)[0] + bias(n) };
        }
    }
}

/// Products of `W` weight rows, `step` apart from `row` on, with one row of coded activations.
///
/// # Safety
///
/// As for [`few`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn dots<const W: usize>(weight: *const u8, row: usize, step: usize, x: &[Coded]) -> [f32; W] {
    let mut acc = [_mm512_setzero_ps(); W];
    let mut offset = [_mm512_setzero_ps(); W];
    for (b, coded) in x.iter().enumerate() {
        for j in 0..W {
            // SAFETY: block `b` of row `j` exists by the caller's contract.
            unsafe {
                let block = weight.add(((row + j * step) * x.len() + b) * Q4K_BYTES);
                one(block, coded, &mut acc[j], &mut offset[j]);
            }
        }
    }
    std::array::from_fn(|j| _mm512_reduce_add_ps(_mm512_sub_ps(acc[j], offset[j])))
}

/// Scales times `d`, then minima times `d_min`, as f32 in eight lanes each.
///
/// # Safety
///
/// 16 bytes are readable at `block`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn scales(block: *const u8, factors: __m512) -> __m512 {
    // SAFETY: the caller's.
    let head = unsafe { _mm_loadu_si128(block.cast()) };
    // Bytes 4.. of the head hold three words a, b, c; scales 0-3 and minima 0-3 are the low
    // six bits of a and b; of the others c has the low four bits, a and b the upper two.
    let low = _mm_setr_epi8(4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15);
    let top = _mm_setr_epi8(-1, -1, -1, -1, 4, 5, 6, 7, -1, -1, -1, -1, 8, 9, 10, 11);
    let low = _mm_srlv_epi32(_mm_shuffle_epi8(head, low), _mm_setr_epi32(0, 0, 0, 4));
    let low_bits = _mm_setr_epi32(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f);
    let top = _mm_srli_epi32::<2>(_mm_shuffle_epi8(head, top));
    let top = _mm_and_si128(top, _mm_set1_epi8(0x30));
    let all = _mm_or_si128(_mm_and_si128(low, low_bits), top);
    let numbers = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(all));
    let heads = _mm512_castps128_ps512(_mm_cvtph_ps(head));
    let lanes = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    _mm512_mul_ps(numbers, _mm512_mul_ps(_mm512_permutexvar_ps(lanes, heads), factors))
}

/// Adds one super-block's scaled products to `acc`, and what its minima take away to `offset`.
///
/// # Safety
///
/// 144 bytes are readable at `block`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn one(block: *const u8, x: &Coded, acc: &mut __m512, offset: &mut __m512) {
    // SAFETY: the caller's; both arrays have sixteen floats; any address may be prefetched.
    let (scales, sums) = unsafe {
        _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(AHEAD).cast());
        _mm_prefetch::<_MM_HINT_T0>(block.wrapping_add(AHEAD + 64).cast());
        let factors = _mm512_load_ps(x.factors.as_ptr());
        (scales(block, factors), _mm512_load_ps(x.sums.as_ptr()))
    };
    *offset = _mm512_fmadd_ps(scales, sums, *offset);
    let nibble = _mm512_set1_epi8(15);
    for (half, x) in x.bytes.iter().enumerate() {
        // SAFETY: 64 bytes of nibbles from 16 or 80 on are within the block.
        let q = unsafe { _mm512_loadu_si512(block.add(16 + 64 * half).cast()) };
        for (high, x) in x.iter().enumerate() {
            let q = if high == 1 { _mm512_srli_epi16::<4>(q) } else { q };
            let q = _mm512_and_si512(q, nibble);
            // SAFETY: each part has 64 bytes at a 64-byte boundary.
            let part = |i: usize| unsafe { _mm512_load_si512(x[i].as_ptr().cast()) };
            let sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), q, part(0));
            let sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<8>(sum), q, part(1));
            let sum = _mm512_dpbusd_epi32(_mm512_slli_epi32::<8>(sum), q, part(2));
            // The lower eight lanes are this half's first group, the upper ones its second.
            let (a, b) = ((4 * half + high) as i32, (4 * half + 2 + high) as i32);
            let lanes = _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b);
            let scale = _mm512_permutexvar_ps(lanes, scales);
            *acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, *acc);
        }
    }
}
