//! Pools over channels-last activations `[B, h, w, C]`, and the way between channels-last and channels-first.

use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::math::{Larger, Sum, Times, for_rows, map, map2, shared};
use crate::parallel::{self, Shared};
use crate::shape::{ShapeError, check_len, room};

/// The windows of a pool, square and in a square step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Side of the window.
    pub kernel: usize,
    /// From one window to the next.
    pub stride: usize,
    /// Pixels on each side that count for nothing.
    pub padding: usize,
    /// Whether a last window that is partly outside gives a pixel too.
    pub ceil: bool,
}

impl PoolShape {
    /// Pixels along a side of `size`; None where not one window fits.
    fn output(&self, size: usize) -> Option<usize> {
        let PoolShape { kernel, stride, padding, ceil } = *self;
        if kernel == 0 || stride == 0 || padding > kernel / 2 {
            return None;
        }
        let reach = size.checked_add(padding)?.checked_add(padding)?;
        let steps =
            if ceil { reach.saturating_sub(kernel).div_ceil(stride) } else { reach.checked_sub(kernel)? / stride };
        // As in PyTorch, a window begins inside the image or its left padding.
        let steps = if ceil && steps.saturating_mul(stride) >= size + padding { steps.checked_sub(1)? } else { steps };
        (size > 0).then_some(steps + 1)
    }

    /// Height and width of the output for an input of `h` x `w`; None where not one window fits.
    pub fn outputs(&self, h: usize, w: usize) -> Option<(usize, usize)> {
        Some((self.output(h)?, self.output(w)?))
    }

    /// Pixels inside the image of window `i` along a side of `size`.
    #[inline(always)]
    fn window(&self, i: usize, size: usize) -> (usize, usize) {
        let start = i * self.stride;
        let end = start.saturating_add(self.kernel);
        (start.saturating_sub(self.padding), end.saturating_sub(self.padding).min(size))
    }
}

#[derive(Clone, Copy)]
struct Pool {
    shape: PoolShape,
    x: Shared<f32>,
    y: Shared<f32>,
    size: [usize; 2],
    out: [usize; 2],
    c: usize,
    /// The mean of the window, or its largest.
    mean: bool,
}

impl crate::math::Row for Pool {
    #[inline(always)]
    unsafe fn row<I: Isa>(self, row: usize) {
        let Pool { shape, size: [h, w], out: [out_h, out_w], c, .. } = self;
        let (image, oy, ox) = (row / (out_h * out_w), row / out_w % out_h, row % out_w);
        let ((y0, y1), (x0, x1)) = (shape.window(oy, h), shape.window(ox, w));
        // SAFETY: windows are cut to the image; rows are the output's pixels.
        unsafe {
            let pixel = |y: usize, x: usize| self.x.get().add(((image * h + y) * w + x) * c);
            let to = self.y.get().add(row * c);
            to.copy_from_nonoverlapping(pixel(y0, x0), c);
            for y in y0..y1 {
                for x in x0..x1 {
                    if (y, x) == (y0, x0) {
                        continue;
                    }
                    if self.mean {
                        map2::<I>(to, pixel(y, x), to, c, Sum);
                    } else {
                        map2::<I>(to, pixel(y, x), to, c, Larger);
                    }
                }
            }
            let n = (y1 - y0) * (x1 - x0);
            if self.mean && n > 1 {
                let scale = I::splat(1.0 / n as f32);
                map::<I>(to, to, c, Times(scale));
            }
        }
    }
}

fn pool(x: &[f32], [batch, h, w, c]: [usize; 4], shape: PoolShape, mean: bool) -> Result<Vec<f32>, ShapeError> {
    check_len("x", &[batch, h, w, c], x.len())?;
    let Some((out_h, out_w)) = shape.outputs(h, w) else {
        let allowed = "at least the window's side, padding of at most half of it included";
        return Err(ShapeError::Size { what: "side of a pool's input", found: h.min(w), allowed });
    };
    let (mut y, len) = room("output of a pool", &[batch, out_h, out_w, c])?;
    if len == 0 {
        return Ok(y);
    }
    let (rows, width) = (len / c, c.saturating_mul(shape.kernel.saturating_mul(shape.kernel)));
    let work = Pool { shape, x: shared(x), y: Shared(y.as_mut_ptr()), size: [h, w], out: [out_h, out_w], c, mean };
    // SAFETY: the length is checked above; rows are the output's pixels, and all of them are written.
    unsafe {
        for_rows(rows, width, work);
        y.set_len(len);
    }
    Ok(y)
}

/// Means of windows of x `[B, h, w, C]`, over the pixels inside the image alone: `[B, h', w', C]`.
///
/// # Errors
///
/// Where the length is another, or not one window fits.
pub fn average_pool(x: &[f32], size: [usize; 4], shape: PoolShape) -> Result<Vec<f32>, ShapeError> {
    pool(x, size, shape, true)
}

/// Largest numbers of windows of x `[B, h, w, C]`: `[B, h', w', C]`.
///
/// # Errors
///
/// Where the length is another, or not one window fits.
pub fn max_pool(x: &[f32], size: [usize; 4], shape: PoolShape) -> Result<Vec<f32>, ShapeError> {
    pool(x, size, shape, false)
}

/// Columns that one piece of a transposition takes.
const PIECE: usize = 256;

/// Columns `from .. to` of one matrix `[rows, columns]` to rows of its transpose.
struct Transpose {
    x: *const f32,
    y: *mut f32,
    rows: usize,
    columns: usize,
    from: usize,
    to: usize,
}

impl Kernel for Transpose {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let Transpose { x, y, rows, columns, from, to } = self;
        // SAFETY: the caller's matrices have these sizes.
        unsafe {
            let (whole_rows, whole) = (rows / I::LANES * I::LANES, from + (to - from) / I::LANES * I::LANES);
            for j in (from..whole).step_by(I::LANES) {
                for i in (0..whole_rows).step_by(I::LANES) {
                    I::transpose(x.add(i * columns + j), columns, y.add(j * rows + i), rows);
                }
            }
            for j in from..to {
                for i in if j < whole { whole_rows } else { 0 }..rows {
                    *y.add(j * rows + i) = *x.add(i * columns + j);
                }
            }
        }
    }
}

/// Every matrix of x `[batch, rows, columns]` transposed: `[batch, columns, rows]`.
///
/// # Errors
///
/// Where the length is another.
pub fn transpose(x: &[f32], [batch, rows, columns]: [usize; 3]) -> Result<Vec<f32>, ShapeError> {
    check_len("x", &[batch, rows, columns], x.len())?;
    let mut y: Vec<f32> = Vec::with_capacity(x.len());
    if x.is_empty() {
        return Ok(y);
    }
    let (from, to) = (shared(x), Shared(y.as_mut_ptr()));
    let level = Level::current();
    let pieces = columns.div_ceil(PIECE);
    parallel::for_each(batch * pieces, |i| {
        let (at, first) = (i / pieces * rows * columns, i % pieces * PIECE);
        // SAFETY: matrices lie within x and y; pieces write to rows of their own.
        unsafe {
            let (x, y) = (from.get().add(at), to.get().add(at));
            dispatch(level, Transpose { x, y, rows, columns, from: first, to: (first + PIECE).min(columns) });
        }
    });
    // SAFETY: every element has been written.
    unsafe { y.set_len(x.len()) };
    Ok(y)
}
