//! The nodes of frozen linear layers in candle's graph: a value that is known, and gx = gy W as the backward pass.
//!
//! A backward-only node is a node whose value is never read: it has zeros, of memory that is never touched.

use crate::backend::Backend;
use crate::weights::FrozenData;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Storage, Tensor};
use std::sync::Mutex;

/// x to y, which several layers have been given in one pass: the operation hands it over and has its backward pass.
pub(super) struct LinearNode {
    pub weight: FrozenData,
    /// None: a backward-only node.
    pub y: Mutex<Option<Vec<f32>>>,
    pub n_in: usize,
    pub n_out: usize,
}

impl CustomOp1 for LinearNode {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = last_replaced(layout, self.n_out);
        let y = self.y.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?.take();
        let y = y.unwrap_or_else(|| vec![0f32; shape.elem_count()]);
        if y.len() != shape.elem_count() {
            candle_core::bail!("{} outputs computed for {:?}", y.len(), shape)
        }
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let op = InputGradient { weight: self.weight.clone(), n_in: self.n_in, n_out: self.n_out };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&op)?))
    }
}

/// gx = gy W.
struct InputGradient {
    weight: FrozenData,
    n_in: usize,
    n_out: usize,
}

impl CustomOp1 for InputGradient {
    fn name(&self) -> &'static str {
        "frozen-linear-input-gradient"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let gy = contiguous_f32(self.name(), storage, layout)?;
        let shape = last_replaced(layout, self.n_in);
        let mut gx = vec![0f32; shape.elem_count()];
        let rows = gy.len() / self.n_out.max(1);
        limber_kernels::linear_input_grad(gy, self.weight.kernel_weight(), &mut gx, rows, self.n_in, self.n_out)
            .map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(gx), shape))
    }
}

/// `x [.., n_in] W^T` of a tensor W `[n_out, n_in]`, and no graph. The weight's type computes, on the CPU f32 alone.
pub(super) fn candle_product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    product(x, weight, true)
}

/// `gy [.., n_out] W` of a tensor W `[n_out, n_in]`, as [`candle_product`].
pub(super) fn candle_input_gradient(gy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    product(gy, weight, false)
}

fn product(x: &Tensor, weight: &Tensor, transposed: bool) -> Result<Tensor> {
    let weight = if weight.device().is_cpu() { weight.to_dtype(DType::F32)? } else { weight.clone() };
    let (n_out, n_in) = weight.dims2()?;
    let (from, to) = if transposed { (n_in, n_out) } else { (n_out, n_in) };
    let weight = if transposed { weight.t()? } else { weight };
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = to;
    }
    let flat = x.detach().reshape((x.elem_count() / from.max(1), from))?.to_dtype(weight.dtype())?;
    flat.matmul(&weight)?.to_dtype(DType::F32)?.reshape(dims)
}

/// `a + b` of one shape as a backward-only node of the kernels: nothing reads the sum's value. Among candle's operations it
/// has one.
pub(crate) fn backward_only_sum(backend: Backend, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    struct Sum;
    impl CustomOp2 for Sum {
        fn name(&self) -> &'static str {
            "backward-only-sum"
        }

        fn cpu_fwd(&self, _: &CpuStorage, a: &Layout, _: &CpuStorage, b: &Layout) -> Result<(CpuStorage, Shape)> {
            if a.shape() != b.shape() {
                candle_core::bail!("an output of shape {:?} to be added to {:?}", b.shape(), a.shape())
            }
            Ok((CpuStorage::F32(vec![0f32; a.shape().elem_count()]), a.shape().clone()))
        }

        fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
            Ok((Some(grad.clone()), Some(grad.clone())))
        }
    }
    if backend.is_kernels() { a.apply_op2(b, Sum) } else { a + b }
}

/// The elements of a contiguous f32 tensor.
pub(crate) fn contiguous_f32<'a>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        candle_core::bail!("{op} takes contiguous f32 tensors, got {:?} {:?}", storage.dtype_name(), layout.shape())
    };
    match data.get(start..end) {
        Some(elements) => Ok(elements),
        None => candle_core::bail!("{op} takes the elements of {:?}, whose memory was given away", layout.shape()),
    }
}

/// The elements of a contiguous f32 tensor on the CPU that is held for reading.
pub(crate) fn cpu_f32<'a>(op: &'static str, storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => contiguous_f32(op, storage, layout),
        _ => candle_core::bail!("{op}: a tensor on another device than the weights, which are on the cpu"),
    }
}

/// The storage's type, for messages.
trait DtypeName {
    fn dtype_name(&self) -> &'static str;
}

impl DtypeName for CpuStorage {
    fn dtype_name(&self) -> &'static str {
        use candle_core::backend::BackendStorage;
        self.dtype().as_str()
    }
}

/// The shape of `layout` with another last dimension.
fn last_replaced(layout: &Layout, width: usize) -> Shape {
    let mut dims = layout.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    Shape::from(dims)
}
