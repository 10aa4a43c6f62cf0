//! What every decoder does around its blocks: checks, cache, hidden states, which positions get logits.
//!
//! A decoder gives its blocks, its last norm and its head; the order of things is here alone.

use crate::cache::KvCache;
use crate::decoder::{LogitPositions, Run, check_context, select_positions, wanted_rows};
use crate::frozen::take;
use crate::products::Products;
use crate::spec::DecoderSpec;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, MetalStorage, Result, Shape, Storage, Tensor, Var};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// One block of a decoder.
pub trait Layer: Send + Sync + 'static {
    /// Whether all matrix products of this block go through [`Run`]'s methods for one layer, several or an MLP
    /// ([`Run::products`], [`Run::last_product`], [`Run::mlp`] and those beside them), so that they can be kept for its
    /// gradient.
    const KEEPS_PRODUCTS: bool = false;

    /// x `[B, T, D]` f32 to `[B, T, D]` f32, as block number `index`; row b starts at position `past[b]`.
    ///
    /// With `rows` `[n]` u32, only these rows of the output, counted over B and T: `[n, D]`, as [`pick`](crate::pick) takes them. Keys
    /// and values are those of all positions; what follows attention may be left out elsewhere. The last block is asked
    /// for rows that get logits.
    ///
    /// # Errors
    /// What its operations report.
    fn forward(&self, index: usize, x: &Tensor, past: &[usize], run: &mut Run, rows: Option<&Tensor>)
    -> Result<Tensor>;
}

/// The L blocks of a decoder, with its sizes.
pub struct Layers<L> {
    spec: DecoderSpec,
    blocks: Vec<Arc<L>>,
}

impl<L: Layer> Layers<L> {
    /// The blocks of a decoder of these sizes.
    pub fn new(spec: DecoderSpec, blocks: Vec<L>) -> Self {
        Self { spec, blocks: blocks.into_iter().map(Arc::new).collect() }
    }

    /// The sizes.
    pub fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// Checks a run before anything is computed; the positions that each row has behind it.
    ///
    /// # Errors
    /// Embeddings that are not `[B, T, D]`, lengths or a cache for another batch, more positions than the context.
    pub fn start(&self, embeds: &Tensor, run: &Run) -> Result<Vec<usize>> {
        let (b, t, d) = embeds.dims3()?;
        if d != self.spec.width || t == 0 || b == 0 {
            candle_core::bail!("embeddings of shape {:?}, allowed is [B, T, {}]", embeds.dims(), self.spec.width)
        }
        run.row_lengths(b, t)?;
        let past = run.past(b)?;
        // Padding takes positions too, of keys that nobody sees: it must lie inside the tables.
        check_context(&past, &vec![t; b], self.spec.context)?;
        Ok(past)
    }

    /// x `[B, T, D]` (embeddings, positions added where a model adds them) through all blocks to what `run.logits`
    /// asks for. `norm` follows the last block, `head` gives logits; both take any number of leading dimensions.
    ///
    /// # Errors
    /// What the blocks, the norm or the head report.
    pub fn run(
        &self,
        x: &Tensor,
        past: &[usize],
        run: &mut Run,
        norm: impl Fn(&Tensor) -> Result<Tensor>,
        head: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let lengths = run.row_lengths(b, t)?;
        // Behind the last block, only rows that need logits count.
        let rows = wanted_rows(&run.logits, t, &lengths)?;
        let rows = rows.filter(|rows| rows.len() < b * t && !run.taps.want_hidden && !self.blocks.is_empty());
        let rows = rows.map(|rows| Tensor::new(rows, x.device())).transpose()?;
        let mut x = x.clone();
        // Whether nothing but the next block sees x.
        let mut own = false;
        for (index, block) in self.blocks.iter().enumerate() {
            if run.taps.want_hidden {
                run.taps.hidden.push(x.clone());
            }
            let rows = rows.as_ref().filter(|_| index + 1 == self.blocks.len());
            if run.recompute && x.track_op() && run.cache.is_none() && !run.taps.want_attention {
                x = recomputed(block, index, &x, own, past, run, rows)?;
                own = !run.taps.want_hidden;
            } else {
                x = block.forward(index, &x, past, run, rows)?;
                own = false;
            }
        }
        if let Some(cache) = run.cache_as::<KvCache>()? {
            cache.advance(&lengths)?;
        }
        if run.taps.want_hidden {
            let last = norm(&x)?;
            run.taps.hidden.push(last);
        }
        let x = if rows.is_some() { x } else { select_positions(&x, &run.logits, &lengths)? };
        let x = norm(&x)?;
        if run.logits == LogitPositions::Hidden { Ok(x) } else { head(&x) }
    }
}

