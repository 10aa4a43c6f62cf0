//! The `Decoder` contract: embeddings in, logits out; and `Run`, which carries all that may grow.

use crate::cache::{CacheOptions, DecoderCache, KvCache};
use crate::gather::gather;
use crate::spec::DecoderSpec;
use candle_core::{Result, Tensor};

/// A frozen language model that takes embeddings.
///
/// Without a cache, gradients reach `embeds`; no gradient of a frozen weight is ever computed.
pub trait Decoder: Send + Sync {
    /// The sizes of this model.
    fn spec(&self) -> DecoderSpec;

    /// Ids `[B, T]` u32 to word embeddings `[B, T, D]` f32.
    fn embed(&self, ids: &Tensor) -> Result<Tensor>;

    /// Embeddings `[B, T, D]` f32 to logits f32, whose shape [`LogitPositions`] decides.
    ///
    /// # Errors
    /// More positions than the context length or than the cache holds; a shape that is not `[B, T, D]`.
    fn forward(&self, embeds: &Tensor, run: &mut Run) -> Result<Tensor>;

    /// An empty cache, of the type that this decoder keeps; `forward` gets it back from [`Run::cache_as`].
    ///
    /// # Errors
    /// A capacity above the context length.
    fn new_cache(&self, options: &CacheOptions) -> Result<Box<dyn DecoderCache>> {
        Ok(Box::new(KvCache::new(&self.spec(), options)?))
    }

    /// Whether the keys and values of a prefix that sequences of up to `positions` share may be computed once for all of
    /// them. False where a sequence's length changes how its first positions are seen.
    fn supports_prefix_reuse(&self, _positions: usize) -> bool {
        true
    }
}

/// Which positions need logits.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LogitPositions {
    /// Every position: `[B, T, V]`.
    #[default]
    All,
    /// The last valid position of every sequence: `[B, V]`.
    Last,
    /// The listed positions, as (sequence, position in this call): `[len, V]`.
    At(Vec<(usize, usize)>),
    /// None: the caller wants the taps or the cache alone, and the result is the final hidden state `[B, T, D]`.
    Hidden,
}

/// What a caller wants to see on the way, and what was seen.
#[derive(Debug, Clone, Default)]
pub struct Taps {
    /// Ask for the hidden states.
    pub want_hidden: bool,
    /// Ask for the attention probabilities.
    pub want_attention: bool,
    /// `[B, T, D]` before the first layer, then after each layer (the last after the final norm): L + 1 tensors.
    pub hidden: Vec<Tensor>,
    /// `[B, H, T, P + T]` for every layer.
    pub attention: Vec<Tensor>,
}

/// Activation checkpointing: what is kept from the forward pass for the backward pass, and what is computed again there.
///
/// Of a checkpointed block one gradient can be asked for, which uses up what is kept. Without effect where there is a cache
/// or no graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checkpointing {
    /// Everything is kept.
    #[default]
    None,
    /// The input of each block is kept, and all of the block is computed again: memory for one block's activations instead
    /// of L, for most of one more forward pass.
    Full,
    /// The input and the matrix products of each block are kept, and the cheap rest is computed again: about half the
    /// memory of a whole graph. As `Full` for blocks of another build than [`DecoderBlock`](crate::DecoderBlock).
    Selective,
}

/// One forward run: cache, lengths, mask, logit positions, taps.
///
/// What the backward pass of a checkpointed block needs is the executor's own; a run has no way to it, so nothing outside
/// can reach a tensor without values:
///
/// ```compile_fail,E0609
/// let mut run = limber_core::Run::new();
/// run.products = Default::default();
/// ```
/// ```compile_fail,E0432
/// use limber_core::Products;
/// ```
#[derive(Default)]
pub struct Run<'a> {
    /// What the decoder keeps of earlier positions; grown by this run. None: positions count from 0 and a graph is kept.
    pub cache: Option<&'a mut dyn DecoderCache>,
    /// Valid positions of each sequence of `embeds`, which is padded at the end; None: every sequence is full.
    pub lengths: Option<Vec<usize>>,
    /// Key mask u8 `[B, P + T]` over the cached and the new positions: 1 is seen, 0 is hidden; None: all are seen.
    pub mask: Option<Tensor>,
    /// Which positions need logits.
    pub logits: LogitPositions,
    /// Hidden states or attention a caller wants to see.
    pub taps: Taps,
    /// What a training step keeps of the activations; the executor of the blocks alone reads it.
    pub checkpointing: Checkpointing,
}

