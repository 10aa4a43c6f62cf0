//! What every decoder does around its blocks: checks, cache, hidden states, activation checkpointing, which positions get
//! logits.
//!
//! A decoder gives its blocks, its last norm and its head; the order of things is here alone.

use crate::backend::Backend;
use crate::cache::KvCache;
use crate::checkpoint::checkpointed;
use crate::decoder::{Checkpointing, LogitPositions, Run, check_context, select_positions, wanted_rows};
use crate::decoder_block::pass::Pass;
use crate::spec::DecoderSpec;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// One block of a decoder that is no plan: of a build of its own, or a [`DecoderBlock`](crate::DecoderBlock) among such.
pub trait Layer: Send + Sync + 'static {
    /// x `[B, T, D]` f32 to `[B, T, D]` f32, as block number `index`; sequence b starts at position `past[b]`.
    ///
    /// With `rows` `[n]` u32, only these rows of the output, counted over B and T: `[n, D]`, as [`gather`](crate::gather())
    /// takes them. Keys and values are those of all positions; what follows attention may be left out elsewhere. The last
    /// block is asked for rows that get logits.
    ///
    /// # Errors
    /// What its operations report.
    fn forward(&self, index: usize, x: &Tensor, past: &[usize], run: &mut Run, rows: Option<&Tensor>)
    -> Result<Tensor>;
}

/// The L blocks of a decoder, with its sizes.
pub struct Layers<L> {
    blocks: Blocks<Outside<L>>,
}

impl<L: Layer> Layers<L> {
    /// The blocks of a decoder of these sizes.
    pub fn new(spec: DecoderSpec, blocks: Vec<L>) -> Self {
        Self { blocks: Blocks::new(spec, blocks.into_iter().map(Outside).collect()) }
    }

    /// The sizes.
    pub fn spec(&self) -> &DecoderSpec {
        self.blocks.spec()
    }

    /// Checks a run before anything is computed; the positions that each sequence has behind it.
    ///
    /// # Errors
    /// Embeddings that are not `[B, T, D]`, lengths or a cache for another batch, more positions than the context.
    pub fn start(&self, embeds: &Tensor, run: &Run) -> Result<Vec<usize>> {
        self.blocks.start(embeds, run)
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
        self.blocks.run(x, past, run, norm, head)
    }
}

/// Where a block stands in a run.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    /// The number of the block.
    pub index: usize,
    /// Earlier positions of each sequence.
    pub past: &'a [usize],
    /// The rows of the output that are wanted.
    pub rows: Option<&'a Tensor>,
}

/// A block as the executor runs it.
pub(crate) trait Stage: Send + Sync + 'static {
    /// Whether the block can save its products, and keeps hold of no tensor that it is given or gives, so that the memory of
    /// these may be used again.
    const IS_OURS: bool;

    /// What computes the block, where that is known.
    fn backend(&self) -> Option<Backend>;

    /// x `[B, T, D]` f32 to `[B, T, D]` f32, or to the rows wanted of it.
    fn forward(&self, x: &Tensor, at: At, run: &mut Run, pass: &mut Pass) -> Result<Tensor>;
}

/// A block from outside, which knows nothing of passes.
struct Outside<L>(L);

impl<L: Layer> Stage for Outside<L> {
    const IS_OURS: bool = false;

    fn backend(&self) -> Option<Backend> {
        None
    }

    fn forward(&self, x: &Tensor, at: At, run: &mut Run, _: &mut Pass) -> Result<Tensor> {
        self.0.forward(at.index, x, at.past, run, at.rows)
    }
}

/// The executor: blocks of one kind, with the sizes of their decoder.
pub(crate) struct Blocks<S> {
    spec: DecoderSpec,
    blocks: Vec<Arc<S>>,
}

impl<S: Stage> Blocks<S> {
    pub fn new(spec: DecoderSpec, blocks: Vec<S>) -> Self {
        Self { spec, blocks: blocks.into_iter().map(Arc::new).collect() }
    }

