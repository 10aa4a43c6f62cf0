//! What one of the kernels computes as a node of candle's graph: values and the gradient of its input, on the CPU.

use crate::frozen::contiguous_f32;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

/// A function of one f32 tensor, with the gradient of its input.
pub(crate) trait Kernel: Clone + Send + Sync + 'static {
    /// What messages call it.
    const NAME: &'static str;
    /// What messages call its gradient.
    const GRADIENT: &'static str;
    /// Whether the gradient is computed from what the function gives, not from what it takes.
    const OF_OUTPUT: bool = false;

    /// The elements of y = f(x), x of `shape`.
    fn forward(&self, x: &[f32], shape: &Shape) -> Result<Vec<f32>>;

    /// The gradient of x from x (or y, as [`Self::OF_OUTPUT`] says) of `shape` and the gradient of y.
    fn input_gradient(&self, x: &[f32], shape: &Shape, gy: &[f32]) -> Result<Vec<f32>>;

    /// The shape of y.
    fn output(&self, shape: &Shape) -> Result<Shape> {
        Ok(shape.clone())
    }

    /// Whether nothing reads the value, which is left at zeros.
    fn backward_only(&self) -> bool {
        false
    }
}

/// f(x).
pub(crate) fn apply<K: Kernel>(x: &Tensor, kernel: K) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Node(kernel))
}

/// The length of the last dimension, over which norms and softmax go.
pub(crate) fn width(shape: &Shape) -> usize {
    shape.dims().last().copied().unwrap_or(1).max(1)
}

struct Node<K>(K);

impl<K: Kernel> CustomOp1 for Node<K> {
    fn name(&self) -> &'static str {
        K::NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let shape = self.0.output(layout.shape())?;
        if self.0.backward_only() {
            return Ok((CpuStorage::F32(vec![0f32; shape.elem_count()]), shape));
        }
        let x = contiguous_f32(K::NAME, storage, layout)?;
        Ok((CpuStorage::F32(self.0.forward(x, layout.shape())?), shape))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let known = if K::OF_OUTPUT { y } else { x };
        Ok(Some(known.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &Gradient(self.0.clone()))?))
    }
}

struct Gradient<K>(K);

impl<K: Kernel> CustomOp2 for Gradient<K> {
    fn name(&self) -> &'static str {
        K::GRADIENT
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, gy) = (contiguous_f32(K::GRADIENT, s1, l1)?, contiguous_f32(K::GRADIENT, s2, l2)?);
        Ok((CpuStorage::F32(self.0.input_gradient(x, l1.shape(), gy)?), l1.shape().clone()))
    }
}

/// `f` of the elements and the shape of x, without a graph: elements and shape.
pub(crate) fn apply_detached<F>(x: &Tensor, name: &'static str, f: F) -> Result<Tensor>
where
    F: Fn(&[f32], &Shape) -> Result<(Vec<f32>, Shape)> + Send + Sync,
{
    x.contiguous()?.apply_op1_no_bwd(&Detached { name, f })
}

struct Detached<F> {
    name: &'static str,
    f: F,
}

impl<F: Fn(&[f32], &Shape) -> Result<(Vec<f32>, Shape)> + Send + Sync> CustomOp1 for Detached<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (y, shape) = (self.f)(contiguous_f32(self.name, storage, layout)?, layout.shape())?;
        Ok((CpuStorage::F32(y), shape))
    }
}
