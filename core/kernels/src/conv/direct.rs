//! Convolution as one matrix product: rows are output pixels, the depth runs over the kernel's rows, columns and channels.

use super::{Call, ConvShape, Grid, panel_width};
use crate::gemm::{A_DEPTH, A_STRIDE, Multiply, Target};
use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::parallel::{self, Shared};
use crate::scratch::{Line, Scratch, lines};
use crate::weight::PrefetchRegion;

/// Most output pixels and channels of a piece of work: packed pixels, their results and a block of weights stay in the
/// second-level cache together.
const MOST: [usize; 2] = [168, 256];
/// Fewest, where smaller pieces would keep more threads at work.
const LEAST: [usize; 2] = [42, 64];

/// Panels `[panel, depth, 2 LANES]` of `weight` `[O, I, kh, kw]`; the depth is ordered (ky, kx, channel).
pub(super) fn pack(level: Level, shape: &ConvShape, weight: &[f32], scale: Option<&[f32]>) -> Vec<Line> {
    let wide = panel_width(level);
    let (depth, taps) = (shape.depth(), shape.kernel[0] * shape.kernel[1]);
    let panels = shape.n_out.div_ceil(wide);
    let mut out = lines(panels * depth * wide);
    let to = Shared(out.as_mut_ptr().cast::<f32>());
    parallel::for_each(panels, |panel| {
        for lane in 0..wide.min(shape.n_out - panel * wide) {
            let o = panel * wide + lane;
            let (row, scale) = (&weight[o * depth..][..depth], scale.map_or(1.0, |s| s[o]));
            for channel in 0..shape.n_in {
                for tap in 0..taps {
                    let k = tap * shape.n_in + channel;
                    // SAFETY: `out` holds all panels; each is written by one piece of work.
                    unsafe { *to.get().add((panel * depth + k) * wide + lane) = row[channel * taps + tap] * scale };
                }
            }
        }
    });
    out
}

pub(super) fn run(call: Call) {
    let wide = panel_width(call.conv.level);
    let rows = call.batch * call.out[0] * call.out[1];
    Grid::new(rows, call.conv.shape.n_out, wide, MOST, LEAST).for_each(|rows, columns| {
        // SAFETY: groups lie within the output and do not overlap; the level is supported.
        unsafe { dispatch(call.conv.level, Piece { call, rows, columns }) };
    });
}

/// Output pixels `rows.0 .. rows.1` and channels `columns.0 .. columns.1`.
struct Piece<'a> {
    call: Call<'a>,
    rows: [usize; 2],
    columns: [usize; 2],
}

impl Kernel for Piece<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let Piece { call, rows: [from, until], columns: [n0, n1] } = self;
        let conv = call.conv;
        let (depth, n_out, wide) = (conv.shape.depth(), conv.shape.n_out, 2 * I::LANES);
        let rows = until - from;
        let mut packed = Scratch::take(rows * A_STRIDE);
        let packed = packed.as_mut_ptr();
        // SAFETY: the group lies within the output; panels begin at multiples of their width.
        unsafe {
            let panels = conv.panels.as_ptr().cast::<f32>().add(n0 * depth);
            let residual = call.residual;
            let to = Target {
                residual: if residual.is_null() { residual } else { residual.add(from * n_out) },
                activation: call.activation,
                ..Target::new(call.y.get().add(from * n_out), n_out).with_bias(conv.bias.as_deref())
            };
            for k0 in (0..depth).step_by(A_DEPTH) {
                let len = A_DEPTH.min(depth - k0);
                for row in 0..rows {
                    gather(&call, from + row, k0, len, packed.add(row * A_STRIDE));
                }
                let multiply = Multiply {
                    a: packed,
                    rows,
                    tiles: (0, rows.div_ceil(I::MR)),
                    depth: len,
                    b: panels.add(k0 * wide),
                    b_stride: depth * wide,
                    to,
                    n0,
                    width: n1 - n0,
                    first: k0 == 0,
                    last: k0 + len == depth,
                    ahead: PrefetchRegion::NONE,
                };
                dispatch(I::LEVEL, multiply);
            }
        }
    }
}

/// Copies what lies under the kernel for output pixel `row`, `len` numbers of the depth from `k` on, to `dst`.
#[inline(always)]
unsafe fn gather(call: &Call, row: usize, k: usize, len: usize, dst: *mut f32) {
    let ConvShape { n_in, kernel, stride, padding, .. } = call.conv.shape;
    let [h, w] = call.size;
    let [out_h, out_w] = call.out;
    // SAFETY: the caller's row is one of the output's; only pixels inside the image are read.
    unsafe {
        if kernel == [1, 1] && stride == [1, 1] && padding == [0; 4] {
            dst.copy_from_nonoverlapping(call.x.add(row * n_in + k), len);
            return;
        }
        let (image, oy, ox) = (row / (out_h * out_w), row / out_w % out_h, row % out_w);
        // A row of the kernel covers `width` numbers that lie side by side, from `left` on, in a row of the image.
        let width = kernel[1] * n_in;
        let left = (ox * stride[1]) as isize - padding[1] as isize;
        let (mut ky, mut at, mut done) = (k / width, k % width, 0);
        while done < len {
            let n = (width - at).min(len - done);
            let to = dst.add(done);
            let y = (oy * stride[0] + ky) as isize - padding[0] as isize;
            if (0..h as isize).contains(&y) {
                let start = left * n_in as isize + at as isize;
                let before = (-start).clamp(0, n as isize) as usize;
                let end = ((w * n_in) as isize - start).clamp(before as isize, n as isize) as usize;
                to.write_bytes(0, before);
                if end > before {
                    let line = call.x.add((image * h + y as usize) * w * n_in);
                    to.add(before).copy_from_nonoverlapping(line.offset(start + before as isize), end - before);
                }
                to.add(end).write_bytes(0, n - end);
            } else {
                to.write_bytes(0, n);
            }
            (ky, at, done) = (ky + 1, 0, done + n);
        }
    }
}
