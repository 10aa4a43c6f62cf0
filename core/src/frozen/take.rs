//! Elements moved out of a tensor, where nothing else reads them any more.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Tensor};
use std::cell::RefCell;

/// The elements of a contiguous f32 tensor on the CPU, row-major. x and all that share its storage are left without
/// elements, so they must not be reachable from outside this crate; of a tensor that is a view of part of a storage,
/// elements are copied.
///
/// # Errors
/// A tensor of another kind, or one whose elements were taken already.
pub(crate) fn take(x: &Tensor) -> Result<Vec<f32>> {
    let taken = Take(RefCell::new(Vec::new()));
    x.inplace_op1(&taken)?;
    Ok(taken.0.into_inner())
}

struct Take(RefCell<Vec<f32>>);

impl InplaceOp1 for Take {
    fn name(&self) -> &'static str {
        "take"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(elements), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("{} takes contiguous f32 tensors, got {layout:?}", self.name())
        };
        let is_whole = (start, end) == (0, elements.len());
        let part = || elements.get(start..end).map(<[f32]>::to_vec);
        match (is_whole, if is_whole { None } else { part() }) {
            (true, _) => self.0.replace(std::mem::take(elements)),
            (false, Some(part)) => self.0.replace(part),
            (false, None) => {
                candle_core::bail!("the elements of a tensor of {layout:?} are gone after their one gradient")
            }
        };
        Ok(())
    }
}
