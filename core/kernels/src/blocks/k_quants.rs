//! Super-blocks of 256 numbers with scales of their own.

use super::half;
use crate::isa::Isa;
use crate::quant::q4_k_scales;

// SAFETY of all below: the level of `I` is there, by the caller.

#[inline(always)]
pub(super) unsafe fn q2_k<I: Isa>(block: &[u8; 84], out: &mut [f32; 256]) {
    let (d, d_min) = unsafe { (half::<I>(block, 80), half::<I>(block, 82)) };
    for part in 0..16 {
        let scale = block[part];
        let (d, m) = (d * f32::from(scale & 15), d_min * f32::from(scale >> 4));
        let codes = &block[16 + part / 8 * 32 + part % 2 * 16..][..16];
        let shift = part % 8 / 2 * 2;
        for i in 0..16 {
            out[16 * part + i] = d * f32::from(codes[i] >> shift & 3) - m;
        }
    }
}

#[inline(always)]
pub(super) unsafe fn q3_k<I: Isa>(block: &[u8; 110], out: &mut [f32; 256]) {
    let d = unsafe { half::<I>(block, 108) };
    let scales = &block[96..108];
    for part in 0..16 {
        let low = scales[part % 8] >> (part / 8 * 4) & 15;
        let high = scales[8 + part % 4] >> (part / 4 * 2) & 3;
        let d = d * f32::from((low | high << 4) as i8 - 32);
        let codes = &block[32 + part / 8 * 32 + part % 2 * 16..][..16];
        let (shift, bit) = (part % 8 / 2 * 2, part / 2);
        let mask = &block[part % 2 * 16..][..16];
        for i in 0..16 {
            // The highest bit stands for nothing taken away.
            let less = (mask[i] >> bit & 1 ^ 1) << 2;
            out[16 * part + i] = d * f32::from((codes[i] >> shift & 3) as i8 - less as i8);
        }
    }
}

#[inline(always)]
pub(super) unsafe fn q4_k<I: Isa>(block: &[u8; 144], out: &mut [f32; 256]) {
    // SAFETY: the block has twelve bytes of scales.
    let (d, d_min, (scales, minima)) =
        unsafe { (half::<I>(block, 0), half::<I>(block, 2), q4_k_scales(block.as_ptr().add(4))) };
    for part in 0..8 {
        let (d, m) = (d * f32::from(scales[part]), d_min * f32::from(minima[part]));
        let codes = &block[16 + part / 2 * 32..][..32];
        for i in 0..32 {
            out[32 * part + i] = d * f32::from(codes[i] >> (part % 2 * 4) & 15) - m;
        }
    }
}

#[inline(always)]
pub(super) unsafe fn q5_k<I: Isa>(block: &[u8; 176], out: &mut [f32; 256]) {
    // SAFETY: the block has twelve bytes of scales.
    let (d, d_min, (scales, minima)) =
        unsafe { (half::<I>(block, 0), half::<I>(block, 2), q4_k_scales(block.as_ptr().add(4))) };
    let high = &block[16..48];
    for part in 0..8 {
        let (d, m) = (d * f32::from(scales[part]), d_min * f32::from(minima[part]));
        let codes = &block[48 + part / 2 * 32..][..32];
        for i in 0..32 {
            let code = codes[i] >> (part % 2 * 4) & 15 | (high[i] >> part & 1) << 4;
            out[32 * part + i] = d * f32::from(code) - m;
        }
    }
}

#[inline(always)]
pub(super) unsafe fn q6_k<I: Isa>(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = unsafe { half::<I>(block, 208) };
    for part in 0..16 {
        let d = d * f32::from(block[192 + part] as i8);
        // Numbers 16 part .. of each 128: nibbles of 64 bytes, two bits of 32.
        let (half, within) = (part / 8, part % 8);
        let low = &block[64 * half + within % 4 * 16..][..16];
        let high = &block[128 + 32 * half + within % 2 * 16..][..16];
        let (nibble, pair) = (within / 4 * 4, within / 2 * 2);
        for i in 0..16 {
            let code = low[i] >> nibble & 15 | (high[i] >> pair & 3) << 4;
            out[16 * part + i] = d * f32::from(code as i8 - 32);
        }
    }
}
