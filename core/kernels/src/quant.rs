//! GGUF block formats q8_0 and q4_k: reading, and quantising as ggml's reference code.
//!
//! Follows ggml `ggml-quants.c`: `quantize_row_q8_0_ref`, `quantize_row_q4_K_ref`,
//! `make_qkx2_quants`, `dequantize_row_q4_K`.

use crate::blocks::DecodeQ4K;
use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::parallel;
use crate::shape::{ShapeError, check_len};
use crate::weight::Weight;
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
        // Eight each, and eight of no meaning that fill the longest vector.
        let (mut bytes, mut heads) = ([[0u8; 16]; 2], [[0f32; 16]; 2]);
        bytes[0][..8].copy_from_slice(&scales);
        bytes[1][..8].copy_from_slice(&minima);
        for ((bytes, heads), unit) in bytes.iter().zip(&mut heads).zip([d, -d_min]) {
            for i in (0..16).step_by(I::LANES) {
                let codes = I::load_i8(bytes.as_ptr().add(i).cast());
                I::store(heads.as_mut_ptr().add(i), I::mul(codes, I::splat(unit)));
            }
        }
        for g in 0..4 {
            let of = |j: usize| (I::splat(heads[0][2 * g + j]), I::splat(heads[1][2 * g + j]));
            I::widen_nibbles(block.add(16 + 32 * g), of(0), of(1), dst.add(64 * g));
        }
    }
}

/// Quantises f32 `[n, 32 k]` to q8_0: 34 bytes a block, scale amax / 127, all threads.
///
/// # Errors
///
/// Where the number of weights is no multiple of 32.
pub fn quantize_q8_0(x: &[f32]) -> Result<Vec<u8>, ShapeError> {
    quantize(x, 32, Q8_0_BYTES, "a multiple of 32")
}

/// Quantises f32 `[n, 256 k]` to q4_k: 144 bytes a super-block, all threads.
///
/// # Errors
///
/// Where the number of weights is no multiple of 256.
pub fn quantize_q4_k(x: &[f32]) -> Result<Vec<u8>, ShapeError> {
    quantize(x, 256, Q4K_BYTES, "a multiple of 256")
}

fn quantize(x: &[f32], block: usize, bytes: usize, allowed: &'static str) -> Result<Vec<u8>, ShapeError> {
    if !x.len().is_multiple_of(block) {
        return Err(ShapeError::Size { what: "number of weights", found: x.len(), allowed });
    }
    let mut out = vec![0; x.len() / block * bytes];
    let level = Level::current();
    parallel::chunks_mut(&mut out, 64 * bytes, |start, out| {
        let x = &x[start / bytes * block..];
        // SAFETY: the level is supported; the kernel holds no pointers.
        unsafe { dispatch(level, Code { x, out, block, bytes }) };
    });
    Ok(out)
}

/// Blocks of weights and of the bytes that they become, coded with the instructions of a level: it rounds with one.
///
/// The coder is called by its name: called through a parameter it would not be compiled for the level.
struct Code<'a> {
    x: &'a [f32],
    out: &'a mut [u8],
    block: usize,
    bytes: usize,
}

impl Kernel for Code<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        for (x, out) in self.x.chunks_exact(self.block).zip(self.out.chunks_exact_mut(self.bytes)) {
            if self.bytes == Q4K_BYTES {
                q4_k_block(x, out);
            } else {
                q8_0_block(x, out);
            }
        }
    }
}

#[inline(always)]
fn q8_0_block(x: &[f32], out: &mut [u8]) {
    let amax = x.iter().fold(0f32, |a, v| a.max(v.abs()));
    let d = amax / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (q, v) in out[2..].iter_mut().zip(x) {
        *q = (v * inverse).round() as i8 as u8;
    }
}

/// Eight numbers that are worked on side by side, one for each 32 weights of a super-block.
type Lanes = [f32; 8];

// Closures are not inlined for certain, and one that is not loses the instructions of its level: loops alone here.
macro_rules! lanes {
    ($j:ident => $value:expr) => {{
        let mut out = [0f32; 8];
        for $j in 0..8 {
            out[$j] = $value;
        }
        out
    }};
}

/// The codes of 256 weights in 0..=15.
#[inline(always)]
fn codes(x: &[Lanes; 32], inverse: &Lanes, min: &Lanes) -> [Lanes; 32] {
    let mut out = [[0f32; 8]; 32];
    for i in 0..32 {
        for j in 0..8 {
            let l = (inverse[j] * (x[i][j] - min[j])).round_ties_even();
            let l = if l > 0.0 { l } else { 0.0 };
            out[i][j] = if l < 15.0 { l } else { 15.0 };
        }
    }
    out
}

/// Weighted squares of what codes miss.
#[inline(always)]
fn error(x: &[Lanes; 32], weights: &[Lanes; 32], codes: &[Lanes; 32], scale: &Lanes, offset: &Lanes) -> Lanes {
    let mut sum = [0f32; 8];
    for i in 0..32 {
        for j in 0..8 {
            let d = scale[j] * codes[i][j] + offset[j] - x[i][j];
            sum[j] += weights[i][j] * d * d;
        }
    }
    sum
}

