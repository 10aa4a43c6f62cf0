//! Columns of B widened to f32 panels: rows of the source as columns (y = x W^T), or as they lie (y = x W).

use crate::isa::Isa;
use crate::weight::{PrefetchRegion, Source};

/// Widest block of any kind.
const WIDEST: usize = 512;

/// Rows of the source that are asked for ahead of their use while others are packed.
///
/// Rows of a large matrix often lie a power of two apart, where a cache holds few of them.
const AHEAD_ROWS: usize = 16;

/// How the columns of B lie in memory.
///
/// # Safety
///
/// `pack` reads B at rows `k .. k + depth` and columns `n .. n + width`, which must exist;
/// it fills `width.div_ceil(2 * LANES)` panels of `K_BLOCK` rows of `2 * LANES` floats.
pub(crate) trait Columns: Copy + Send + Sync {
    /// Columns of a block that one thread works on.
    const N_BLOCK: usize;
    /// Depth of a block; a multiple of every quantised block.
    const K_BLOCK: usize;

    unsafe fn pack<I: Isa>(self, k: usize, depth: usize, n: usize, width: usize, dst: *mut f32);
    /// The memory that `pack` of the same position reads: asked for while the block before is multiplied, for what
    /// comes from memory only when it is packed costs a sixth of the time of a cold product.
    fn prefetch_region(self, k: usize, depth: usize, n: usize, width: usize) -> PrefetchRegion;
}

/// B is the transpose of the source: column n of B is row n of the source.
#[derive(Clone, Copy)]
pub(crate) struct ByRow<S>(pub S);

impl<S: Source> Columns for ByRow<S> {
    const N_BLOCK: usize = 128;
    const K_BLOCK: usize = 512;

    #[inline(always)]
    fn prefetch_region(self, k: usize, depth: usize, n: usize, width: usize) -> PrefetchRegion {
        self.0.prefetch_region(n, width, k, depth)
    }
    #[inline(always)]
    unsafe fn pack<I: Isa>(self, k: usize, depth: usize, n: usize, width: usize, dst: *mut f32) {
        const STEP: usize = 256;
        let wide = 2 * I::LANES;
        let mut rows = [0f32; 16 * STEP];
        let rows = rows.as_mut_ptr();
        // SAFETY: the trait's contract; `rows` holds `LANES` <= 16 rows of `STEP`.
        unsafe {
            for (panel, first) in (0..width).step_by(wide).enumerate() {
                let dst = dst.add(panel * Self::K_BLOCK * wide);
                for half in 0..2 {
                    let first = first + half * I::LANES;
                    let valid = width.saturating_sub(first).min(I::LANES);
                    for k0 in (0..depth).step_by(STEP) {
                        let len = STEP.min(depth - k0);
                        let to = dst.add(k0 * wide + half * I::LANES);
                        if valid == I::LANES && self.0.transpose::<I>(n + first, k + k0, len, to, wide) {
                            continue;
                        }
                        for i in 0..I::LANES {
                            if i < valid {
                                let next = first + i + AHEAD_ROWS;
                                if k0 == 0 && next < width {
                                    self.0.prefetch_region(n + next, 1, k, depth).prefetch::<I>(0, 1);
                                }
                                self.0.widen::<I>(n + first + i, k + k0, len, rows.add(i * STEP));
                            } else {
                                rows.add(i * STEP).write_bytes(0, len);
                            }
                        }
                        for j in (0..len).step_by(I::LANES) {
                            let to = dst.add((k0 + j) * wide + half * I::LANES);
                            I::transpose(rows.add(j), STEP, to, wide);
                        }
                    }
                }
            }
        }
    }
}

/// B is the source itself: row k of B is row k of the source.
#[derive(Clone, Copy)]
pub(crate) struct ByColumn<S>(pub S);

impl<S: Source> Columns for ByColumn<S> {
    // Wide and shallow: every row of a block lies in a page of its own.
    const N_BLOCK: usize = WIDEST;
    const K_BLOCK: usize = 256;

    #[inline(always)]
    fn prefetch_region(self, k: usize, depth: usize, n: usize, width: usize) -> PrefetchRegion {
        self.0.prefetch_region(k, depth.min(AHEAD_ROWS), n, width)
    }
    #[inline(always)]
    unsafe fn pack<I: Isa>(self, k: usize, depth: usize, n: usize, width: usize, dst: *mut f32) {
        let wide = 2 * I::LANES;
        let mut row = [0f32; WIDEST + 256];
        let row = row.as_mut_ptr();
        // A quantised block may begin before the wanted columns and end after them.
        let skip = n % S::BLOCK;
        let len = (skip + width).next_multiple_of(S::BLOCK);
        // SAFETY: the trait's contract; `len` is at most `WIDEST + 256`.
        unsafe {
            for i in 0..depth {
                let next = i + AHEAD_ROWS;
                if next < depth {
                    self.0.prefetch_region(k + next, 1, n, width).prefetch::<I>(0, 1);
                }
                self.0.widen::<I>(k + i, n - skip, len, row);
                let row = row.add(skip);
                for (panel, first) in (0..width).step_by(wide).enumerate() {
                    let to = dst.add((panel * Self::K_BLOCK + i) * wide);
                    if first + wide <= width {
                        I::store(to, I::load(row.add(first)));
                        I::store(to.add(I::LANES), I::load(row.add(first + I::LANES)));
                    } else {
                        to.write_bytes(0, wide);
                        to.copy_from_nonoverlapping(row.add(first), width - first);
                    }
                }
            }
        }
    }
}

/// Columns from row `k` and column `n` of others on; both are multiples of their blocks where the source is quantised.
#[derive(Clone, Copy)]
pub(crate) struct Shifted<C> {
    pub columns: C,
    pub k: usize,
    pub n: usize,
}

impl<C: Columns> Columns for Shifted<C> {
    const N_BLOCK: usize = C::N_BLOCK;
    const K_BLOCK: usize = C::K_BLOCK;

    #[inline(always)]
    fn prefetch_region(self, k: usize, depth: usize, n: usize, width: usize) -> PrefetchRegion {
        self.columns.prefetch_region(self.k + k, depth, self.n + n, width)
    }
    #[inline(always)]
    unsafe fn pack<I: Isa>(self, k: usize, depth: usize, n: usize, width: usize, dst: *mut f32) {
        // SAFETY: the trait's contract, of the block that the maker names.
        unsafe { self.columns.pack::<I>(self.k + k, depth, self.n + n, width, dst) }
    }
}
