//! Activation checkpointing: a block whose graph is one node, and whose activations are computed again when its gradient
//! comes.

use crate::backend::Backend;
use crate::decoder::{Checkpointing, Run};
use crate::decoder_block::pass::Pass;
use crate::frozen::take;
use crate::graph::{Value, seeded};
use crate::layers::{At, Stage};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Result, Shape, Tensor, Var};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// block(x) as one node. `own` says that nothing else sees x, so that its backward pass may use x's memory.
pub(crate) fn checkpointed<S: Stage>(block: &Arc<S>, x: &Tensor, own: bool, at: At, run: &mut Run) -> Result<Tensor> {
    let selective = S::IS_OURS && run.checkpointing == Checkpointing::Selective;
    let mut pass = if selective { Pass::Save(Vec::new()) } else { Pass::Forward };
    let y = block.forward(&x.detach(), at, run, &mut pass)?.detach();
    let saved = match pass {
        Pass::Save(saved) => Some(saved.into()),
        _ => None,
    };
    let op = Checkpoint {
        block: block.clone(),
        index: at.index,
        own: own && block.backend().is_some_and(Backend::is_kernels),
        past: at.past.to_vec(),
        lengths: run.lengths.clone(),
        mask: run.mask.clone(),
        rows: at.rows.cloned(),
        kept: Mutex::new(Some(Kept { saved })),
        value: Value::new("a checkpointed block", y),
    };
    x.contiguous()?.apply_op1(op)
}

/// x to block(x), which is known; the gradient of x comes from a second pass through the block.
struct Checkpoint<S> {
    block: Arc<S>,
    index: usize,
    /// Whether the backward pass may use up x.
    own: bool,
    past: Vec<usize>,
    lengths: Option<Vec<usize>>,
    mask: Option<Tensor>,
    rows: Option<Tensor>,
    /// Until the one backward pass has taken it, so that its memory is free once that is over.
    kept: Mutex<Option<Kept>>,
    value: Value,
}

/// What the forward pass kept: its products where the checkpointing is selective.
struct Kept {
    saved: Option<VecDeque<Tensor>>,
}

impl<S: Stage> CustomOp1 for Checkpoint<S> {
    fn name(&self) -> &'static str {
        "checkpointed-block"
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
        let kept = self.kept.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?.take();
        let Some(Kept { saved }) = kept else {
            candle_core::bail!(
                "block {} is checkpointed, its activations are gone after their one gradient",
                self.index
            )
        };
        let x = if self.own { Var::from_vec(take(x)?, x.shape(), x.device())? } else { Var::from_tensor(&x.detach())? };
        let mut pass = saved.map_or(Pass::Full, Pass::Selective);
        let mut run = Run { lengths: self.lengths.clone(), mask: self.mask.clone(), ..Run::new() };
        let at = At { index: self.index, past: &self.past, rows: self.rows.as_ref() };
        let y = self.block.forward(x.as_tensor(), at, &mut run, &mut pass)?;
        let mut grads = seeded(&y, grad)?.backward()?;
        match grads.remove(x.as_tensor()) {
            Some(gradient) => Ok(Some(gradient)),
            None => candle_core::bail!("block {} lets no gradient through", self.index),
        }
    }
}