/// Scale and minimum (as a positive number) of each 32 of 256 weights that are coded in 0..=15: the best of a plain fit
/// and 21 weighted least-squares fits.
///
/// `x` has the weights transposed, the i-th of each 32 side by side. Sums run over i, as in ggml, so that the codes are
/// the same whatever the instructions.
#[inline(always)]
fn fit_scales_mins(x: &[Lanes; 32]) -> (Lanes, Lanes) {
    let mut squares = [0f32; 8];
    for x in x {
        squares = lanes!(j => squares[j] + x[j] * x[j]);
    }
    let mean = lanes!(j => (squares[j] / 32.0).sqrt());
    let mut weights = [[0f32; 8]; 32];
    for i in 0..32 {
        weights[i] = lanes!(j => mean[j] + x[i][j].abs());
    }
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = ([0f32; 8], [0f32; 8]);
    for i in 0..32 {
        let (x, w) = (&x[i], &weights[i]);
        min = lanes!(j => if x[j] < min[j] { x[j] } else { min[j] });
        max = lanes!(j => if x[j] > max[j] { x[j] } else { max[j] });
        sum_w = lanes!(j => sum_w[j] + w[j]);
        sum_x = lanes!(j => sum_x[j] + w[j] * x[j]);
    }
    min = lanes!(j => if min[j] < 0.0 { min[j] } else { 0.0 });
    let inverse = lanes!(j => 15.0 / (max[j] - min[j]));
    let (mut best_scale, mut best_min) = (lanes!(j => 1.0 / inverse[j]), min);
    let coded = codes(x, &inverse, &min);
    let mut best = error(x, &weights, &coded, &best_scale, &best_min);
    for step in 0..=20 {
        // As in ggml, later steps code against the best minimum so far.
        let inverse = lanes!(j => (-1.0 + 0.1 * step as f32 + 15.0) / (max[j] - best_min[j]));
        let coded = codes(x, &inverse, &best_min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = ([0f32; 8], [0f32; 8], [0f32; 8]);
        for i in 0..32 {
            let (l, x, w) = (&coded[i], &x[i], &weights[i]);
            sum_l = lanes!(j => sum_l[j] + w[j] * l[j]);
            sum_l2 = lanes!(j => sum_l2[j] + w[j] * l[j] * l[j]);
            sum_xl = lanes!(j => sum_xl[j] + w[j] * l[j] * x[j]);
        }
        let det = lanes!(j => sum_w[j] * sum_l2[j] - sum_l[j] * sum_l[j]);
        let scale = lanes!(j => (sum_w[j] * sum_xl[j] - sum_x[j] * sum_l[j]) / det[j]);
        let offset = lanes!(j => (sum_l2[j] * sum_x[j] - sum_l[j] * sum_xl[j]) / det[j]);
        let scale = lanes!(j => if offset[j] > 0.0 { sum_xl[j] / sum_l2[j] } else { scale[j] });
        let offset = lanes!(j => if offset[j] > 0.0 { 0.0 } else { offset[j] });
        let found = error(x, &weights, &coded, &scale, &offset);
        for j in 0..8 {
            let better = det[j] > 0.0 && found[j] < best[j];
            best[j] = if better { found[j] } else { best[j] };
            best_scale[j] = if better { scale[j] } else { best_scale[j] };
            best_min[j] = if better { offset[j] } else { best_min[j] };
        }
    }
    // Where all weights are one number, the minimum alone stands for it.
    let scale = lanes!(j => if max[j] == min[j] { 0.0 } else { best_scale[j] });
    (scale, lanes!(j => -if max[j] == min[j] { min[j] } else { best_min[j] }))
}

#[inline(always)]
fn q4_k_block(x: &[f32], out: &mut [u8]) {
    let mut transposed = [[0f32; 8]; 32];
    for i in 0..32 {
        transposed[i] = lanes!(j => x[32 * j + i]);
    }
    let (scales, minima) = fit_scales_mins(&transposed);
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

/// Widens a whole weight to f32, `[n_out * n_in]`, all threads; blocks give the numbers of ggml's own reference to the last
/// bit.
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
        Weight::Blocks(format, w) => w.len() / format.bytes() * format.numbers(),
    };
    weight.check(1, n)?;
    check_len("dequantised weight", &[n], out.len())?;
    parallel::chunks_mut(out, 1 << 14, |start, out| match weight {
        Weight::Q4K(w) => {
            let bytes = &w[start / 256 * Q4K_BYTES..][..out.len() / 256 * Q4K_BYTES];
            // SAFETY: the level is supported.
            unsafe { dispatch(Level::current(), DecodeQ4K { bytes, out }) }
        }
        _ => crate::linear::widen(weight, n, start, out),
    });
    Ok(())
}
