//! Matrix product C [M, N] = A [M, K] B [K, N] over packed blocks, for many rows.
//!
//! A (activations) is copied once into blocks of [`A_DEPTH`] columns whose rows lie a constant distance apart; B is
//! panels of two vectors' width, packed ahead or widened from weights block by block, that stay in the second-level
//! cache while all tiles of up to `Isa::MR` rows pass by. The scheme is that of BLIS (Van Zee and van de Geijn, 2015),
//! but A keeps its rows: a broadcast load reads a row as fast as a packed column, and copying rows costs next to nothing.

mod columns;
mod tile;

pub(crate) use columns::{ByColumn, ByRow, Columns, Shifted};
pub(crate) use tile::{Finish, Target, finish};

use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::parallel::{self, Shared, share};
use crate::scratch::Scratch;
use crate::weight::PrefetchRegion;

/// Columns of a block of packed A.
pub(crate) const A_DEPTH: usize = 256;
/// Floats from one row of such a block to the next: an odd number of cache lines, so that rows spread over the cache.
pub(crate) const A_STRIDE: usize = A_DEPTH + 16;
/// Floats that hold one packed block of B.
pub(crate) const PANEL_FLOATS: usize = 1 << 17;

/// Floats that hold `rows` packed rows of `depth`: many times their number where rows are short.
pub(crate) fn packed_floats(rows: usize, depth: usize) -> usize {
    let row = depth.div_ceil(A_DEPTH).checked_mul(A_STRIDE);
    match row.and_then(|row| row.checked_mul(rows)) {
        Some(floats) => floats,
        None => panic!("{rows} packed rows of {depth} numbers do not fit into memory"),
    }
}

/// Where column `k`, a multiple of [`A_DEPTH`], of row `row` of `rows` stands among packed ones.
#[inline(always)]
pub(crate) const fn packed_offset(k: usize, row: usize, rows: usize) -> usize {
    (k / A_DEPTH * rows + row) * A_STRIDE
}

/// Packs one row of A, `depth` long, as row `row` of `rows`.
///
/// # Safety
///
/// The row exists, and `dst` holds `packed_floats(rows, depth)`.
#[inline(always)]
pub(crate) unsafe fn pack_row(a: *const f32, depth: usize, row: usize, rows: usize, dst: *mut f32) {
    for k in (0..depth).step_by(A_DEPTH) {
        let to = packed_offset(k, row, rows);
        // SAFETY: the caller's.
        unsafe { dst.add(to).copy_from_nonoverlapping(a.add(k), A_DEPTH.min(depth - k)) };
    }
}

/// The tiles that `rows` are cut into: nearly equal, none above `max`.
pub(crate) fn tiles(rows: usize, max: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let n = rows.div_ceil(max.max(1)).max(1);
    (0..n).map(move |t| (share(rows, n, t), share(rows, n, t + 1))).filter(|(a, b)| a < b)
}

/// Packed rows of A times packed panels of B, for a slice of the depth; the same code whatever B was packed from.
#[derive(Clone, Copy)]
pub(crate) struct Multiply {
    /// Row 0 of the slice's first block.
    pub a: *const f32,
    /// Rows that the blocks of A hold.
    pub rows: usize,
    /// Which of the tiles of these rows are multiplied.
    pub tiles: (usize, usize),
    pub depth: usize,
    /// Panels, row 0 of the slice.
    pub b: *const f32,
    /// Floats from one panel to the next.
    pub b_stride: usize,
    pub to: Target,
    /// Columns of C.
    pub n0: usize,
    pub width: usize,
    /// Whether the depth begins here, and ends here.
    pub first: bool,
    pub last: bool,
    /// What is packed next: asked for while this is multiplied.
    pub ahead: PrefetchRegion,
}

impl Kernel for Multiply {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let wide = 2 * I::LANES;
        let to = &self.to;
        let (from, until) = self.tiles;
        let products = (until - from) * self.width.div_ceil(wide) * self.depth.div_ceil(A_DEPTH);
        let (share, mut done) = (self.ahead.count.div_ceil(products.max(1)), 0);
        let finished = to.unfinished();
        for (block, k) in (0..self.depth).step_by(A_DEPTH).enumerate() {
            let depth = A_DEPTH.min(self.depth - k);
            let first = self.first && k == 0 && !to.add;
            let last = self.last && k + depth == self.depth && finished;
            for (m, end) in tiles(self.rows, I::MR).skip(from).take(until - from) {
                let rows = end - m;
                for (panel, n) in (0..self.width).step_by(wide).enumerate() {
                    let width = wide.min(self.width - n);
                    // SAFETY: tile, panel and target lie within A, B and C.
                    unsafe {
                        if self.ahead.bytes > 0 {
                            self.ahead.prefetch::<I>(done, done + share);
                            done += share;
                        }
                        let a = self.a.add((block * self.rows + m) * A_STRIDE);
                        let b = self.b.add(panel * self.b_stride + k * wide);
                        macro_rules! sizes {
                            ($($m:literal)*) => {
                                match rows {
                                    $($m if $m <= I::MR => tile::run::<I, $m>(
                                        a, b, depth, to, m, self.n0 + n, width, first,
                                    ),)*
                                    _ => unreachable!("a tile has 1..=MR rows"),
                                }
                            };
                        }
                        sizes!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                        if last {
                            finish::<I>(to, m, end, self.n0 + n, width);
                        }
                    }
                }
            }
        }
    }
}

