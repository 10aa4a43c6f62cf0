//! 3 x 3 convolution at stride 1 by Winograd's minimal filtering: F(2 x 2, 3 x 3), 16 products instead of 36.
//!
//! Sixteen transformed values of every 4 x 4 patch of the input are multiplied with sixteen transformed matrices of
//! weights; their products give 2 x 2 pixels. The transforms add, subtract and halve, so that the result is within
//! about twice the rounding of the plain sum. Source followed: Lavin and Gray, "Fast Algorithms for Convolutional
//! Neural Networks", arXiv 1509.09308.

use super::{Call, ConvShape, Grid, panel_width};
use crate::gemm::{A_DEPTH, A_STRIDE, Multiply, Target, finish, packed_floats};
use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::parallel::{self, Shared};
use crate::scratch::{Line, Scratch, lines};
use crate::weight::PrefetchRegion;

/// Side of a patch of the input, and of the pixels that it gives.
const N: usize = 4;
const M: usize = 2;
/// Transformed values of a patch.
const T: usize = N * N;

/// Floats of transformed patches and products that a piece of work should keep in the second-level cache.
const ROOM: usize = 160 << 10;
/// Most channels of a piece, and fewest and most patches.
const COLUMNS: usize = 256;
const PATCHES: [usize; 2] = [42, 84];
/// Fewest patches and channels, where smaller pieces would keep more threads at work.
const LEAST: [usize; 2] = [28, 96];

/// One row or column of a patch: B^T d.
#[inline(always)]
unsafe fn input<I: Isa>([a, b, c, d]: [I::V; N]) -> [I::V; N] {
    // SAFETY: no pointers.
    unsafe { [I::sub(a, c), I::add(b, c), I::sub(c, b), I::sub(b, d)] }
}

/// One row or column of products: A^T m.
#[inline(always)]
unsafe fn output<I: Isa>([a, b, c, d]: [I::V; N]) -> [I::V; M] {
    // SAFETY: no pointers.
    unsafe { [I::add(I::add(a, b), c), I::sub(I::sub(b, c), d)] }
}

/// One row or column of a kernel: G g.
fn kernel([a, b, c]: [f64; 3]) -> [f64; N] {
    [a, 0.5 * (a + b + c), 0.5 * (a - b + c), c]
}

/// Panels `[value, panel, channel, 2 LANES]` of the transformed `weight` `[O, I, 3, 3]`.
pub(super) fn pack(level: Level, shape: &ConvShape, weight: &[f32], scale: Option<&[f32]>) -> Vec<Line> {
    let wide = panel_width(level);
    let (n_in, panels) = (shape.n_in, shape.n_out.div_ceil(wide));
    let mut out = lines(T * panels * n_in * wide);
    let to = Shared(out.as_mut_ptr().cast::<f32>());
    parallel::for_each(panels, |panel| {
        for lane in 0..wide.min(shape.n_out - panel * wide) {
            let o = panel * wide + lane;
            let (row, scale) = (&weight[o * n_in * 9..][..n_in * 9], scale.map_or(1.0, |s| s[o]));
            for (channel, g) in row.chunks_exact(9).enumerate() {
                let rows: [[f64; N]; 3] =
                    std::array::from_fn(|y| kernel(std::array::from_fn(|x| f64::from(g[3 * y + x] * scale))));
                for x in 0..N {
                    for (y, u) in kernel([rows[0][x], rows[1][x], rows[2][x]]).into_iter().enumerate() {
                        let at = (((y * N + x) * panels + panel) * n_in + channel) * wide + lane;
                        // SAFETY: `out` holds all panels; each is written by one piece of work.
                        unsafe { *to.get().add(at) = u as f32 };
                    }
                }
            }
        }
    });
    out
}

pub(super) fn run(call: Call) {
    let ConvShape { n_in, n_out, .. } = call.conv.shape;
    let wide = panel_width(call.conv.level);
    let [down, across] = call.out.map(|side| side.div_ceil(M));
    let columns = n_out.next_multiple_of(wide).min(COLUMNS);
    let most = (ROOM / (T * (n_in + columns))).clamp(PATCHES[0], PATCHES[1]);
    Grid::new(call.batch * down * across, n_out, wide, [most, COLUMNS], LEAST).for_each(|rows, columns| {
        // SAFETY: groups lie within the output and do not overlap; the level is supported.
        unsafe { dispatch(call.conv.level, Piece { call, rows, columns }) };
    });
}

/// Patches `rows.0 .. rows.1` and channels `columns.0 .. columns.1`.
struct Piece<'a> {
    call: Call<'a>,
    rows: [usize; 2],
    columns: [usize; 2],
}

/// Where a patch lies.
struct PatchIndex {
    image: usize,
    /// Its first output pixel.
    y: usize,
    x: usize,
}

impl Call<'_> {
    #[inline(always)]
    fn patch_index(&self, patch: usize) -> PatchIndex {
        let [down, across] = self.out.map(|side| side.div_ceil(M));
        PatchIndex { image: patch / (down * across), y: patch / across % down * M, x: patch % across * M }
    }
}

