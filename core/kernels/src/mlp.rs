//! The second half of an MLP, and the gradient of a whole one, from hidden numbers before their activation.
//!
//! The hidden layer is several times as wide as the others: neither what the activation makes of it nor its gradient is
//! ever held whole, only a block of their columns at a time. Sums are taken in the order of
//! [`linear_multi`](crate::linear_multi) of many rows and [`linear_input_grad`](crate::linear_input_grad).

use crate::activation::{Activation, apply_row, slope_row};
use crate::gemm::{A_DEPTH, ByColumn, ByRow, Packed, Shifted, Target, packed_offset};
use crate::isa::{Isa, Level};
use crate::linear::{run, with_source};
use crate::math::{Row, for_rows, shared};
use crate::parallel::Shared;
use crate::scratch::Scratch;
use crate::shape::{ShapeError, check_len};
use crate::weight::{Dense, Q4, Q8, Weight};

/// Columns of a block: a multiple of every quantised block and of every block of a GEMM.
const BLOCK_COLUMNS: usize = 4096;

/// The weights of an MLP: `x [.., n_in]` to `h [.., inner]`, an activation, `[.., n_out]`.
#[derive(Clone, Copy, Debug)]
pub struct Mlp<'a> {
    /// `[inner, n_in]`.
    pub first: Weight<'a>,
    /// `[n_out, inner]`.
    pub second: Weight<'a>,
    /// What stands between them.
    pub activation: Activation,
    /// Width of the input.
    pub n_in: usize,
    /// Width of the hidden layer.
    pub inner: usize,
    /// Width of the output.
    pub n_out: usize,
}

impl Mlp<'_> {
    /// `y [rows, n_out] = residual + (activation(h) W^T + bias)` over `h [rows, inner]`, W the second weight.
    ///
    /// # Errors
    ///
    /// Where a slice does not have its shape's length.
    pub fn second_half(
        &self,
        h: &[f32],
        bias: Option<&[f32]>,
        residual: Option<&[f32]>,
        y: &mut [f32],
        rows: usize,
    ) -> Result<(), ShapeError> {
        self.check(h, rows)?;
        check_len("y", &[rows, self.n_out], y.len())?;
        if let Some(bias) = bias {
            check_len("bias", &[self.n_out], bias.len())?;
        }
        if let Some(residual) = residual {
            check_len("residual", &[rows, self.n_out], residual.len())?;
        }
        let whole = Target::new(y.as_mut_ptr(), self.n_out);
        for (from, depth) in self.blocks() {
            let mut packed = Packed::room(Level::current(), rows, depth);
            let activate =
                Activate { activation: self.activation, h: self.hidden_block(h, from, rows, depth, &mut packed) };
            // SAFETY: the block lies within h, whose length is checked, and the room is for as many rows.
            unsafe { for_rows(rows, depth, activate) };
            let (first, last) = (from == 0, from + depth == self.inner);
            let residual = residual.filter(|_| last).map_or(std::ptr::null(), <[f32]>::as_ptr);
            let to = Target { residual, add: !first, ..whole.with_bias(bias.filter(|_| first)) };
            with_source!(self.second, self.inner, source => {
                run(&packed, Shifted { columns: ByRow(source), k: from, n: 0 }, self.n_out, to);
            });
        }
        Ok(())
    }

    /// The gradient of the input of the whole MLP: `gx [rows, n_in] = (activation'(h) (gy W)) V`, V the first weight and
    /// W the second, of `gy [rows, n_out]`.
    ///
    /// # Errors
    ///
    /// Where a slice does not have its shape's length.
    pub fn input_grad(&self, h: &[f32], gy: &[f32], gx: &mut [f32], rows: usize) -> Result<(), ShapeError> {
        self.check(h, rows)?;
        check_len("gy", &[rows, self.n_out], gy.len())?;
        check_len("gx", &[rows, self.n_in], gx.len())?;
        let level = Level::current();
        let whole = Target::new(gx.as_mut_ptr(), self.n_in);
        let packed_gy = Packed::new(level, gy, rows, self.n_out);
        for (from, depth) in self.blocks() {
            let mut gh = Scratch::take(rows * depth);
            let to = Target::new(gh.as_mut_ptr(), depth);
            with_source!(self.second, self.inner, source => {
                run(&packed_gy, Shifted { columns: ByColumn(source), k: 0, n: from }, depth, to);
            });
            let mut packed = Packed::room(level, rows, depth);
            let slope = Slope {
                activation: self.activation,
                h: self.hidden_block(h, from, rows, depth, &mut packed),
                gh: Shared(gh.as_mut_ptr()),
            };
            // SAFETY: the block lies within h, whose length is checked, `gh` and the room are for as many rows.
            unsafe { for_rows(rows, depth, slope) };
            let to = Target { add: from > 0, ..whole };
            with_source!(self.first, self.n_in, source => {
                run(&packed, Shifted { columns: ByColumn(source), k: from, n: 0 }, self.n_in, to);
            });
        }
        Ok(())
    }

    fn check(&self, h: &[f32], rows: usize) -> Result<(), ShapeError> {
        for (what, found) in [("width of the hidden layer", self.inner), ("width of the output", self.n_out)] {
            if found == 0 {
                return Err(ShapeError::Size { what, found, allowed: "1 or above" });
            }
        }
        self.first.check(self.inner, self.n_in)?;
        self.second.check(self.n_out, self.inner)?;
        check_len("h", &[rows, self.inner], h.len())
    }

    /// First column and width of each block.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let inner = self.inner;
        (0..inner).step_by(BLOCK_COLUMNS).map(move |from| (from, BLOCK_COLUMNS.min(inner - from)))
    }

    fn hidden_block(&self, h: &[f32], from: usize, rows: usize, depth: usize, packed: &mut Packed) -> HiddenBlock {
        HiddenBlock {
            h: Shared(shared(h).get().wrapping_add(from)),
            stride: self.inner,
            rows,
            depth,
            packed: packed.start(),
        }
    }
}

/// A block of the hidden numbers, and the room in which it is packed.
#[derive(Clone, Copy)]
struct HiddenBlock {
    h: Shared<f32>,
    stride: usize,
    rows: usize,
    depth: usize,
    packed: Shared<f32>,
}

#[derive(Clone, Copy)]
struct Activate {
    activation: Activation,
    h: HiddenBlock,
}

impl Row for Activate {
    #[inline(always)]
    unsafe fn row<I: Isa>(self, row: usize) {
        let HiddenBlock { h, stride, rows, depth, packed } = self.h;
        for k in (0..depth).step_by(A_DEPTH) {
            // SAFETY: the maker's block and room.
            unsafe {
                let (from, to) = (h.get().add(row * stride + k), packed.get().add(packed_offset(k, row, rows)));
                apply_row::<I>(self.activation, from, to, A_DEPTH.min(depth - k));
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Slope {
    activation: Activation,
    h: HiddenBlock,
    gh: Shared<f32>,
}

impl Row for Slope {
    #[inline(always)]
    unsafe fn row<I: Isa>(self, row: usize) {
        let HiddenBlock { h, stride, rows, depth, packed } = self.h;
        for k in (0..depth).step_by(A_DEPTH) {
            // SAFETY: the maker's block and room.
            unsafe {
                let (x, gy) = (h.get().add(row * stride + k), self.gh.get().add(row * depth + k));
                let to = packed.get().add(packed_offset(k, row, rows));
                slope_row::<I>(self.activation, x, gy, to, A_DEPTH.min(depth - k));
            }
        }
    }
}