/// A block of a product: a range of tiles, columns `n0 .. n0 + width`, all of the depth, B widened on the way.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    /// A, packed by [`pack_row`].
    pub a: Shared<f32>,
    pub rows: usize,
    pub depth: usize,
    pub to: Target,
    pub tile_range: (usize, usize),
    pub n0: usize,
    pub width: usize,
    pub panels: Shared<f32>,
    /// What is packed first behind this block.
    pub after: PrefetchRegion,
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
                let multiply = Multiply {
                    a: block.a.get().add(k0 / A_DEPTH * block.rows * A_STRIDE),
                    rows: block.rows,
                    tiles: block.tile_range,
                    depth,
                    b: block.panels.get(),
                    b_stride: C::K_BLOCK * 2 * I::LANES,
                    to: block.to,
                    n0: block.n0,
                    width: block.width,
                    first: k0 == 0,
                    last: next == block.depth,
                    ahead: match C::K_BLOCK.min(block.depth - next) {
                        0 => block.after,
                        depth => columns.prefetch_region(next, depth, block.n0, block.width),
                    },
                };
                dispatch(I::LEVEL, multiply);
            }
        }
    }
}

/// Rows of the micro-tile at `level`.
pub(crate) fn tile_rows(level: Level) -> usize {
    struct Rows;
    impl Kernel for Rows {
        type Out = usize;
        #[inline(always)]
        unsafe fn run<I: Isa>(self) -> usize {
            I::MR
        }
    }
    // SAFETY: no pointers.
    unsafe { dispatch(level, Rows) }
}

/// Activations packed for [`piece`], shared by all products over them.
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
        let mut packed = Packed::room(level, rows, depth);
        let dst = packed.start();
        let each = ((1 << 15) / depth.max(1)).max(1);
        parallel::for_each(rows.div_ceil(each), |i| {
            for row in i * each..((i + 1) * each).min(rows) {
                // SAFETY: the shape is checked above; rows are disjoint.
                unsafe { pack_row(x[row * depth..].as_ptr(), depth, row, rows, dst.get()) };
            }
        });
        packed
    }

    /// Room for [rows, depth], to be filled at [`packed_place`]s from [`Self::start`] on.
    pub(crate) fn room(level: Level, rows: usize, depth: usize) -> Packed {
        Packed { a: Scratch::take(packed_floats(rows, depth)), rows, depth, level }
    }

    pub(crate) fn start(&mut self) -> Shared<f32> {
        Shared(self.a.as_mut_ptr())
    }

    fn tiles(&self) -> usize {
        self.rows.div_ceil(tile_rows(self.level))
    }
}

/// One product of shared activations with the columns of a weight.
pub(crate) struct Product<C> {
    pub columns: C,
    pub n: usize,
    pub to: Target,
}

/// Pieces that a product of `n` columns is cut into: `(tile ranges, block width)`.
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

/// Pieces of work of a product.
pub(crate) fn pieces<C: Columns>(a: &Packed, product: &Product<C>) -> usize {
    let n = product.n;
    let (row_parts, width) = cut::<C>(a.tiles(), n);
    row_parts * n.div_ceil(width)
}

/// Runs piece `i` of [`pieces`]: one block of columns for one range of tiles.
///
/// # Safety
///
/// `product.to` has room for `[a.rows, n]`, and other pieces alone write to it meanwhile.
pub(crate) unsafe fn piece<C: Columns>(a: &Packed, product: &Product<C>, i: usize) {
    let n_tiles = a.tiles();
    let (row_parts, width) = cut::<C>(n_tiles, product.n);
    let (column, part) = (i / row_parts, i % row_parts);
    let n0 = column * width;
    let mut panels = Scratch::take(PANEL_FLOATS);
    // Pieces are handed out in order, so this thread's next one is about as many on as there are threads.
    let next = (i + rayon::current_num_threads()) / row_parts * width;
    let after = match product.n.saturating_sub(next).min(width) {
        0 => PrefetchRegion::NONE,
        width => product.columns.prefetch_region(0, C::K_BLOCK.min(a.depth), next, width),
    };
    let block = Block {
        after,
        a: Shared(a.a.as_ptr().cast_mut()),
        rows: a.rows,
        depth: a.depth,
        to: product.to,
        tile_range: (share(n_tiles, row_parts, part), share(n_tiles, row_parts, part + 1)),
        n0,
        width: width.min(product.n - n0),
        panels: Shared(panels.as_mut_ptr()),
    };
    // SAFETY: the caller's; `a` is only read.
    unsafe { dispatch(a.level, Filled(block, product.columns)) };
}
