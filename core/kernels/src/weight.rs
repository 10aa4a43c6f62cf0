//! Frozen weights in their own types: `[n_out, n_in]`, row-major, never copied whole.
//!
//! Quantised rows are GGUF's blocks (ggml `ggml-common.h`: `block_q8_0`, `block_q4_K` and the others).

use crate::blocks::BlockType;
use crate::isa::Isa;
use crate::quant::{self, Q4K_BYTES, Q8_0_BYTES};
use crate::shape::{ShapeError, check_elements, check_len, elements};
use half::{bf16, f16};
use std::marker::PhantomData;

/// A frozen matrix `[n_out, n_in]`, row-major, in the type it is stored in.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// IEEE half floats.
    F16(&'a [f16]),
    /// Upper halves of 32-bit floats.
    Bf16(&'a [bf16]),
    /// Bytes of GGUF q8_0: blocks of 32 weights in 34 bytes.
    Q8_0(&'a [u8]),
    /// Bytes of GGUF q4_k: super-blocks of 256 weights in 144 bytes.
    Q4K(&'a [u8]),
    /// Bytes of blocks of another format of GGUF.
    Blocks(BlockType, &'a [u8]),
}

impl Weight<'_> {
    /// Bytes that the weights occupy.
    pub fn bytes(&self) -> usize {
        match self {
            Weight::F32(w) => size_of_val(*w),
            Weight::F16(w) => size_of_val(*w),
            Weight::Bf16(w) => size_of_val(*w),
            Weight::Q8_0(w) | Weight::Q4K(w) | Weight::Blocks(_, w) => w.len(),
        }
    }

    /// Checks that the slice holds `[n_out, n_in]`.
    ///
    /// # Errors
    ///
    /// Where the length differs, or `n_in` is no multiple of the type's block.
    pub fn check(&self, n_out: usize, n_in: usize) -> Result<(), ShapeError> {
        let shape = [n_out, n_in];
        match self {
            Weight::F32(w) => check_len("f32 weight", &shape, w.len()),
            Weight::F16(w) => check_len("f16 weight", &shape, w.len()),
            Weight::Bf16(w) => check_len("bf16 weight", &shape, w.len()),
            Weight::Q8_0(w) => {
                check_blocks("n_in of a q8_0 weight", n_in, 32, "a multiple of 32")?;
                check_bytes("q8_0 weight (bytes)", &shape, (32, Q8_0_BYTES), w.len())
            }
            Weight::Q4K(w) => {
                check_blocks("n_in of a q4_k weight", n_in, 256, "a multiple of 256")?;
                check_bytes("q4_k weight (bytes)", &shape, (256, Q4K_BYTES), w.len())
            }
            Weight::Blocks(format, w) => {
                let allowed = if format.numbers() == 32 { "a multiple of 32" } else { "a multiple of 256" };
                check_blocks("n_in of a weight in blocks", n_in, format.numbers(), allowed)?;
                check_bytes("weight in blocks (bytes)", &shape, (format.numbers(), format.bytes()), w.len())
            }
        }
    }
}

fn check_blocks(what: &'static str, found: usize, block: usize, allowed: &'static str) -> Result<(), ShapeError> {
    if found.is_multiple_of(block) { Ok(()) } else { Err(ShapeError::Size { what, found, allowed }) }
}

/// Checks the bytes of a weight whose blocks hold so many numbers in so many bytes.
fn check_bytes(what: &'static str, shape: &[usize], block: (usize, usize), found: usize) -> Result<(), ShapeError> {
    let too_large = || ShapeError::TooLarge { what, shape: shape.to_vec() };
    let expected = (elements(what, shape)? / block.0).checked_mul(block.1).ok_or_else(too_large)?;
    check_elements(what, shape, expected, found)
}

/// Rows of numbers that can be widened to f32, piece by piece.
///
/// # Safety
///
/// `widen` reads `len` numbers of `row` from column `k` on, which must exist, `transpose` those of `LANES` rows; `k` is
/// a multiple of `BLOCK`, and so is `len`; `dst` has room for them.
pub(crate) trait Source: Copy + Send + Sync {
    /// Columns that are coded together.
    const BLOCK: usize;
    unsafe fn widen<I: Isa>(self, row: usize, k: usize, len: usize, dst: *mut f32);
    /// Widens `LANES` rows from `row` on, transposed: column `k + j` goes to `dst + j * stride`. False, and nothing is
    /// done, where there is no quicker way than by rows.
    #[inline(always)]
    unsafe fn transpose<I: Isa>(self, _row: usize, _k: usize, _len: usize, _dst: *mut f32, _stride: usize) -> bool {
        false
    }
    /// The memory of `len` numbers of `rows` from column `k` on.
    fn prefetch_region(self, row: usize, rows: usize, k: usize, len: usize) -> PrefetchRegion;
}

/// A region to prefetch: runs of equal length at equal distances.
#[derive(Clone, Copy)]
pub(crate) struct PrefetchRegion {
    pub start: *const u8,
    /// Bytes from one run to the next.
    pub stride: usize,
    pub count: usize,
    /// Bytes of a run.
    pub bytes: usize,
}

impl PrefetchRegion {
    /// No memory.
    pub(crate) const NONE: PrefetchRegion = PrefetchRegion { start: std::ptr::null(), stride: 0, count: 0, bytes: 0 };

    /// Prefetches the runs `from .. to` into the second-level cache.
    #[inline(always)]
    pub(crate) unsafe fn prefetch<I: Isa>(self, from: usize, to: usize) {
        for i in from..to.min(self.count) {
            let start = self.start.wrapping_add(i.wrapping_mul(self.stride));
            for line in (0..self.bytes).step_by(64) {
                // SAFETY: a prefetch may name any address.
                unsafe { I::prefetch_far(start.wrapping_add(line)) };
            }
        }
    }
}

/// An element type with a vector load.
///
/// # Safety
///
/// `load` reads `I::LANES` elements, `get` one.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    unsafe fn load<I: Isa>(p: *const Self) -> I::V;
    unsafe fn get(p: *const Self) -> f32;
    /// As [`Source::transpose`], of rows `stride` apart.
    #[inline(always)]
    unsafe fn transpose<I: Isa>(
        _p: *const Self,
        _stride: usize,
        _len: usize,
        _dst: *mut f32,
        _dst_stride: usize,
    ) -> bool {
        false
    }
}

// SAFETY of the three below: `f16` and `bf16` are transparent over `u16`; the caller's
// pointer is valid for what is read.
impl Element for f32 {
    #[inline(always)]
    unsafe fn load<I: Isa>(p: *const f32) -> I::V {
        unsafe { I::load(p) }
    }
    #[inline(always)]
    unsafe fn get(p: *const f32) -> f32 {
        unsafe { *p }
    }
}
impl Element for f16 {
    #[inline(always)]
    unsafe fn load<I: Isa>(p: *const f16) -> I::V {
        unsafe { I::load_f16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn get(p: *const f16) -> f32 {
        unsafe { (*p).to_f32() }
    }
}
impl Element for bf16 {
    #[inline(always)]
    unsafe fn load<I: Isa>(p: *const bf16) -> I::V {
        unsafe { I::load_bf16(p.cast()) }
    }
    #[inline(always)]
    unsafe fn get(p: *const bf16) -> f32 {
        unsafe { (*p).to_f32() }
    }
    #[inline(always)]
    unsafe fn transpose<I: Isa>(p: *const bf16, stride: usize, len: usize, dst: *mut f32, dst_stride: usize) -> bool {
        if !I::TURNS_BF16 || !len.is_multiple_of(2 * I::LANES) {
            return false;
        }
        for j in (0..len).step_by(2 * I::LANES) {
            unsafe { I::transpose_bf16(p.cast::<u16>().add(j), stride, dst.add(j * dst_stride), dst_stride) };
        }
        true
    }
}

/// Rows of plain numbers, `stride` elements apart.
#[derive(Clone, Copy)]
pub(crate) struct Dense<T> {
    pub start: *const T,
    pub stride: usize,
}

// SAFETY: a `Dense` stands for a shared slice, which every thread may read.
unsafe impl<T: Sync> Send for Dense<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Dense<T> {}

impl<T: Element> Source for Dense<T> {
    const BLOCK: usize = 1;
    #[inline(always)]
    fn prefetch_region(self, row: usize, rows: usize, k: usize, len: usize) -> PrefetchRegion {
        let start = self.start.wrapping_add(row * self.stride + k).cast();
        let size = size_of::<T>();
        // The stride of a single row may be any number.
        PrefetchRegion { start, stride: self.stride.wrapping_mul(size), count: rows, bytes: len * size }
    }
    #[inline(always)]
    unsafe fn transpose<I: Isa>(self, row: usize, k: usize, len: usize, dst: *mut f32, stride: usize) -> bool {
        // SAFETY: the trait's contract.
        unsafe { T::transpose::<I>(self.start.add(row * self.stride + k), self.stride, len, dst, stride) }
    }
    #[inline(always)]
    unsafe fn widen<I: Isa>(self, row: usize, k: usize, len: usize, dst: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe {
            let src = self.start.add(row * self.stride + k);
            let whole = len / I::LANES * I::LANES;
            let mut i = 0;
            while i < whole {
                I::store(dst.add(i), T::load::<I>(src.add(i)));
                i += I::LANES;
            }
            while i < len {
                *dst.add(i) = T::get(src.add(i));
                i += 1;
            }
        }
    }
}

/// How numbers are coded in blocks.
///
/// # Safety
///
/// `widen` reads `BYTES` bytes of a block, and `dst` has room for `NUMBERS`; it must be `#[inline(always)]`.
pub(crate) trait BlockFormat: Copy + Send + Sync {
    const NUMBERS: usize;
    const BYTES: usize;
    unsafe fn widen<I: Isa>(block: *const u8, dst: *mut f32);
}

/// q8_0: 32 numbers in 34 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Q8Format;

impl BlockFormat for Q8Format {
    const NUMBERS: usize = 32;
    const BYTES: usize = Q8_0_BYTES;
    #[inline(always)]
    unsafe fn widen<I: Isa>(block: *const u8, dst: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { quant::widen_q8_0::<I>(block, dst) }
    }
}

/// q4_k: super-blocks of 256 numbers in 144 bytes.
#[derive(Clone, Copy)]
pub(crate) struct Q4Format;

impl BlockFormat for Q4Format {
    const NUMBERS: usize = 256;
    const BYTES: usize = Q4K_BYTES;
    #[inline(always)]
    unsafe fn widen<I: Isa>(block: *const u8, dst: *mut f32) {
        // SAFETY: the trait's contract.
        unsafe { quant::widen_q4_k::<I>(block, dst) }
    }
}

/// Rows of blocks.
#[derive(Clone, Copy)]
pub(crate) struct BlockRows<'a, F> {
    pub bytes: &'a [u8],
    /// Blocks in a row.
    pub blocks: usize,
    format: PhantomData<F>,
}

/// Rows of q8_0 blocks.
pub(crate) type Q8<'a> = BlockRows<'a, Q8Format>;
/// Rows of q4_k super-blocks.
pub(crate) type Q4<'a> = BlockRows<'a, Q4Format>;

impl<'a, F: BlockFormat> BlockRows<'a, F> {
    /// Rows of `n_in` numbers each.
    #[inline(always)]
    pub fn new(bytes: &'a [u8], n_in: usize) -> Self {
        Self { bytes, blocks: n_in / F::NUMBERS, format: PhantomData }
    }
}

impl<F: BlockFormat> Source for BlockRows<'_, F> {
    const BLOCK: usize = F::NUMBERS;
    #[inline(always)]
    fn prefetch_region(self, row: usize, rows: usize, k: usize, len: usize) -> PrefetchRegion {
        let start = self.bytes.as_ptr().wrapping_add((row * self.blocks + k / F::NUMBERS) * F::BYTES);
        let bytes = len.div_ceil(F::NUMBERS) * F::BYTES;
        PrefetchRegion { start, stride: self.blocks * F::BYTES, count: rows, bytes }
    }
    #[inline(always)]
    unsafe fn widen<I: Isa>(self, row: usize, k: usize, len: usize, dst: *mut f32) {
        let first = row * self.blocks + k / F::NUMBERS;
        debug_assert!((first + len / F::NUMBERS) * F::BYTES <= self.bytes.len());
        for i in 0..len / F::NUMBERS {
            // SAFETY: the trait's contract; the length of a weight is checked on entry.
            unsafe { F::widen::<I>(self.bytes.as_ptr().add((first + i) * F::BYTES), dst.add(F::NUMBERS * i)) }
        }
    }
}
