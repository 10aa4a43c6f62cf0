//! Matrix product C [M, N] = A [M, K] B [K, N] over packed blocks, the many-rows regime.
//!
//! A (activations) is packed once into tiles of up to `Isa::MR` rows; B (weights) is widened
//! to f32 panels of two vectors' width that stay in the second-level cache while all tiles
//! pass by. The scheme is that of BLIS (Van Zee and van de Geijn, 2015).

use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::parallel::{self, Shared};
use crate::scratch::Scratch;
use crate::weight::{Area, Source};

/// Floats that hold one packed block of B.
pub(crate) const PANEL_FLOATS: usize = 1 << 17;
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
    /// The memory that `pack` of the same place reads first.
    fn area(self, k: usize, depth: usize, n: usize, width: usize) -> Area;
}

/// B is the transpose of the source: column n of B is row n of the source.
#[derive(Clone, Copy)]
pub(crate) struct ByRow<S>(pub S);

impl<S: Source> Columns for ByRow<S> {
    const N_BLOCK: usize = 128;
    const K_BLOCK: usize = 512;

    #[inline(always)]
    fn area(self, k: usize, depth: usize, n: usize, width: usize) -> Area {
        self.0.area(n, width.min(AHEAD_ROWS), k, depth)
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
                        for i in 0..I::LANES {
                            if i < valid {
                                let next = first + i + AHEAD_ROWS;
                                if k0 == 0 && next < width {
                                    self.0.area(n + next, 1, k, depth).prefetch::<I>(0, 1);
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
    fn area(self, k: usize, depth: usize, n: usize, width: usize) -> Area {
        self.0.area(k, depth.min(AHEAD_ROWS), n, width)
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
                    self.0.area(k + next, 1, n, width).prefetch::<I>(0, 1);
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

/// The tiles that `rows` are cut into: nearly equal, none above `max`.
pub(crate) fn tiles(rows: usize, max: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let n = rows.div_ceil(max.max(1)).max(1);
    (0..n).map(move |t| (t * rows / n, (t + 1) * rows / n)).filter(|(a, b)| a < b)
}

/// Packs rows `a .. b` of A (`stride` apart, `depth` long) as `[depth, b - a]` at `dst`.
///
/// # Safety
///
/// The rows exist, and `dst` has room for `(b - a) * depth` floats.
#[inline(always)]
pub(crate) unsafe fn pack_tile(a: *const f32, stride: usize, rows: usize, depth: usize, dst: *mut f32) {
    for k0 in (0..depth).step_by(16) {
        let len = 16.min(depth - k0);
        for i in 0..rows {
            for k in k0..k0 + len {
                // SAFETY: the caller's.
                unsafe { *dst.add(k * rows + i) = *a.add(i * stride + k) };
            }
        }
    }
}

/// Where a product goes: `C` row-major with a row stride, and what it starts from.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub c: Shared<f32>,
    pub stride: usize,
    /// Added to every row, `[N]`; null for none.
    pub bias: *const f32,
}
// SAFETY: `bias` is read only, and `Shared` speaks for `c`.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// One tile: C [M, 2 LANES] (+)= A [M, depth] B [depth, 2 LANES].
#[inline(always)]
unsafe fn tile<I: Isa, const M: usize>(a: *const f32, b: *const f32, depth: usize) -> [[I::V; 2]; M] {
    // SAFETY: the caller passes `depth * M` and `depth * 2 LANES` floats.
    unsafe {
        let mut acc = [[I::splat(0.0); 2]; M];
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let (b0, b1) = (I::load(b), I::load(b.add(I::LANES)));
            for (i, acc) in acc.iter_mut().enumerate() {
                let x = I::splat(*a.add(i));
                acc[0] = I::fma(x, b0, acc[0]);
                acc[1] = I::fma(x, b1, acc[1]);
            }
            a = a.add(M);
            b = b.add(2 * I::LANES);
        }
        acc
    }
}

/// Computes a tile and adds it to C (`first`: to the bias) at row `m`, columns `n .. n + width`.
#[inline(always)]
unsafe fn place<I: Isa, const M: usize>(
    a: *const f32,
    b: *const f32,
    depth: usize,
    to: &Target,
    m: usize,
    n: usize,
    width: usize,
    first: bool,
) {
    // SAFETY: the caller's tile lies within A, B and C.
    unsafe {
        let acc = tile::<I, M>(a, b, depth);
        let wide = 2 * I::LANES;
        let mut edge = [0f32; 32];
        for (i, acc) in acc.iter().enumerate() {
            let c = to.c.get().add((m + i) * to.stride + n);
            if width < wide {
                // The last panel is narrower: its row passes through a buffer.
                I::store(edge.as_mut_ptr(), acc[0]);
                I::store(edge.as_mut_ptr().add(I::LANES), acc[1]);
                for (j, &v) in edge[..width].iter().enumerate() {
                    let old = match (first, to.bias.is_null()) {
                        (false, _) => *c.add(j),
                        (true, true) => 0.0,
                        (true, false) => *to.bias.add(n + j),
                    };
                    *c.add(j) = old + v;
                }
                continue;
            }
            let (c0, c1) = (c, c.add(I::LANES));
            let (mut v0, mut v1) = (acc[0], acc[1]);
            if !first {
                v0 = I::add(v0, I::load(c0));
                v1 = I::add(v1, I::load(c1));
            } else if !to.bias.is_null() {
                v0 = I::add(v0, I::load(to.bias.add(n)));
                v1 = I::add(v1, I::load(to.bias.add(n + I::LANES)));
            }
            I::store(c0, v0);
            I::store(c1, v1);
        }
    }
}

/// A block of the product: rows `m0 .. m1`, columns `n0 .. n0 + width`, all of the depth.
///
/// `a` is packed with full depth: the tile of rows `a .. b` begins at float `a * depth`.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub a: Shared<f32>,
    pub rows: usize,
    pub depth: usize,
    pub to: Target,
    pub tile_range: (usize, usize),
    pub n0: usize,
    pub width: usize,
    pub panels: Shared<f32>,
}

/// A block together with the columns it takes.
pub(crate) struct Filled<C>(pub Block, pub C);

impl<C: Columns> Kernel for Filled<C> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let Filled(block, columns) = self;
        for k0 in (0..block.depth).step_by(C::K_BLOCK) {
            let depth = C::K_BLOCK.min(block.depth - k0);
            // SAFETY: `panels` has `PANEL_FLOATS`; blocks lie within A, B and C.
            unsafe {
                columns.pack::<I>(k0, depth, block.n0, block.width, block.panels.get());
                let next = k0 + depth;
                let depth = C::K_BLOCK.min(block.depth - next);
                let ahead = columns.area(next, depth, block.n0, block.width);
                dispatch(I::LEVEL, Multiply { block, k0, k_block: C::K_BLOCK, ahead });
            }
        }
    }
}

/// Multiplies all tiles of A with the packed panels of one depth range; the same code for
/// all kinds of weights.
struct Multiply {
    block: Block,
    k0: usize,
    k_block: usize,
    /// What is packed next: asked for while this block is multiplied.
    ahead: Area,
}

impl Kernel for Multiply {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let Multiply { block, k0, k_block, ahead } = self;
        let depth = k_block.min(block.depth - k0);
        let wide = 2 * I::LANES;
        let (from, to) = block.tile_range;
        let products = (to - from) * block.width.div_ceil(wide);
        let (share, mut done) = (ahead.count.div_ceil(products.max(1)), 0);
        for (m, end) in tiles(block.rows, I::MR).skip(from).take(to - from) {
            let rows = end - m;
            for (panel, first) in (0..block.width).step_by(wide).enumerate() {
                let width = wide.min(block.width - first);
                // SAFETY: tile, panel and target lie within A, B and C.
                unsafe {
                    if ahead.bytes > 0 {
                        ahead.prefetch::<I>(done, done + share);
                        done += share;
                    }
                    let a = block.a.get().add(m * block.depth + k0 * rows);
                    let b = block.panels.get().add(panel * k_block * wide);
                    macro_rules! sizes {
                        ($($m:literal)*) => {
                            match rows {
                                $($m if $m <= I::MR => place::<I, $m>(
                                    a, b, depth, &block.to, m, block.n0 + first, width, k0 == 0,
                                ),)*
                                _ => unreachable!("a tile has 1..=MR rows"),
                            }
                        };
                    }
                    sizes!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                }
            }
        }
    }
}

