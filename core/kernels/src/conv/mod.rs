//! 2-D convolution over channels-last activations `[B, h, w, C]` with weights packed once, bias, residual and activation
//! done while a result is in the nearest cache.
//!
//! A 1 x 1 convolution is the matrix product of the linear layer; others copy the pixels under their kernel straight
//! into the product's packed rows ([`direct`]), or, for 3 x 3 at stride 1, go by Winograd's algorithm ([`winograd`]).

mod direct;
mod winograd;

use crate::activation::Activation;
use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::parallel::{self, Shared, share};
use crate::scratch::Line;
use crate::shape::{ShapeError, check_len, elements, room};

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Channels in.
    pub n_in: usize,
    /// Channels out.
    pub n_out: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Down and to the right.
    pub stride: [usize; 2],
    /// Zeros at the top, left, bottom and right.
    pub padding: [usize; 4],
}

impl ConvShape {
    /// A square kernel with one stride and the same zeros on each side.
    pub fn square(n_in: usize, n_out: usize, kernel: usize, stride: usize, padding: usize) -> ConvShape {
        ConvShape { n_in, n_out, kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 4] }
    }

    /// Height and width of the output for an input of `h` x `w`; None where the kernel does not fit, or the padded image
    /// into no memory.
    pub fn output(&self, h: usize, w: usize) -> Option<(usize, usize)> {
        let along = |size: usize, kernel: usize, stride: usize| {
            (kernel > 0 && stride > 0 && size >= kernel).then(|| (size - kernel) / stride + 1)
        };
        let [h, w] = self.padded(h, w).ok()?;
        Some((along(h, self.kernel[0], self.stride[0])?, along(w, self.kernel[1], self.stride[1])?))
    }

    /// Height and width of an image of `h` x `w` with its zeros.
    fn padded(&self, h: usize, w: usize) -> Result<[usize; 2], ShapeError> {
        let [top, left, bottom, right] = self.padding;
        let sides = [h.saturating_add(top).saturating_add(bottom), w.saturating_add(left).saturating_add(right)];
        elements("padded image", &[sides[0], sides[1], self.n_in])?;
        Ok(sides)
    }

    /// Inputs of one output; the weight has as many for each, so that the product cannot wrap round.
    fn depth(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.n_in
    }

    /// Whether Winograd's algorithm takes it, and pays: below, its transforms cost more than they save.
    fn suits_winograd(&self) -> bool {
        self.kernel == [3, 3] && self.stride == [1, 1] && self.n_in >= 16 && self.n_out >= 16
    }
}

/// A convolution with its weights packed for the instruction set it was made under.
#[derive(Clone)]
pub struct Conv {
    shape: ConvShape,
    level: Level,
    winograd: bool,
    panels: Vec<Line>,
    bias: Option<Vec<f32>>,
}

impl std::fmt::Debug for Conv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conv {{ {:?}, {:?}, winograd: {} }}", self.shape, self.level, self.winograd)
    }
}

/// The tensors of one call of [`Conv::run`].
#[derive(Clone, Copy)]
struct Call<'a> {
    conv: &'a Conv,
    x: *const f32,
    batch: usize,
    /// Height and width of the input and of the output.
    size: [usize; 2],
    out: [usize; 2],
    residual: *const f32,
    activation: Option<Activation>,
    y: Shared<f32>,
}
// SAFETY: `x` and `residual` are read only, and `Shared` speaks for `y`.
unsafe impl Send for Call<'_> {}
// SAFETY: as above.
unsafe impl Sync for Call<'_> {}

impl Conv {
    /// Packs `weight` `[n_out, n_in, height, width]` and `bias` `[n_out]`.
    ///
    /// # Errors
    ///
    /// Where a slice does not have its shape's length, or a stride, a side of the kernel or the number of channels in is 0.
    pub fn new(shape: ConvShape, weight: &[f32], bias: Option<&[f32]>) -> Result<Conv, ShapeError> {
        Conv::by(shape, weight, None, bias, shape.suits_winograd())
    }

    /// The same without Winograd's algorithm: as many products as the definition has, and its rounding.
    ///
    /// # Errors
    ///
    /// As for [`Conv::new`].
    pub fn direct(shape: ConvShape, weight: &[f32], bias: Option<&[f32]>) -> Result<Conv, ShapeError> {
        Conv::by(shape, weight, None, bias, false)
    }

    /// [`Conv::new`] of a weight whose output channels are multiplied with `scale` `[n_out]` first, as a batch norm does.
    ///
    /// # Errors
    ///
    /// As for [`Conv::new`].
    pub fn scaled(shape: ConvShape, weight: &[f32], scale: &[f32], bias: Option<&[f32]>) -> Result<Conv, ShapeError> {
        check_len("scale of a convolution", &[shape.n_out], scale.len())?;
        Conv::by(shape, weight, Some(scale), bias, shape.suits_winograd())
    }