    pub fn spec(&self) -> &DecoderSpec {
        &self.spec
    }

    /// As [`Layers::start`].
    pub fn start(&self, embeds: &Tensor, run: &Run) -> Result<Vec<usize>> {
        let (b, t, d) = embeds.dims3()?;
        if d != self.spec.width || t == 0 || b == 0 {
            candle_core::bail!("embeddings of shape {:?}, expected [B, T, {}]", embeds.dims(), self.spec.width)
        }
        run.sequence_lengths(b, t)?;
        let past = run.past(b)?;
        // Padding takes positions too, of keys that nobody sees: it must lie inside the tables.
        check_context(&past, &vec![t; b], self.spec.context)?;
        Ok(past)
    }

    /// As [`Layers::run`].
    pub fn run(
        &self,
        x: &Tensor,
        past: &[usize],
        run: &mut Run,
        norm: impl Fn(&Tensor) -> Result<Tensor>,
        head: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (b, t, _) = x.dims3()?;
        let lengths = run.sequence_lengths(b, t)?;
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
            let at = At { index, past, rows };
            let keeps_all = run.checkpointing == Checkpointing::None;
            if keeps_all || !x.track_op() || run.cache.is_some() || run.taps.want_attention {
                x = block.forward(&x, at, run, &mut Pass::Forward)?;
                own = false;
            } else {
                x = checkpointed(block, &x, own, at, run)?;
                own = S::IS_OURS && !run.taps.want_hidden;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frozen::FrozenLinear;
    use crate::noise::{largest, random};
    use crate::weights::FrozenData;
    use candle_core::{Device, Var};
    use std::sync::Mutex;

    /// A block that keeps hold of what it was given.
    struct Square {
        layer: FrozenLinear,
        seen: Arc<Mutex<Vec<Tensor>>>,
    }

    impl Layer for Square {
        fn forward(&self, _: usize, x: &Tensor, _: &[usize], _: &mut Run, rows: Option<&Tensor>) -> Result<Tensor> {
            self.seen.lock().unwrap().push(x.clone());
            crate::gather(&(x + self.layer.forward(&x.sqr()?)?)?, rows)
        }
    }

    #[test]
    fn checkpointed_blocks_from_outside_find_every_tensor_whole() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let block = |seed: u64| {
            let w = random(&[4, 4], seed).flatten_all().unwrap().to_vec1().unwrap();
            let layer = FrozenLinear::new(FrozenData::from_f32(w, &[4, 4]), None, &Device::Cpu).unwrap();
            Square { layer, seen: seen.clone() }
        };
        let spec = DecoderSpec { width: 4, vocab: 4, layers: 3, kv_heads: 1, head_dim: 4, context: 8, eos: vec![] };
        let layers = Layers::new(spec, vec![block(1), block(2), block(3)]);
        let start = (random(&[2, 3, 4], 4) * 0.1).unwrap();
        let x = Var::from_tensor(&start).unwrap();
        let gradient = |checkpointing| {
            let mut run = Run { checkpointing, ..Run::new() };
            let whole = |x: &Tensor| Ok(x.clone());
            let y = layers.run(x.as_tensor(), &[0, 0], &mut run, whole, whole).unwrap();
            let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            grads.get(x.as_tensor()).unwrap().clone()
        };
        let expected = gradient(Checkpointing::None);
        for checkpointing in [Checkpointing::Full, Checkpointing::Selective, Checkpointing::Full] {
            assert!(largest(&gradient(checkpointing), &expected) < 1e-5);
        }
        assert_eq!(largest(x.as_tensor(), &start), 0.0);
        // Tensors that a block kept still have all their elements after the backward pass.
        for x in seen.lock().unwrap().iter() {
            assert_eq!(x.flatten_all().unwrap().to_vec1::<f32>().unwrap().len(), 24);
        }
    }
}