/// Packs tiles `from .. to` of A with full depth.
struct Pack {
    x: *const f32,
    stride: usize,
    rows: usize,
    depth: usize,
    tile_range: (usize, usize),
    dst: *mut f32,
}

impl Kernel for Pack {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let (from, to) = self.tile_range;
        for (m, end) in tiles(self.rows, I::MR).skip(from).take(to - from) {
            // SAFETY: the rows lie within `x`; `dst` has room for `rows * depth`.
            unsafe {
                let x = self.x.add(m * self.stride);
                pack_tile(x, self.stride, end - m, self.depth, self.dst.add(m * self.depth));
            }
        }
    }
}

/// Tiles that `rows` make at `level`.
pub(crate) fn tile_count(level: Level, rows: usize) -> usize {
    struct Count(usize);
    impl Kernel for Count {
        type Out = usize;
        #[inline(always)]
        unsafe fn run<I: Isa>(self) -> usize {
            self.0.div_ceil(I::MR)
        }
    }
    // SAFETY: no pointers.
    unsafe { dispatch(level, Count(rows)) }
}

/// Activations packed for [`product`], shared by all products over them.
pub(crate) struct Packed {
    a: Scratch,
    rows: usize,
    depth: usize,
    level: Level,
}

impl Packed {
    /// Packs `x` [rows, depth], all threads.
    pub(crate) fn new(level: Level, x: &[f32], rows: usize, depth: usize) -> Packed {
        debug_assert_eq!(x.len(), rows * depth);
        let mut a = Scratch::take(rows * depth);
        let dst = Shared(a.as_mut_ptr());
        let n = tile_count(level, rows);
        let start = x.as_ptr() as usize;
        parallel::for_each(n, |t| {
            let x = start as *const f32;
            let tile_range = (t, t + 1);
            // SAFETY: the shape is checked above; tiles are disjoint.
            unsafe { dispatch(level, Pack { x, stride: depth, rows, depth, tile_range, dst: dst.get() }) };
        });
        Packed { a, rows, depth, level }
    }
}