/// A block whose graph is one node: its activations are computed again when the gradient comes, under
/// `run.keep_products` all but the matrix products. `own` says that nothing else sees x.
fn recomputed<L: Layer>(
    block: &Arc<L>,
    index: usize,
    x: &Tensor,
    own: bool,
    past: &[usize],
    run: &mut Run,
    rows: Option<&Tensor>,
) -> Result<Tensor> {
    if run.keep_products && L::KEEPS_PRODUCTS && x.device().is_cpu() {
        run.products = Products::Kept(Vec::new());
    }
    let y = block.forward(index, &x.detach(), past, run, rows)?.detach();
    let kept = match std::mem::take(&mut run.products) {
        Products::Kept(kept) => kept.into(),
        _ => VecDeque::new(),
    };
    let op = Recompute {
        block: block.clone(),
        index,
        own: own && x.device().is_cpu(),
        past: past.to_vec(),
        lengths: run.lengths.clone(),
        mask: run.mask.clone(),
        rows: rows.cloned(),
        kept: Mutex::new(kept),
        y: Mutex::new(Some(y)),
    };
    x.contiguous()?.apply_op1(op)
}

/// x to block(x), which is known; the gradient of x comes from a second run of the block.
struct Recompute<L> {
    block: Arc<L>,
    index: usize,
    /// Whether the gradient may use up x.
    own: bool,
    past: Vec<usize>,
    lengths: Option<Vec<usize>>,
    mask: Option<Tensor>,
    rows: Option<Tensor>,
    /// Products of the first run, which the second run takes, so that their memory is free once it is over.
    kept: Mutex<VecDeque<Tensor>>,
    /// The block's output, until the operation has given it.
    y: Mutex<Option<Tensor>>,
}

impl<L> Recompute<L> {
    fn output(&self) -> Result<Tensor> {
        let y = self.y.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?.take();
        y.ok_or_else(|| candle_core::Error::msg(format!("block {} gives its output once", self.index)))
    }
}

impl<L: Layer> CustomOp1 for Recompute<L> {
    fn name(&self) -> &'static str {
        "recomputed-block"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = self.output()?;
        Ok((CpuStorage::F32(y.flatten_all()?.to_vec1()?), y.shape().clone()))
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        let y = self.output()?.force_contiguous()?;
        match &*y.storage_and_layout().0 {
            Storage::Cuda(storage) => Ok((storage.try_clone(y.layout())?, y.shape().clone())),
            _ => candle_core::bail!("block {} gave its output on another device than its input's", self.index),
        }
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        let y = self.output()?.force_contiguous()?;
        match &*y.storage_and_layout().0 {
            Storage::Metal(storage) => Ok((storage.try_clone(y.layout())?, y.shape().clone())),
            _ => candle_core::bail!("block {} gave its output on another device than its input's", self.index),
        }
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let x = if self.own { Var::from_vec(take(x)?, x.shape(), x.device())? } else { Var::from_tensor(&x.detach())? };
        let kept = self.kept.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?.split_off(0);
        let products = Products::Again(kept);
        let mut run = Run { lengths: self.lengths.clone(), mask: self.mask.clone(), products, ..Run::new() };
        let y = self.block.forward(self.index, x.as_tensor(), &self.past, &mut run, self.rows.as_ref())?;
        let mut grads = seeded(&y, grad)?.backward()?;
        match grads.remove(x.as_tensor()) {
            Some(gradient) => Ok(Some(gradient)),
            None => candle_core::bail!("block {} lets no gradient through", self.index),
        }
    }
}

/// y to a scalar whose gradient for y is `grad`: where a backward pass begins in the middle of a graph.
pub(crate) fn seeded(y: &Tensor, grad: &Tensor) -> Result<Tensor> {
    if !y.device().is_cpu() {
        return (y * grad.detach())?.sum_all();
    }
    y.apply_op1(Seed(grad.detach()))
}

struct Seed(Tensor);

impl CustomOp1 for Seed {
    fn name(&self) -> &'static str {
        "seed"
    }

    fn cpu_fwd(&self, _: &CpuStorage, y: &Layout) -> Result<(CpuStorage, Shape)> {
        if y.shape() != self.0.shape() {
            candle_core::bail!("a gradient of shape {:?} for an output of {:?}", self.0.shape(), y.shape())
        }
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, _grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
