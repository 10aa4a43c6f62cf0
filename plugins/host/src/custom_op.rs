//! A custom autograd op: a result that a plugin computed, put into candle's graph; its gradient comes from the plugin.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};
use std::sync::{Mutex, PoisonError};

/// Gives the gradients of the inputs from that of the output.
pub(crate) trait Backward: Send + Sync + 'static {
    /// What messages call the operation.
    const NAME: &'static str;

    /// One gradient an input, None where it needs none; all f32 and contiguous on the CPU.
    fn backward(&self, inputs: &[&Tensor], gradient: &Tensor) -> Result<Vec<Option<Tensor>>>;
}

/// The output, handed over once, and where its gradient comes from.
struct PluginOp<B> {
    output: Mutex<Option<(Vec<f32>, Shape)>>,
    backward: B,
}

impl<B: Backward> PluginOp<B> {
    fn take(&self) -> Result<(CpuStorage, Shape)> {
        match self.output.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some((values, shape)) => Ok((CpuStorage::F32(values), shape)),
            None => candle_core::bail!("{}: an output is put into a graph once", B::NAME),
        }
    }
}

impl<B: Backward> CustomOp1 for PluginOp<B> {
    fn name(&self) -> &'static str {
        B::NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.backward.backward(&[x], &gradient.contiguous()?)?.pop().flatten())
    }
}

impl<B: Backward> CustomOp2 for PluginOp<B> {
    fn name(&self) -> &'static str {
        B::NAME
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.take()
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut gradients = self.backward.backward(&[x, y], &gradient.contiguous()?)?.into_iter();
        Ok((gradients.next().flatten(), gradients.next().flatten()))
    }
}

/// `output` as a function of `x`.
pub(crate) fn custom_op1<B: Backward>(x: &Tensor, output: (Vec<f32>, Shape), backward: B) -> Result<Tensor> {
    x.apply_op1(PluginOp { output: Mutex::new(Some(output)), backward })
}

/// `output` as a function of `x` and `y`.
pub(crate) fn custom_op2<B: Backward>(
    x: &Tensor,
    y: &Tensor,
    output: (Vec<f32>, Shape),
    backward: B,
) -> Result<Tensor> {
    x.apply_op2(y, PluginOp { output: Mutex::new(Some(output)), backward })
}