    fn by(
        shape: ConvShape,
        weight: &[f32],
        scale: Option<&[f32]>,
        bias: Option<&[f32]>,
        winograd: bool,
    ) -> Result<Conv, ShapeError> {
        let ConvShape { n_in, n_out, kernel, stride, .. } = shape;
        check_len("convolution weight", &[n_out, n_in, kernel[0], kernel[1]], weight.len())?;
        check_len("convolution bias", &[n_out], bias.map_or(n_out, <[f32]>::len))?;
        // Without one input of an output, no piece of work would write it.
        for (what, sizes) in [
            ("stride of a convolution", stride),
            ("side of a convolution's kernel", kernel),
            ("channels in of a convolution", [n_in; 2]),
        ] {
            if sizes.contains(&0) {
                return Err(ShapeError::Size { what, found: 0, allowed: "at least 1" });
            }
        }
        // Panels are at most 32 wide, and Winograd's transform makes 16 numbers out of nine.
        elements("packed weight of a convolution", &[n_out.div_ceil(32), 32, shape.depth(), 16])?;
        let level = Level::current();
        let panels = match winograd {
            true => winograd::pack(level, &shape, weight, scale),
            false => direct::pack(level, &shape, weight, scale),
        };
        Ok(Conv { shape, level, winograd, panels, bias: bias.map(<[f32]>::to_vec) })
    }

    /// The sizes.
    pub fn shape(&self) -> ConvShape {
        self.shape
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        size_of_val(self.panels.as_slice())
    }

    /// `activation(conv(x) + bias + residual)`: x `[batch, h, w, n_in]` to `[batch, h', w', n_out]`; the residual has the
    /// result's shape.
    ///
    /// # Errors
    ///
    /// Where a slice does not have its shape's length, or the kernel is larger than the padded image.
    pub fn run(
        &self,
        x: &[f32],
        [batch, h, w]: [usize; 3],
        residual: Option<&[f32]>,
        activation: Option<Activation>,
    ) -> Result<Vec<f32>, ShapeError> {
        let ConvShape { n_in, n_out, .. } = self.shape;
        check_len("x", &[batch, h, w, n_in], x.len())?;
        self.shape.padded(h, w)?;
        let Some((out_h, out_w)) = self.shape.output(h, w) else {
            let allowed = "at least the kernel's side, padding included";
            return Err(ShapeError::Size { what: "side of a convolution's input", found: h.min(w), allowed });
        };
        let out = [batch, out_h, out_w, n_out];
        if let Some(residual) = residual {
            check_len("residual", &out, residual.len())?;
        }
        let (mut y, len) = room("output of a convolution", &out)?;
        let call = Call {
            conv: self,
            x: x.as_ptr(),
            batch,
            size: [h, w],
            out: [out_h, out_w],
            residual: residual.map_or(std::ptr::null(), <[f32]>::as_ptr),
            activation,
            y: Shared(y.as_mut_ptr()),
        };
        if len > 0 {
            match self.winograd {
                true => winograd::run(call),
                false => direct::run(call),
            }
        }
        // SAFETY: every piece of work has written its part of `y`, and together they are all of it.
        unsafe { y.set_len(len) };
        Ok(y)
    }
}

/// Widths of a panel's two vectors together at `level`.
fn panel_width(level: Level) -> usize {
    struct Width;
    impl Kernel for Width {
        type Out = usize;
        #[inline(always)]
        unsafe fn run<I: Isa>(self) -> usize {
            2 * I::LANES
        }
    }
    // SAFETY: no pointers.
    unsafe { dispatch(level, Width) }
}

/// How `rows` x `columns` of a result are cut into pieces of work: row groups times column groups.
#[derive(Clone, Copy, Debug)]
struct Grid {
    rows: usize,
    row_groups: usize,
    columns: usize,
    column_groups: usize,
    /// What the columns of a group are a multiple of.
    unit: usize,
}

impl Grid {
    /// Groups of at most `most_rows` and `most_columns`, and enough of them for the threads, as long as they keep
    /// `least_rows` and `least_columns`. All columns are whole `unit`s.
    fn new(rows: usize, columns: usize, unit: usize, most: [usize; 2], least: [usize; 2]) -> Grid {
        let threads = rayon::current_num_threads();
        let wanted = if threads == 1 { 1 } else { 4 * threads };
        let units = columns.div_ceil(unit);
        let mut row_groups = rows.div_ceil(most[0]);
        let mut column_groups = units.div_ceil((most[1] / unit).max(1));
        while row_groups * column_groups < wanted {
            if rows.div_ceil(row_groups + 1) >= least[0] {
                row_groups += 1;
            } else if units.div_ceil(column_groups + 1) * unit >= least[1] && column_groups < units {
                column_groups += 1;
            } else {
                break;
            }
        }
        Grid { rows, row_groups, columns, column_groups, unit }
    }

    /// Runs `f(rows, columns)` for every group, groups of the same columns one after the other.
    fn for_each(self, f: impl Fn([usize; 2], [usize; 2]) + Sync) {
        let units = self.columns.div_ceil(self.unit);
        parallel::for_each(self.row_groups * self.column_groups, |i| {
            let (r, c) = (i % self.row_groups, i / self.row_groups);
            let row = |r: usize| share(self.rows, self.row_groups, r);
            let column = |c: usize| (share(units, self.column_groups, c) * self.unit).min(self.columns);
            f([row(r), row(r + 1)], [column(c), column(c + 1)]);
        });
    }
}
