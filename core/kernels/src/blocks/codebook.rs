//! Super-blocks of 256 numbers whose codes are places in code books of eight or four numbers.

use super::grids::{IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use super::{half, u16_at, u32_at};
use crate::isa::Isa;

/// Seven signs and an eighth that makes the number of minuses even.
#[inline(always)]
fn even_signs(code: u32) -> u8 {
    let seven = (code & 127) as u8;
    seven | ((seven.count_ones() & 1) as u8) << 7
}

/// `d` times the magnitudes, with a minus where a bit of `signs` is set.
#[inline(always)]
fn signed(d: f32, magnitudes: &[i8], signs: u8, out: &mut [f32]) {
    for (i, (out, magnitude)) in out.iter_mut().zip(magnitudes).enumerate() {
        let value = d * f32::from(*magnitude);
        *out = if signs >> i & 1 == 1 { -value } else { value };
    }
}

// SAFETY of all below: the level of `I` is there, by the caller.

#[inline(always)]
pub(super) unsafe fn iq2_xxs<I: Isa>(block: &[u8; 66], out: &mut [f32; 256]) {
    let d = unsafe { half::<I>(block, 0) };
    for (b, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let codes = &block[2 + 8 * b..][..4];
        let tail = u32_at(block, 6 + 8 * b);
        let d = d * (0.5 + (tail >> 28) as f32) * 0.25;
        for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            signed(d, &IQ2_XXS[usize::from(codes[i])], even_signs(tail >> (7 * i)), out);
        }
    }
}

#[inline(always)]
pub(super) unsafe fn iq2_xs<I: Isa>(block: &[u8; 74], out: &mut [f32; 256]) {
    let d = unsafe { half::<I>(block, 0) };
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let scale = block[66 + i / 4] >> (i / 2 % 2 * 4) & 15;
        let d = d * (0.5 + f32::from(scale)) * 0.25;
        let code = u16_at(block, 2 + 2 * i);
        signed(d, &IQ2_XS[usize::from(code & 511)], even_signs(u32::from(code >> 9)), out);
    }
}

#[inline(always)]
pub(super) unsafe fn iq2_s<I: Isa>(block: &[u8; 82], out: &mut [f32; 256]) {
    let d = unsafe { half::<I>(block, 0) };
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let scale = block[74 + i / 4] >> (i / 2 % 2 * 4) & 15;
        let d = d * (0.5 + f32::from(scale)) * 0.25;
        let high = usize::from(block[66 + i / 4] >> (i % 4 * 2) & 3);
        signed(d, &IQ2_S[usize::from(block[2 + i]) | high << 8], block[34 + i], out);
    }
}

#[inline(always)]
pub(super) unsafe fn iq3_xxs<I: Isa>(block: &[u8; 98], out: &mut [f32; 256]) {
    let d = unsafe { half::<I>(block, 0) };
    for (b, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let codes = &block[2 + 8 * b..][..8];
        let tail = u32_at(block, 66 + 4 * b);
        let d = d * (0.5 + (tail >> 28) as f32) * 0.5;
        for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let signs = even_signs(tail >> (7 * (i / 2))) >> (i % 2 * 4);
            signed(d, &IQ3_XXS[usize::from(codes[i])], signs, out);
        }
    }
}

#[inline(always)]
pub(super) unsafe fn iq3_s<I: Isa>(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = unsafe { half::<I>(block, 0) };
    for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let scale = block[106 + i / 16] >> (i / 8 % 2 * 4) & 15;
        let d = d * f32::from(1 + 2 * scale);
        let high = usize::from(block[66 + i / 8] >> (i % 8) & 1);
        let signs = block[74 + i / 2] >> (i % 2 * 4);
        signed(d, &IQ3_S[usize::from(block[2 + i]) | high << 8], signs, out);
    }
}

/// `d` times ternary numbers, all moved by an eighth.
#[inline(always)]
fn moved(d: f32, code: usize, down: bool, out: &mut [f32; 8]) {
    let delta = if down { -0.125 } else { 0.125 };
    for (out, number) in out.iter_mut().zip(&IQ1[code]) {
        *out = d * (f32::from(*number) + delta);
    }
}

#[inline(always)]
pub(super) unsafe fn iq1_s<I: Isa>(block: &[u8; 50], out: &mut [f32; 256]) {
    let d = unsafe { half::<I>(block, 0) };
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let head = u16_at(block, 34 + i / 4 * 2);
        let d = d * f32::from(2 * (head >> 12 & 7) + 1);
        let high = usize::from(head >> (i % 4 * 3) & 7);
        moved(d, usize::from(block[2 + i]) | high << 8, head >> 15 == 1, out);
    }
}

#[inline(always)]
pub(super) unsafe fn iq1_m<I: Isa>(block: &[u8; 56], out: &mut [f32; 256]) {
    let mut scales = [0u16; 4];
    for (b, scale) in scales.iter_mut().enumerate() {
        *scale = u16_at(block, 48 + 2 * b);
    }
    // The f16 lies in the upper four bits of the scales.
    let bits = scales[0] >> 12 | scales[1] >> 12 << 4 | scales[2] >> 12 << 8 | scales[3] >> 12 << 12;
    let d = unsafe { I::half(bits) };
    for (i, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let scale = scales[i / 8] >> (i / 2 % 4 * 3) & 7;
        let d = d * f32::from(2 * scale + 1);
        let head = block[32 + i / 2] >> (i % 2 * 4);
        moved(d, usize::from(block[i]) | usize::from(head & 7) << 8, head & 8 != 0, out);
    }
}
