//! GGUF block formats q8_0 and q4_k: reading, and quantising as ggml's reference code.
//!
//! Follows ggml `ggml-quants.c`: `quantize_row_q8_0_ref`, `quantize_row_q4_K_ref`,
//! `make_qkx2_quants`, `dequantize_row_q4_K`.

use crate::isa::Isa;
use crate::parallel;
use crate::weight::{ShapeError, Weight, check_len};
use half::f16;

/// Bytes of a q8_0 block of 32 weights: an f16 scale and 32 signed bytes.
pub const Q8_0_BYTES: usize = 34;
/// Bytes of a q4_k super-block of 256 weights: two f16, 12 bytes of scales, 128 of nibbles.
pub const Q4K_BYTES: usize = 144;

/// An f16 at two little-endian bytes.
///
/// # Safety
///
/// Both bytes are readable.
#[inline(always)]
pub(crate) unsafe fn half_at<I: Isa>(p: *const u8) -> f32 {
    // SAFETY: the caller's.
    unsafe { I::half(u16::from_le_bytes([*p, *p.add(1)])) }
}

/// Eight 6-bit scales and eight 6-bit minima of a super-block, a byte each.
///
/// # Safety
///
/// Twelve bytes are readable at `p`.
#[inline(always)]
pub(crate) unsafe fn q4_k_scales(p: *const u8) -> ([u8; 8], [u8; 8]) {
    // SAFETY: the caller's.
    let at = |i: usize| u32::from_le(unsafe { p.add(4 * i).cast::<u32>().read_unaligned() });
    let (a, b, c) = (at(0), at(1), at(2));
    let two = 0x0303_0303;
    let four = 0x0f0f_0f0f;
    let six = 0x3f3f_3f3f;
    let join = |low: u32, high: u32| (u64::from(low) | u64::from(high) << 32).to_le_bytes();
    let scales = join(a & six, (c & four) | (((a >> 6) & two) << 4));
    let minima = join(b & six, ((c >> 4) & four) | (((b >> 6) & two) << 4));
    (scales, minima)
}

/// Widens one q8_0 block to 32 f32.
///
/// # Safety
///
/// `block` has 34 readable bytes, `dst` room for 32 f32.
#[inline(always)]
pub(crate) unsafe fn widen_q8_0<I: Isa>(block: *const u8, dst: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        let d = I::splat(half_at::<I>(block));
        let q = block.add(2).cast::<i8>();
        let mut i = 0;
        while i < 32 {
            I::store(dst.add(i), I::mul(I::load_i8(q.add(i)), d));
            i += I::LANES;
        }
    }
}

/// Widens one q4_k super-block to 256 f32.
///
/// # Safety
///
/// `block` has 144 readable bytes, `dst` room for 256 f32.
#[inline(always)]
pub(crate) unsafe fn widen_q4_k<I: Isa>(block: *const u8, dst: *mut f32) {
    // SAFETY: the caller's.
    unsafe {
        let (d, d_min) = (half_at::<I>(block), half_at::<I>(block.add(2)));
        let (scales, minima) = q4_k_scales(block.add(4));
        for g in 0..4 {
            let q = block.add(16 + 32 * g);
            let out = dst.add(64 * g);
            let scale = |j: usize| I::splat(d * f32::from(scales[2 * g + j]));
            let min = |j: usize| I::splat(-d_min * f32::from(minima[2 * g + j]));
            let (s0, s1, m0, m1) = (scale(0), scale(1), min(0), min(1));
            let mut i = 0;
            while i < 32 {
                I::store(out.add(i), I::fma(I::load_low_nibbles(q.add(i)), s0, m0));
                I::store(out.add(32 + i), I::fma(I::load_high_nibbles(q.add(i)), s1, m1));
                i += I::LANES;
            }
        }
    }
}

/// Quantises f32 `[n, 32 k]` to q8_0: 34 bytes a block, scale amax / 127, all threads.
///
/// # Errors
///
/// Where the number of weights is no multiple of 32.
pub fn quantize_q8_0(x: &[f32]) -> Result<Vec<u8>, ShapeError> {
    quantize(x, 32, Q8_0_BYTES, "a multiple of 32", q8_0_block)
}

/// Quantises f32 `[n, 256 k]` to q4_k: 144 bytes a super-block, all threads.
///
/// # Errors
///
/// Where the number of weights is no multiple of 256.
pub fn quantize_q4_k(x: &[f32]) -> Result<Vec<u8>, ShapeError> {
    quantize(x, 256, Q4K_BYTES, "a multiple of 256", q4_k_block)
}

fn quantize(
    x: &[f32],
    block: usize,
    bytes: usize,
    allowed: &'static str,
    code: impl Fn(&[f32], &mut [u8]) + Sync,
) -> Result<Vec<u8>, ShapeError> {
    if !x.len().is_multiple_of(block) {
        return Err(ShapeError::Size { what: "number of weights", found: x.len(), allowed });
    }
    let mut out = vec![0; x.len() / block * bytes];
    parallel::chunks_mut(&mut out, 64 * bytes, |start, out| {
        let x = &x[start / bytes * block..];
        for (x, out) in x.chunks_exact(block).zip(out.chunks_exact_mut(bytes)) {
            code(x, out);
        }
    });
    Ok(out)
}

fn q8_0_block(x: &[f32], out: &mut [u8]) {
    let amax = x.iter().fold(0f32, |a, v| a.max(v.abs()));
    let d = amax / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (q, v) in out[2..].iter_mut().zip(x) {
        *q = (v * inverse).round() as i8 as u8;
    }
}

