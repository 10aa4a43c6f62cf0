//! What the input gradients of layer norm and RMS norm have in common: their rows, and the gradient of the normed numbers.

use crate::isa::Isa;
use crate::math::shared;
use crate::parallel::Shared;
use crate::shape::{ShapeError, check_len};

/// `x`, `gy` and `gx` `[rows, d]` of a norm with `weight` `[d]`.
#[derive(Clone, Copy)]
pub(crate) struct NormGradient {
    x: Shared<f32>,
    weight: Shared<f32>,
    gy: Shared<f32>,
    gx: Shared<f32>,
    pub eps: f32,
    pub d: usize,
}

impl NormGradient {
    /// The rows of slices whose lengths are checked.
    pub fn new(
        [x, weight, gy]: [&[f32]; 3],
        gx: &mut [f32],
        eps: f32,
        rows: usize,
        d: usize,
    ) -> Result<Self, ShapeError> {
        check_len("x", &[rows, d], x.len())?;
        check_len("weight", &[d], weight.len())?;
        check_len("gy", &[rows, d], gy.len())?;
        check_len("gx", &[rows, d], gx.len())?;
        let (x, weight, gy, gx) = (shared(x), shared(weight), shared(gy), Shared(gx.as_mut_ptr()));
        Ok(Self { x, weight, gy, gx, eps, d })
    }

    /// x and gx of a row, gx holding the gradient g = gy weight of the normed numbers, to be finished there.
    ///
    /// # Safety
    ///
    /// The row is one of those that were checked, and no other thread has it.
    #[inline(always)]
    pub unsafe fn row<I: Isa>(self, row: usize) -> (*const f32, *mut f32) {
        let d = self.d;
        // SAFETY: the lengths were checked when the rows were made.
        unsafe {
            let (x, gy, gx) = (self.x.get().add(row * d), self.gy.get().add(row * d), self.gx.get().add(row * d));
            let weight = self.weight.get();
            let mut i = 0;
            while i + I::LANES <= d {
                I::store(gx.add(i), I::mul(I::load(gy.add(i)), I::load(weight.add(i))));
                i += I::LANES;
            }
            for i in i..d {
                *gx.add(i) = *gy.add(i) * *weight.add(i);
            }
            (x, gx)
        }
    }
}