/// One product of shared activations with the columns of a weight.
pub(crate) struct Product<C> {
    pub columns: C,
    pub n: usize,
    pub to: Target,
}

/// Pieces that [`product`] cuts a product of `n` columns into: `(tile ranges, block width)`.
fn cut<C: Columns>(tiles: usize, n: usize) -> (usize, usize) {
    let threads = rayon::current_num_threads();
    let wanted = 4 * threads;
    let mut width = C::N_BLOCK;
    while width > 32 && n.div_ceil(width) < wanted {
        width /= 2;
    }
    let row_parts = if threads == 1 { 1 } else { wanted.div_ceil(n.div_ceil(width).max(1)) };
    (row_parts.clamp(1, tiles.div_ceil(4).max(1)), width)
}

/// Pieces of work of `product`.
pub(crate) fn pieces<C: Columns>(a: &Packed, product: &Product<C>) -> usize {
    let n = product.n;
    let (row_parts, width) = cut::<C>(tile_count(a.level, a.rows), n);
    row_parts * n.div_ceil(width)
}

/// Runs piece `i` of `pieces`: one block of columns for one range of tiles.
///
/// # Safety
///
/// `product.to` has room for `[a.rows, n]`, and other pieces alone write to it meanwhile.
pub(crate) unsafe fn piece<C: Columns>(a: &Packed, product: &Product<C>, i: usize) {
    let n_tiles = tile_count(a.level, a.rows);
    let (row_parts, width) = cut::<C>(n_tiles, product.n);
    let (column, part) = (i / row_parts, i % row_parts);
    let n0 = column * width;
    let mut panels = Scratch::take(PANEL_FLOATS);
    let block = Block {
        a: Shared(a.a.as_ptr().cast_mut()),
        rows: a.rows,
        depth: a.depth,
        to: product.to,
        tile_range: (part * n_tiles / row_parts, (part + 1) * n_tiles / row_parts),
        n0,
        width: width.min(product.n - n0),
        panels: Shared(panels.as_mut_ptr()),
    };
    // SAFETY: the caller's; `a` is only read.
    unsafe { dispatch(a.level, Filled(block, product.columns)) };
}