/// Scale and minimum (as a positive number) for 32 weights coded in 0..=15: the best of a
/// plain fit and 21 weighted least-squares fits.
fn fit_scale_min(x: &[f32], weights: &[f32; 32]) -> (f32, f32) {
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (0f32, 0f32);
    for (&v, &w) in x.iter().zip(weights) {
        min = min.min(v);
        max = max.max(v);
        sum_w += w;
        sum_x += w * v;
    }
    min = min.min(0.0);
    if max == min {
        return (0.0, -min);
    }
    let code = |inverse: f32, min: f32, v: f32| (inverse * (v - min)).round_ties_even().clamp(0.0, 15.0);
    let error = |codes: &[f32; 32], scale: f32, offset: f32| {
        let mut sum = 0f32;
        for i in 0..32 {
            let d = scale * codes[i] + offset - x[i];
            sum += weights[i] * d * d;
        }
        sum
    };
    let inverse = 15.0 / (max - min);
    let (mut best_scale, mut best_min) = (1.0 / inverse, min);
    let codes = std::array::from_fn(|i| code(inverse, min, x[i]));
    let mut best = error(&codes, best_scale, best_min);
    for step in 0..=20 {
        // As in ggml, later steps code against the best minimum so far.
        let inverse = (-1.0 + 0.1 * step as f32 + 15.0) / (max - best_min);
        let codes = std::array::from_fn(|i| code(inverse, best_min, x[i]));
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0f32, 0f32, 0f32);
        for ((&l, &v), &w) in codes.iter().zip(x).zip(weights) {
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * v;
        }
        let det = sum_w * sum_l2 - sum_l * sum_l;
        if det <= 0.0 {
            continue;
        }
        let mut scale = (sum_w * sum_xl - sum_x * sum_l) / det;
        let mut offset = (sum_l2 * sum_x - sum_l * sum_xl) / det;
        if offset > 0.0 {
            offset = 0.0;
            scale = sum_xl / sum_l2;
        }
        let found = error(&codes, scale, offset);
        if found < best {
            (best, best_scale, best_min) = (found, scale, offset);
        }
    }
    (best_scale, -best_min)
}

fn q4_k_block(x: &[f32], out: &mut [u8]) {
    let mut scales = [0f32; 8];
    let mut minima = [0f32; 8];
    for (j, x) in x.chunks_exact(32).enumerate() {
        let mean = (x.iter().map(|v| v * v).sum::<f32>() / 32.0).sqrt();
        let weights: [f32; 32] = std::array::from_fn(|i| mean + x[i].abs());
        (scales[j], minima[j]) = fit_scale_min(x, &weights);
    }
    let max_scale = scales.iter().fold(0f32, |a, &b| a.max(b));
    let max_min = minima.iter().fold(0f32, |a, &b| a.max(b));
    let inverse = |max: f32| if max > 0.0 { 63.0 / max } else { 0.0 };
    let six = |v: f32, max: f32| (inverse(max) * v).round_ties_even().clamp(0.0, 63.0) as u8;
    let (head, codes) = out.split_at_mut(16);
    head[..2].copy_from_slice(&f16::from_f32(max_scale / 63.0).to_le_bytes());
    head[2..4].copy_from_slice(&f16::from_f32(max_min / 63.0).to_le_bytes());
    let packed = &mut head[4..];
    packed.fill(0);
    for j in 0..8 {
        let (s, m) = (six(scales[j], max_scale), six(minima[j], max_min));
        if j < 4 {
            packed[j] |= s;
            packed[j + 4] |= m;
        } else {
            packed[j + 4] = (s & 15) | (m & 15) << 4;
            packed[j - 4] |= (s >> 4) << 6;
            packed[j] |= (m >> 4) << 6;
        }
    }
    let d = f16::from_f32(max_scale / 63.0).to_f32();
    let d_min = f16::from_f32(max_min / 63.0).to_f32();
    // SAFETY: `packed` has twelve bytes.
    let (s, m) = unsafe { q4_k_scales(packed.as_ptr()) };
    for j in 0..8 {
        let (d, d_min) = (d * f32::from(s[j]), d_min * f32::from(m[j]));
        for i in 0..32 {
            // A zero scale makes every code stand for the minimum: any code will do.
            let l = if d == 0.0 { 0.0 } else { ((x[32 * j + i] + d_min) / d).round_ties_even() };
            let l = l.clamp(0.0, 15.0) as u8;
            let byte = &mut codes[j / 2 * 32 + i];
            *byte = if j % 2 == 0 { l } else { *byte | l << 4 };
        }
    }
}

/// Widens a whole weight to f32, `[n_out * n_in]`, all threads.
///
/// # Errors
///
/// Where `out` has another length than the weight has numbers.
pub fn dequantize(weight: Weight, out: &mut [f32]) -> Result<(), ShapeError> {
    let n = match weight {
        Weight::F32(w) => w.len(),
        Weight::F16(w) => w.len(),
        Weight::Bf16(w) => w.len(),
        Weight::Q8_0(w) => w.len() / Q8_0_BYTES * 32,
        Weight::Q4K(w) => w.len() / Q4K_BYTES * 256,
    };
    weight.check(1, n)?;
    check_len("dequantised weight", &[n], out.len())?;
    parallel::chunks_mut(out, 1 << 14, |start, out| {
        crate::linear::widen(weight, n, start, out);
    });
    Ok(())
}
