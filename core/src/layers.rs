//! What every decoder does around its blocks: checks, cache, hidden states, which positions get logits.
//!
//! A decoder gives its blocks, its last norm and its head; the order of things is here alone.

use crate::decoder::{LogitPositions, Run, check_context, select_positions};
use crate::spec::DecoderSpec;
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// One block of a decoder.
pub trait Layer: Send + Sync + 'static {
    /// x `[B, T, D]` f32 to `[B, T, D]` f32, as block number `index`; row b starts at position `past[b]`.
    ///
    /// # Errors
    /// What its operations report.
    fn forward(&self, index: usize, x: &Tensor, past: &[usize], run: &mut Run) -> Result<Tensor>;
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
        let mut x = x.clone();
        for (index, block) in self.blocks.iter().enumerate() {
            if run.taps.want_hidden {
                run.taps.hidden.push(x.clone());
            }
            x = block.forward(index, &x, past, run)?;
        }
        if let Some(cache) = &mut run.cache {
            cache.advance(&lengths)?;
        }
        if run.taps.want_hidden {
            let last = norm(&x)?;
            run.taps.hidden.push(last);
        }
        let x = norm(&select_positions(&x, &run.logits, &lengths)?)?;
        if run.logits == LogitPositions::Hidden { Ok(x) } else { head(&x) }
    }
}
