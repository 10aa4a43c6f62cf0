//! Blocks of 32 numbers, four bits on a curve, and ternary numbers.

use super::{half, u16_at};
use crate::isa::Isa;

/// What the sixteen codes of the curve stand for.
const CURVE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
/// Twice what the sixteen 4-bit floats stand for.
const FLOATS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Codes of 16 bytes: the low nibbles, then the high ones.
#[inline(always)]
fn nibbles(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for i in 0..16 {
        out[i] = bytes[i] & 15;
        out[16 + i] = bytes[i] >> 4;
    }
    out
}

/// The same with a fifth bit from `high`.
#[inline(always)]
fn five_bits(bytes: &[u8], high: &[u8]) -> [u8; 32] {
    let mut out = nibbles(bytes);
    for i in 0..32 {
        out[i] |= (high[i / 8] >> (i % 8) & 1) << 4;
    }
    out
}

// SAFETY of all below: the level of `I` is there, by the caller.

#[inline(always)]
pub(super) unsafe fn q4_0<I: Isa>(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = unsafe { half::<I>(block, 0) };
    let codes = nibbles(&block[2..]);
    for i in 0..32 {
        out[i] = d * f32::from(codes[i] as i8 - 8);
    }
}

#[inline(always)]
pub(super) unsafe fn q4_1<I: Isa>(block: &[u8; 20], out: &mut [f32; 32]) {
    let (d, m) = unsafe { (half::<I>(block, 0), half::<I>(block, 2)) };
    let codes = nibbles(&block[4..]);
    for i in 0..32 {
        out[i] = d * f32::from(codes[i]) + m;
    }
}

#[inline(always)]
pub(super) unsafe fn q5_0<I: Isa>(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = unsafe { half::<I>(block, 0) };
    let codes = five_bits(&block[6..], &block[2..6]);
    for i in 0..32 {
        out[i] = d * f32::from(codes[i] as i8 - 16);
    }
}

#[inline(always)]
pub(super) unsafe fn q5_1<I: Isa>(block: &[u8; 24], out: &mut [f32; 32]) {
    let (d, m) = unsafe { (half::<I>(block, 0), half::<I>(block, 2)) };
    let codes = five_bits(&block[8..], &block[4..8]);
    for i in 0..32 {
        out[i] = d * f32::from(codes[i]) + m;
    }
}

#[inline(always)]
pub(super) unsafe fn iq4_nl<I: Isa>(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = unsafe { half::<I>(block, 0) };
    let codes = nibbles(&block[2..]);
    for i in 0..32 {
        out[i] = d * f32::from(CURVE[usize::from(codes[i])]);
    }
}

#[inline(always)]
pub(super) unsafe fn mxfp4(block: &[u8; 17], out: &mut [f32; 32]) {
    // Half of 2^(e - 127), whose smallest values are subnormal.
    let e = u32::from(block[0]);
    let d = f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (e - 1) << 23 });
    let codes = nibbles(&block[1..]);
    for i in 0..32 {
        out[i] = d * f32::from(FLOATS[usize::from(codes[i])]);
    }
}

#[inline(always)]
pub(super) unsafe fn iq4_xs<I: Isa>(block: &[u8; 136], out: &mut [f32; 256]) {
    let d = unsafe { half::<I>(block, 0) };
    let high = u16_at(block, 2);
    for b in 0..8 {
        let low = block[4 + b / 2] >> (4 * (b % 2)) & 15;
        let scale = (low | ((high >> (2 * b) & 3) as u8) << 4) as i8 - 32;
        let d = d * f32::from(scale);
        let codes = nibbles(&block[8 + 16 * b..][..16]);
        for i in 0..32 {
            out[32 * b + i] = d * f32::from(CURVE[usize::from(codes[i])]);
        }
    }
}

#[inline(always)]
pub(super) unsafe fn tq1_0<I: Isa>(block: &[u8; 54], out: &mut [f32; 256]) {
    let d = unsafe { half::<I>(block, 52) };
    // Digits to base 3, the first in front: of 32 bytes and of 16 five each, of 4 bytes four each.
    for (bytes, first, digits) in [(&block[..32], 0, 5), (&block[32..48], 160, 5), (&block[48..52], 240, 4)] {
        let mut power = 1u8;
        for digit in 0..digits {
            for (i, byte) in bytes.iter().enumerate() {
                let code = (u16::from(byte.wrapping_mul(power)) * 3) >> 8;
                out[first + digit * bytes.len() + i] = d * f32::from(code as i8 - 1);
            }
            power = power.wrapping_mul(3);
        }
    }
}

#[inline(always)]
pub(super) unsafe fn tq2_0<I: Isa>(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = unsafe { half::<I>(block, 64) };
    for (n, out) in out.iter_mut().enumerate() {
        let code = block[n / 128 * 32 + n % 32] >> (n % 128 / 32 * 2) & 3;
        *out = d * f32::from(code as i8 - 1);
    }
}
