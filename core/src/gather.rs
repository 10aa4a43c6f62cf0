//! Rows of hidden states by index, with a backward pass on every device.

use crate::backend::Backend;
use crate::frozen::contiguous_f32;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

/// Rows `rows` `[n]` u32 of x `[.., W]`, counted over all leading dimensions: `[n, W]`; all of x without a list.
///
/// # Errors
/// A row that x does not have.
pub fn gather(x: &Tensor, rows: Option<&Tensor>) -> Result<Tensor> {
    gather_on(Backend::of(x.device()), x, rows)
}

/// [`gather`] by a backend.
pub(crate) fn gather_on(backend: Backend, x: &Tensor, rows: Option<&Tensor>) -> Result<Tensor> {
    let Some(rows) = rows else { return Ok(x.clone()) };
    let width = x.dim(candle_core::D::Minus1)?;
    let x = x.reshape((x.elem_count() / width.max(1), width))?;
    if !backend.is_kernels() {
        return x.contiguous()?.index_select(rows, 0);
    }
    let (rows, count) = (rows.to_vec1::<u32>()?, x.dim(0)?);
    if let Some(bad) = rows.iter().find(|row| **row as usize >= count) {
        candle_core::bail!("row {bad} is not in 0..{count}")
    }
    x.contiguous()?.apply_op1(Gather(rows))
}

struct Gather(Vec<u32>);

impl CustomOp1 for Gather {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let shape = Shape::from((self.0.len(), width));
        let x = contiguous_f32(self.name(), storage, layout)?;
        let mut y = Vec::with_capacity(shape.elem_count());
        self.0.iter().for_each(|row| y.extend_from_slice(&x[*row as usize * width..][..width]));
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, width) = x.dims2()?;
        let grad = grad.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
        let mut gx = vec![0f32; x.elem_count()];
        for (row, grad) in self.0.iter().zip(grad.chunks_exact(width.max(1))) {
            for (sum, g) in gx[*row as usize * width..].iter_mut().zip(grad) {
                *sum += g;
            }
        }
        Ok(Some(Tensor::from_vec(gx, x.shape(), x.device())?))
    }
}
