//! Nodes of candle's graph whose values are computed outside of it.
//!
//! candle gives every operand of a tracked operation a gradient, a frozen one too. A node made here has one differentiable
//! input; whatever else it was computed from is out of the graph's sight, so a backward pass keeps no gradient of it.

use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp3, Layout, MetalStorage, Result, Shape, Storage, Tensor, Var,
};
use std::sync::Mutex;

/// A value that waits for the node that stands for it, which takes it once.
pub(crate) struct Value {
    what: &'static str,
    tensor: Mutex<Option<Tensor>>,
}

impl Value {
    /// The value of a node that messages call `what`.
    pub fn new(what: &'static str, tensor: Tensor) -> Self {
        Self { what, tensor: Mutex::new(Some(tensor)) }
    }

    fn take(&self) -> Result<Tensor> {
        let tensor = self.tensor.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?.take();
        tensor.ok_or_else(|| candle_core::Error::msg(format!("{} gives its value once", self.what)))
    }

    fn elsewhere<T>(&self) -> Result<T> {
        candle_core::bail!("{} has its value on another device than its input", self.what)
    }

    /// The value of a node on the CPU.
    pub fn cpu(&self) -> Result<(CpuStorage, Shape)> {
        let y = self.take()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cpu(storage) => Ok((copied(storage, layout)?, y.shape().clone())),
            _ => self.elsewhere(),
        }
    }

    /// The value of a node on a CUDA device.
    pub fn cuda(&self) -> Result<(CudaStorage, Shape)> {
        let y = self.take()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Cuda(storage) => Ok((copied(storage, layout)?, y.shape().clone())),
            _ => self.elsewhere(),
        }
    }

    /// The value of a node on a Metal device.
    pub fn metal(&self) -> Result<(MetalStorage, Shape)> {
        let y = self.take()?;
        let (storage, layout) = y.storage_and_layout();
        match &*storage {
            Storage::Metal(storage) => Ok((copied(storage, layout)?, y.shape().clone())),
            _ => self.elsewhere(),
        }
    }
}

/// The elements of a layout alone, row-major, whatever else the storage holds: one copy, of any type, on any device.
/// (`try_clone` copies all of a storage on most devices, and leaves the layout to its caller.)
fn copied<S>(storage: &S, layout: &Layout) -> Result<S>
where
    S: BackendStorage,
    S::Device: BackendDevice<Storage = S>,
{
    let mut copy = storage.device().zeros_impl(layout.shape(), storage.dtype())?;
    storage.copy_strided_src(&mut copy, 0, layout)?;
    Ok(copy)
}

/// A node of value `y` whose input is x; `backward` gives the gradient of x from that of y.
pub(crate) fn node<B>(what: &'static str, x: &Tensor, y: Tensor, backward: B) -> Result<Tensor>
where
    B: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    if !x.track_op() {
        return Ok(y);
    }
    x.apply_op1(Node { value: Value::new(what, y.detach()), backward: move |_: &Tensor, grad: &Tensor| backward(grad) })
}

/// f(x) as one node, whose backward pass runs f again: nothing but x is kept. f consists of candle's operations.
pub(crate) fn recomputed<F>(what: &'static str, x: &Tensor, f: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    let y = f(&x.detach())?;
    if !x.track_op() {
        return Ok(y);
    }
    let backward = move |x: &Tensor, grad: &Tensor| {
        let x = Var::from_tensor(&x.detach())?;
        let mut grads = seeded(&f(x.as_tensor())?, grad)?.backward()?;
        grads.remove(x.as_tensor()).ok_or_else(|| candle_core::Error::msg(format!("{what} lets no gradient through")))
    };
    x.apply_op1(Node { value: Value::new(what, y), backward })
}

/// [`recomputed`] of three inputs.
pub(crate) fn recomputed3<F>(what: &'static str, [a, b, c]: [&Tensor; 3], f: F) -> Result<Tensor>
where
    F: Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    let y = f(&a.detach(), &b.detach(), &c.detach())?;
    if ![a, b, c].iter().any(|x| x.track_op()) {
        return Ok(y);
    }
    a.apply_op3(b, c, Node3 { value: Value::new(what, y), f })
}

struct Node<B> {
    value: Value,
    backward: B,
}

impl<B: Fn(&Tensor, &Tensor) -> Result<Tensor> + Send + Sync> CustomOp1 for Node<B> {
    fn name(&self) -> &'static str {
        self.value.what
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.value.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.value.cuda()
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        self.value.metal()
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some((self.backward)(x, grad)?))
    }
}

struct Node3<F> {
    value: Value,
    f: F,
}

impl<F: Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor> + Send + Sync> CustomOp3 for Node3<F> {
    fn name(&self) -> &'static str {
        self.value.what
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.value.cpu()
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.value.cuda()
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        self.value.metal()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let var = |x: &Tensor| Var::from_tensor(&x.detach());
        let (a, b, c) = (var(a)?, var(b)?, var(c)?);
        let mut grads = seeded(&(self.f)(a.as_tensor(), b.as_tensor(), c.as_tensor())?, grad)?.backward()?;
        Ok((grads.remove(a.as_tensor()), grads.remove(b.as_tensor()), grads.remove(c.as_tensor())))
    }
}

/// y to a scalar whose gradient for y is `grad`: where a backward pass begins in the middle of a graph.
pub(crate) fn seeded(y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    if y.shape() != grad.shape() {
        candle_core::bail!("a gradient of shape {:?} for an output of {:?}", grad.shape(), y.shape())
    }
    let zero = Tensor::zeros((), y.dtype(), y.device())?;
    let grad = grad.detach();
    node("seed", y, zero, move |_| Ok(grad.clone()))
}

/// x + c, where c is frozen and of a shape that broadcasts to that of x: the gradient of x alone.
pub(crate) fn add_frozen(x: &Tensor, c: &Tensor) -> Result<Tensor> {
    node("add-frozen", x, x.detach().broadcast_add(c)?, |grad| Ok(grad.clone()))
}

/// x c, where c is frozen and of a shape that broadcasts to that of x: the gradient of x alone.
pub(crate) fn times_frozen(x: &Tensor, c: &Tensor) -> Result<Tensor> {
    let c = c.detach();
    node("times-frozen", x, x.detach().broadcast_mul(&c)?, move |grad| grad.broadcast_mul(&c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    #[test]
    fn the_value_of_a_node_is_what_its_layout_says_in_every_type() {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64, DType::U32] {
            let all = Tensor::arange(0u32, 24, &Device::Cpu).unwrap().reshape((2, 3, 4)).unwrap();
            let all = all.to_dtype(dtype).unwrap();
            let views = [all.clone(), all.narrow(0, 1, 1).unwrap(), all.narrow(2, 1, 2).unwrap(), all.t().unwrap()];
            for view in views {
                let expected = view.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                let (storage, shape) = Value::new("a view", view).cpu().unwrap();
                let found =
                    Tensor::from_storage(Storage::Cpu(storage), shape, candle_core::op::BackpropOp::none(), false);
                let found = found.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(found, expected, "{dtype:?}");
            }
        }
    }

    #[test]
    fn a_value_is_given_once() {
        let value = Value::new("a norm", Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap());
        value.cpu().unwrap();
        assert!(value.cpu().unwrap_err().to_string().starts_with("a norm gives its value once"));
    }
}
