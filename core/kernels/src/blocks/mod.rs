//! GGUF's other block formats, those that no tuned kernel reads: decoded to f32 piece by piece and multiplied so.
//!
//! Follows the `dequantize_blocks` of ggml's `gguf` package (gguf-py/gguf/quants.py) operation by operation, so that numbers
//! are the package's to the last bit.

mod codebook;
mod grids;
mod k_quants;
mod small;

use crate::isa::{Isa, Kernel, dispatch};
use crate::weight::{PrefetchRegion, Source};

/// A block format of GGUF that is read and not written.
#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockType {
    /// 4 bits and a scale.
    Q4_0,
    /// 4 bits, a scale and a minimum.
    Q4_1,
    /// 5 bits and a scale.
    Q5_0,
    /// 5 bits, a scale and a minimum.
    Q5_1,
    /// 2 bits, with scales and minima of 4 bits.
    Q2_K,
    /// 3 bits, with scales of 6 bits.
    Q3_K,
    /// 5 bits, with scales and minima of 6 bits.
    Q5_K,
    /// 6 bits, with scales of 8 bits.
    Q6_K,
    /// 2.06 bits: eight magnitudes of a code book of 256, seven signs.
    IQ2_XXS,
    /// 2.31 bits: a code book of 512.
    IQ2_XS,
    /// 2.5 bits: a code book of 1024.
    IQ2_S,
    /// 3.06 bits: four magnitudes of a code book of 256.
    IQ3_XXS,
    /// 3.44 bits: a code book of 512.
    IQ3_S,
    /// 1.56 bits: eight of -1, 0, 1 of a code book of 2048.
    IQ1_S,
    /// 1.75 bits: the same with more scales.
    IQ1_M,
    /// 4 bits on a curve.
    IQ4_NL,
    /// 4 bits on a curve, with scales of 6 bits.
    IQ4_XS,
    /// Ternary, five numbers in a byte.
    TQ1_0,
    /// Ternary, four numbers in a byte.
    TQ2_0,
    /// 4-bit floats with a power of two as scale.
    MXFP4,
}

use BlockType::*;

/// Format, name, numbers of a block, bytes of a block.
const FORMATS: [(BlockType, &str, usize, usize); 20] = [
    (Q4_0, "q4_0", 32, 18),
    (Q4_1, "q4_1", 32, 20),
    (Q5_0, "q5_0", 32, 22),
    (Q5_1, "q5_1", 32, 24),
    (Q2_K, "q2_k", 256, 84),
    (Q3_K, "q3_k", 256, 110),
    (Q5_K, "q5_k", 256, 176),
    (Q6_K, "q6_k", 256, 210),
    (IQ2_XXS, "iq2_xxs", 256, 66),
    (IQ2_XS, "iq2_xs", 256, 74),
    (IQ2_S, "iq2_s", 256, 82),
    (IQ3_XXS, "iq3_xxs", 256, 98),
    (IQ3_S, "iq3_s", 256, 110),
    (IQ1_S, "iq1_s", 256, 50),
    (IQ1_M, "iq1_m", 256, 56),
    (IQ4_NL, "iq4_nl", 32, 18),
    (IQ4_XS, "iq4_xs", 256, 136),
    (TQ1_0, "tq1_0", 256, 54),
    (TQ2_0, "tq2_0", 256, 66),
    (MXFP4, "mxfp4", 32, 17),
];

impl BlockType {
    /// Every format.
    pub fn all() -> impl Iterator<Item = Self> {
        FORMATS.iter().map(|(format, ..)| *format)
    }

    /// The format of a name, such as `q6_k`.
    pub fn named(name: &str) -> Option<Self> {
        FORMATS.iter().find(|(_, own, ..)| *own == name).map(|(format, ..)| *format)
    }

    /// Its name, such as `q6_k`.
    pub fn name(self) -> &'static str {
        FORMATS[self as usize].1
    }

    /// Numbers of a block.
    pub const fn numbers(self) -> usize {
        FORMATS[self as usize].2
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        FORMATS[self as usize].3
    }
}

/// Rows of blocks of `N` numbers.
#[derive(Clone, Copy)]
pub(crate) struct DecodedRows<'a, const N: usize> {
    pub format: BlockType,
    pub bytes: &'a [u8],
    /// Blocks in a row.
    pub blocks: usize,
}

