//! Sixteen lanes: AVX-512 F, BW, DQ, VL, and VNNI for the 4-bit weights.

use super::{Isa, Level};
use std::arch::x86_64::*;

/// Vectors of sixteen f32.
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

// SAFETY of the blocks below: `Isa` methods run only where the set is present, and their
// callers pass pointers valid for sixteen elements; all loads and stores are unaligned.
impl Isa for Avx512 {
    type V = __m512;
    const LEVEL: Level = Level::Avx512;
    const LANES: usize = 16;
    const MR: usize = 14;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))) }
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: __m512) {
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, up));
            // A NaN keeps its upper half and gets a bit that rounding cannot clear.
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let quiet = _mm512_or_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(0x40));
            let kept = _mm512_mask_mov_epi32(rounded, nan, quiet);
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(kept));
        }
    }
    #[inline(always)]
    unsafe fn store_f16(p: *mut u16, v: __m512) {
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }
    #[inline(always)]
    unsafe fn load_low_nibbles(p: *const u8) -> __m512 {
        unsafe {
            let bytes = _mm_and_si128(_mm_loadu_si128(p.cast()), _mm_set1_epi8(15));
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))
        }
    }
    #[inline(always)]
    unsafe fn load_high_nibbles(p: *const u8) -> __m512 {
        unsafe {
            let bytes = _mm_srli_epi16::<4>(_mm_loadu_si128(p.cast()));
            let bytes = _mm_and_si128(bytes, _mm_set1_epi8(15));
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))
        }
    }
    #[inline(always)]
    unsafe fn widen_nibbles(p: *const u8, low: (__m512, __m512), high: (__m512, __m512), dst: *mut f32) {
        unsafe {
            // All sixteen values that four bits can have; a permutation looks them up by the lowest four.
            let codes = _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.);
            let (low, high) = (_mm512_fmadd_ps(codes, low.0, low.1), _mm512_fmadd_ps(codes, high.0, high.1));
            for i in [0, 16] {
                let pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.add(i).cast()));
                _mm512_storeu_ps(dst.add(i), _mm512_permutexvar_ps(pairs, low));
                _mm512_storeu_ps(dst.add(32 + i), _mm512_permutexvar_ps(_mm512_srli_epi32::<4>(pairs), high));
            }
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn round(v: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v) }
    }
    #[inline(always)]
    unsafe fn pow2(v: __m512) -> __m512 {
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }
    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(v) }
    }
    #[inline(always)]
    unsafe fn hmax(v: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(v) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: *const f32, stride: usize, dst: *mut f32, dst_stride: usize) {
        unsafe {
            // Quarter q of a vector comes from row i + 4 q, so after two rounds of unpacking
            // within 128 bits every vector is a finished column.
            let quad = |i: usize, j: usize| {
                let part = |q: usize| _mm_loadu_ps(rows.add((i + 4 * q) * stride + j));
                let v = _mm512_castps128_ps512(part(0));
                let v = _mm512_insertf32x4::<1>(v, part(1));
                let v = _mm512_insertf32x4::<2>(v, part(2));
                _mm512_insertf32x4::<3>(v, part(3))
            };
            for j in [0, 4, 8, 12] {
                let (a, b, c, d) = (quad(0, j), quad(1, j), quad(2, j), quad(3, j));
                let ab_low = _mm512_castps_pd(_mm512_unpacklo_ps(a, b));
                let ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(a, b));
                let cd_low = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
                let cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
                let out = |k: usize, v: __m512d| {
                    _mm512_storeu_ps(dst.add((j + k) * dst_stride), _mm512_castpd_ps(v));
                };
                out(0, _mm512_unpacklo_pd(ab_low, cd_low));
                out(1, _mm512_unpackhi_pd(ab_low, cd_low));
                out(2, _mm512_unpacklo_pd(ab_high, cd_high));
                out(3, _mm512_unpackhi_pd(ab_high, cd_high));
            }
        }
    }
    const TURNS_BF16: bool = true;
    #[inline(always)]
    unsafe fn transpose_bf16(rows: *const u16, stride: usize, dst: *mut f32, dst_stride: usize) {
        unsafe {
            // A pair of neighbours is one number of 32 bits: sixteen rows of sixteen are transposed, then pairs fall apart.
            let mut r = [_mm512_setzero_si512(); 16];
            for (i, r) in r.iter_mut().enumerate() {
                *r = _mm512_loadu_si512(rows.add(i * stride).cast());
            }
            // Within 128 bits: `t[4 g + c]` has column c of each quarter, rows 4 g .. 4 g + 4.
            let mut t = [_mm512_setzero_si512(); 16];
            for g in 0..4 {
                let [a, b, c, d] = [r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]];
                let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
                let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
                t[4 * g] = _mm512_unpacklo_epi64(ab_low, cd_low);
                t[4 * g + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
                t[4 * g + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
                t[4 * g + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
            }
            let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            for c in 0..4 {
                // Quarters 0 and 2, then 1 and 3, of rows 0 to 8 and 8 to 16.
                let (low, high) =
                    (_mm512_shuffle_i32x4::<0x88>(t[c], t[4 + c]), _mm512_shuffle_i32x4::<0x88>(t[8 + c], t[12 + c]));
                let (odd_low, odd_high) =
                    (_mm512_shuffle_i32x4::<0xdd>(t[c], t[4 + c]), _mm512_shuffle_i32x4::<0xdd>(t[8 + c], t[12 + c]));
                let columns = [
                    _mm512_shuffle_i32x4::<0x88>(low, high),
                    _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high),
                    _mm512_shuffle_i32x4::<0xdd>(low, high),
                    _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high),
                ];
                for (quarter, pairs) in columns.into_iter().enumerate() {
                    let to = dst.add(2 * (4 * quarter + c) * dst_stride);
                    _mm512_storeu_ps(to, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)));
                    _mm512_storeu_ps(to.add(dst_stride), _mm512_castsi512_ps(_mm512_and_si512(pairs, upper)));
                }
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_far(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
}