impl Kernel for Piece<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<I: Isa>(self) {
        let Piece { call, rows: [from, until], columns: [n0, n1] } = self;
        let conv = call.conv;
        let (n_in, wide) = (conv.shape.n_in, 2 * I::LANES);
        let panels = conv.shape.n_out.div_ceil(wide);
        let rows = until - from;
        let width = (n1 - n0).next_multiple_of(wide);
        let mut values = Scratch::take(T * packed_floats(rows, n_in));
        let mut products = Scratch::take(T * rows * width);
        let mut zeros = Scratch::take(n_in);
        // SAFETY: the scratch has these sizes; the group lies within the output; panels begin at multiples of their width.
        unsafe {
            zeros.as_mut_ptr().write_bytes(0, n_in);
            for row in 0..rows {
                transform::<I>(&call, from + row, row, rows, zeros.as_ptr(), values.as_mut_ptr());
            }
            for t in 0..T {
                let multiply = Multiply {
                    a: values.as_ptr().add(t * packed_floats(rows, n_in)),
                    rows,
                    tiles: (0, rows.div_ceil(I::MR)),
                    depth: n_in,
                    b: conv.panels.as_ptr().cast::<f32>().add((t * panels + n0 / wide) * n_in * wide),
                    b_stride: n_in * wide,
                    to: Target::new(products.as_mut_ptr().add(t * rows * width), width),
                    n0: 0,
                    width,
                    first: true,
                    last: true,
                    ahead: PrefetchRegion::NONE,
                };
                dispatch(I::LEVEL, multiply);
            }
            for row in 0..rows {
                let products = products.as_ptr().add(row * width);
                collect::<I>(&call, from + row, products, rows * width, [n0, n1]);
            }
        }
    }
}

/// Transforms the patch of the input that `patch` stands for, to row `row` of `rows` of each of the `T` packed blocks.
#[inline(always)]
unsafe fn transform<I: Isa>(call: &Call, patch: usize, row: usize, rows: usize, zeros: *const f32, values: *mut f32) {
    let ConvShape { n_in, padding, .. } = call.conv.shape;
    let [h, w] = call.size;
    let PatchIndex { image, y, x } = call.patch_index(patch);
    let each = packed_floats(rows, n_in);
    // SAFETY: only pixels inside the image are read, others are `zeros`.
    unsafe {
        let mut pixels = [[zeros; N]; N];
        for (i, line) in pixels.iter_mut().enumerate() {
            for (j, pixel) in line.iter_mut().enumerate() {
                let (y, x) = ((y + i).wrapping_sub(padding[0]), (x + j).wrapping_sub(padding[1]));
                if y < h && x < w {
                    *pixel = call.x.add(((image * h + y) * w + x) * n_in);
                }
            }
        }
        let mut c = 0;
        while c < n_in {
            let mut d = [[I::splat(0.0); N]; N];
            if c + I::LANES <= n_in {
                for i in 0..N {
                    for j in 0..N {
                        d[i][j] = I::load(pixels[i][j].add(c));
                    }
                }
            } else {
                let mut edge = [0f32; 16];
                for i in 0..N {
                    for j in 0..N {
                        edge.as_mut_ptr().copy_from_nonoverlapping(pixels[i][j].add(c), n_in - c);
                        d[i][j] = I::load(edge.as_ptr());
                    }
                }
            }
            for j in 0..N {
                let column = input::<I>([d[0][j], d[1][j], d[2][j], d[3][j]]);
                for i in 0..N {
                    d[i][j] = column[i];
                }
            }
            let to = values.add((c / A_DEPTH * rows + row) * A_STRIDE + c % A_DEPTH);
            for i in 0..N {
                for (j, v) in input::<I>(d[i]).into_iter().enumerate() {
                    I::store(to.add((i * N + j) * each), v);
                }
            }
            c += I::LANES;
        }
    }
}

/// Turns the products of one patch, `stride` apart, into output pixels; channels `n0 .. n1`.
#[inline(always)]
unsafe fn collect<I: Isa>(call: &Call, patch: usize, products: *const f32, stride: usize, [n0, n1]: [usize; 2]) {
    let n_out = call.conv.shape.n_out;
    let [out_h, out_w] = call.out;
    let PatchIndex { image, y, x } = call.patch_index(patch);
    let bias = call.conv.bias.as_deref();
    let to = Target { residual: call.residual, activation: call.activation, ..Target::new(call.y.get(), n_out) };
    let finished = to.unfinished();
    let first = (image * out_h + y) * out_w + x;
    // SAFETY: products are as wide as whole panels; only pixels inside the output are written.
    unsafe {
        let mut c = 0;
        while n0 + c < n1 {
            let n = I::LANES.min(n1 - n0 - c);
            let mut edge = [0f32; 16];
            let bias = match bias {
                None => I::splat(0.0),
                Some(bias) if n == I::LANES => I::load(bias.as_ptr().add(n0 + c)),
                Some(bias) => {
                    edge.as_mut_ptr().copy_from_nonoverlapping(bias.as_ptr().add(n0 + c), n);
                    I::load(edge.as_ptr())
                }
            };
            let mut halves = [[I::splat(0.0); N]; M];
            for j in 0..N {
                let m = |i: usize| products.add((i * N + j) * stride + c);
                let column = output::<I>([I::load(m(0)), I::load(m(1)), I::load(m(2)), I::load(m(3))]);
                for i in 0..M {
                    halves[i][j] = column[i];
                }
            }
            for i in 0..M {
                for (j, v) in output::<I>(halves[i]).into_iter().enumerate() {
                    if y + i < out_h && x + j < out_w {
                        let v = I::add(v, bias);
                        let to = to.c.get().add((first + i * out_w + j) * n_out + n0 + c);
                        if n == I::LANES {
                            I::store(to, v);
                        } else {
                            I::store(edge.as_mut_ptr(), v);
                            to.copy_from_nonoverlapping(edge.as_ptr(), n);
                        }
                    }
                }
            }
            c += I::LANES;
        }
        if finished {
            for i in 0..M.min(out_h - y) {
                let pixel = first + i * out_w;
                finish::<I>(&to, pixel, pixel + M.min(out_w - x), n0, n1 - n0);
            }
        }
    }
}