impl<const N: usize> Source for DecodedRows<'_, N> {
    const BLOCK: usize = N;

    #[inline(always)]
    fn prefetch_region(self, row: usize, rows: usize, k: usize, len: usize) -> PrefetchRegion {
        let size = self.format.bytes();
        let start = self.bytes.as_ptr().wrapping_add((row * self.blocks + k / N) * size);
        PrefetchRegion { start, stride: self.blocks * size, count: rows, bytes: len.div_ceil(N) * size }
    }

    #[inline(always)]
    unsafe fn widen<I: Isa>(self, row: usize, k: usize, len: usize, dst: *mut f32) {
        let size = self.format.bytes();
        let first = (row * self.blocks + k / N) * size;
        debug_assert!(first + len / N * size <= self.bytes.len());
        // SAFETY: the trait's contract; the length of a weight is checked on entry.
        unsafe {
            let bytes = std::slice::from_raw_parts(self.bytes.as_ptr().add(first), len / N * size);
            let out = std::slice::from_raw_parts_mut(dst, len / N * N);
            // A call: a copy of every format in every kernel would be many times the code.
            dispatch(I::LEVEL, Decode { format: self.format, bytes, out });
        }
    }
}

/// Decodes whole blocks.
pub(crate) struct Decode<'a> {
    pub format: BlockType,
    pub bytes: &'a [u8],
    pub out: &'a mut [f32],
}

impl Kernel for Decode<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let Decode { format, bytes, out } = self;
        // Blocks go to their decoder by name, for one that is called through a parameter is not compiled for the level.
        macro_rules! each {
            ($decoder:path, $size:literal, $numbers:literal) => {
                for (block, out) in bytes.as_chunks::<$size>().0.iter().zip(out.as_chunks_mut::<$numbers>().0) {
                    // SAFETY: the caller vouches for the level.
                    unsafe { $decoder(block, out) }
                }
            };
        }
        match format {
            Q4_0 => each!(small::q4_0::<I>, 18, 32),
            Q4_1 => each!(small::q4_1::<I>, 20, 32),
            Q5_0 => each!(small::q5_0::<I>, 22, 32),
            Q5_1 => each!(small::q5_1::<I>, 24, 32),
            IQ4_NL => each!(small::iq4_nl::<I>, 18, 32),
            MXFP4 => each!(small::mxfp4, 17, 32),
            Q2_K => each!(k_quants::q2_k::<I>, 84, 256),
            Q3_K => each!(k_quants::q3_k::<I>, 110, 256),
            Q5_K => each!(k_quants::q5_k::<I>, 176, 256),
            Q6_K => each!(k_quants::q6_k::<I>, 210, 256),
            IQ4_XS => each!(small::iq4_xs::<I>, 136, 256),
            TQ1_0 => each!(small::tq1_0::<I>, 54, 256),
            TQ2_0 => each!(small::tq2_0::<I>, 66, 256),
            IQ2_XXS => each!(codebook::iq2_xxs::<I>, 66, 256),
            IQ2_XS => each!(codebook::iq2_xs::<I>, 74, 256),
            IQ2_S => each!(codebook::iq2_s::<I>, 82, 256),
            IQ3_XXS => each!(codebook::iq3_xxs::<I>, 98, 256),
            IQ3_S => each!(codebook::iq3_s::<I>, 110, 256),
            IQ1_S => each!(codebook::iq1_s::<I>, 50, 256),
            IQ1_M => each!(codebook::iq1_m::<I>, 56, 256),
        }
    }
}

/// Decodes whole blocks of q4_k with two roundings a number, as ggml does; the kernels have one.
pub(crate) struct DecodeQ4K<'a> {
    pub bytes: &'a [u8],
    pub out: &'a mut [f32],
}

impl Kernel for DecodeQ4K<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        for (block, out) in self.bytes.as_chunks::<144>().0.iter().zip(self.out.as_chunks_mut::<256>().0) {
            // SAFETY: the caller vouches for the level.
            unsafe { k_quants::q4_k::<I>(block, out) }
        }
    }
}

/// The f16 at byte `at`.
///
/// # Safety
///
/// The level of `I` is there.
#[inline(always)]
unsafe fn half<I: Isa>(block: &[u8], at: usize) -> f32 {
    // SAFETY: the caller's.
    unsafe { I::half(u16_at(block, at)) }
}

#[inline(always)]
fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

#[inline(always)]
fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_formats() {
        for (i, format) in BlockType::all().enumerate() {
            assert_eq!((format as usize, BlockType::named(format.name())), (i, Some(format)));
            assert!([32, 256].contains(&format.numbers()), "{}", format.name());
        }
        assert_eq!(BlockType::named("q8_0"), None);
    }
}