impl<'a> Run<'a> {
    /// Logits for all positions, no cache: the shape of training and scoring.
    pub fn new() -> Self {
        Self::default()
    }

    /// Logits for the last valid position of each sequence, over a cache: the shape of generation.
    pub fn cached(cache: &'a mut dyn DecoderCache) -> Self {
        Self { cache: Some(cache), logits: LogitPositions::Last, ..Self::default() }
    }

    /// The cache as the type that the decoder's [`new_cache`](Decoder::new_cache) makes; None without a cache.
    ///
    /// # Errors
    /// A cache of another decoder.
    pub fn cache_as<C: DecoderCache>(&mut self) -> Result<Option<&mut C>> {
        self.cache.as_deref_mut().map(|cache| cache.downcast_mut()).transpose()
    }

    /// Valid positions of each of `batch` sequences of length `t`, checked.
    ///
    /// # Errors
    /// Where `lengths` has another count than the batch or an entry above T or of 0.
    pub fn sequence_lengths(&self, batch: usize, t: usize) -> Result<Vec<usize>> {
        let Some(lengths) = &self.lengths else {
            return Ok(vec![t; batch]);
        };
        if lengths.len() != batch {
            candle_core::bail!("run has {} sequence lengths, the batch has {batch} sequences", lengths.len())
        }
        if let Some(bad) = lengths.iter().find(|l| **l == 0 || **l > t) {
            candle_core::bail!("sequence length {bad} is not in 1..={t}")
        }
        Ok(lengths.clone())
    }

    /// Positions already cached for each of `batch` sequences; zeros without a cache.
    ///
    /// # Errors
    /// Where the cache was made for another number of sequences.
    pub fn past(&self, batch: usize) -> Result<Vec<usize>> {
        match &self.cache {
            None => Ok(vec![0; batch]),
            Some(cache) if cache.lengths().len() == batch => Ok(cache.lengths().to_vec()),
            Some(cache) => {
                candle_core::bail!("the cache holds {} sequences, the batch has {batch}", cache.lengths().len())
            }
        }
    }
}

/// Refuses runs that reach beyond the context length: past + new positions of any sequence.
///
/// # Errors
/// Names the positions asked for and the context length.
pub fn check_context(past: &[usize], lengths: &[usize], context: usize) -> Result<()> {
    let need = past.iter().zip(lengths).map(|(p, l)| p + l).max();
    match need {
        Some(need) if need > context => candle_core::bail!(
            "{need} positions (prefix and text together) are more than the decoder's context length, which allows {context}"
        ),
        _ => Ok(()),
    }
}

/// Which rows of hidden states `[B, T, D]`, counted over B and T, need logits; None where all of them do.
///
/// # Errors
/// Where a listed position lies outside.
pub fn wanted_rows(positions: &LogitPositions, t: usize, lengths: &[usize]) -> Result<Option<Vec<u32>>> {
    let b = lengths.len();
    Ok(match positions {
        LogitPositions::All | LogitPositions::Hidden => None,
        LogitPositions::Last => {
            Some(lengths.iter().enumerate().map(|(sequence, len)| (sequence * t + len - 1) as u32).collect())
        }
        LogitPositions::At(list) => {
            if let Some(bad) = list.iter().find(|(sequence, pos)| *sequence >= b || *pos >= t) {
                candle_core::bail!("logits asked at {bad:?}, expected sequences 0..{b} and positions 0..{t}")
            }
            Some(list.iter().map(|(sequence, pos)| (sequence * t + pos) as u32).collect())
        }
    })
}

/// The rows of `hidden` `[B, T, D]` that need logits: `[B, T, D]`, `[B, D]` or `[len, D]`, graph kept.
///
/// # Errors
/// Where a listed position lies outside `hidden`.
pub fn select_positions(hidden: &Tensor, positions: &LogitPositions, lengths: &[usize]) -> Result<Tensor> {
    let rows = wanted_rows(positions, hidden.dim(1)?, lengths)?;
    let rows = rows.map(|rows| Tensor::new(rows, hidden.device())).transpose()?;
    gather(hidden, rows.as_ref())
}
