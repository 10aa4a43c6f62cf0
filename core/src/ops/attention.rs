//! Causal self-attention: over cached and new positions, rows of different lengths, grouped queries, sliding windows,
//! soft caps, linear biases.
//!
//! The kernels take keys and values where they lie, and have a gradient that keeps no probabilities. The same from candle's
//! operations serves accelerators, a cache with a graph, and callers who want to see the probabilities. All ways are tested
//! equal.

use super::attention_composed::{Composed, causal_bias};
use super::attention_graph::Causal;
use super::attention_kernel::{Fused, Sight};
use super::linear_bias::LinearBias;
use crate::backend::Backend;
use crate::cache::KvCache;
use crate::decoder::Run;
use candle_core::{DType, Result, Tensor};

/// How a layer's heads are laid out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads; a divisor of `queries`.
    pub keys: usize,
    /// Width of one head.
    pub dim: usize,
    /// What the dot products are multiplied with, usually 1 / sqrt(dim).
    pub scale: f64,
}

impl Heads {
    /// Heads whose scores are divided by the square root of their width.
    pub fn new(queries: usize, keys: usize, dim: usize) -> Self {
        Self { queries, keys, dim, scale: 1.0 / (dim as f64).sqrt() }
    }
}

/// What a layer's scores are made of, and which keys a position sees.
#[derive(Debug, Clone)]
pub struct CausalAttention {
    /// The heads.
    pub heads: Heads,
    /// Keys that a position sees at most, its own included; None: all up to its own.
    pub window: Option<usize>,
    /// c where scores s become c tanh(s / c).
    pub soft_cap: Option<f64>,
    /// What scores get for the position of their key: ALiBi.
    pub linear_bias: Option<LinearBias>,
}

/// What the rest of a graph does with queries, keys, values and the result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    /// Whether the backward pass may use up the memory of q, k and v: each has memory of its own, which nothing else reads.
    pub once: bool,
    /// Whether anything reads the result's value.
    pub value: bool,
}

impl Use {
    /// Everything may be read again.
    pub const SHARED: Use = Use { once: false, value: true };
}

/// q `[B, T, H, dim]`, k and v `[B, T, keys, dim]` of `layer`, all f32, to `[B, T, H * dim]`.
///
/// With a cache in `run`, k and v are appended to it and its earlier positions are seen too; position t of row b
/// sees `past[b] + t + 1` keys. Taps are filled where asked for.
///
/// # Errors
/// Shapes that do not fit, a full cache.
pub fn attend(layer: usize, q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, run: &mut Run) -> Result<Tensor> {
    CausalAttention::new(heads).forward(layer, q, k, v, run)
}

/// As [`attend`], of a layer whose positions see the last `window` keys alone, their own included.
///
/// # Errors
/// As [`attend`]; a window of 0.
pub fn attend_within(
    layer: usize,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: Heads,
    window: Option<usize>,
    run: &mut Run,
) -> Result<Tensor> {
    CausalAttention { window, ..CausalAttention::new(heads) }.forward(layer, q, k, v, run)
}

impl CausalAttention {
    /// Attention to all keys up to a position's own.
    pub fn new(heads: Heads) -> Self {
        Self { heads, window: None, soft_cap: None, linear_bias: None }
    }

    /// q `[B, T, H, dim]`, k and v `[B, T, keys, dim]` of `layer`, all f32, to `[B, T, H * dim]`, as [`attend`].
    ///
    /// # Errors
    /// As [`attend`]; a window of 0.
    pub fn forward(&self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor, run: &mut Run) -> Result<Tensor> {
        self.forward_on(Backend::of(q.device()), layer, [q, k, v], run, Use::SHARED)
    }

    pub(crate) fn forward_on(
        &self,
        backend: Backend,
        layer: usize,
        [q, k, v]: [&Tensor; 3],
        run: &mut Run,
        used: Use,
    ) -> Result<Tensor> {
        let (b, t, h, d) = q.dims4()?;
        let Self { heads, window, .. } = *self;
        if window == Some(0) {
            candle_core::bail!("an attention window of 0 keys, expected 1 and above")
        }
        let past = run.past(b)?;
        let tracked = [q, k, v].iter().any(|x| x.track_op());
        if let Some(bias) = &self.linear_bias {
            bias.check(h)?;
        }
        let fused =
            backend.is_kernels() && !run.taps.want_attention && [q, k, v].iter().all(|x| x.dtype() == DType::F32);
        if fused && tracked && run.cache.is_none() {
            let mask = run.mask.as_ref().map(|mask| key_mask(mask, b, t)).transpose()?;
            let Use { once, value } = used;
            let fused = self.fused(past, mask, t);
            return Causal { fused, once, value }.attend(q, k, v)?.reshape((b, t, h * d));
        }
        let (k, v) = (k.transpose(1, 2)?, v.transpose(1, 2)?); // [B, keys, T, dim]
        let (k, v) = match run.cache_as::<KvCache>()? {
            Some(cache) => cache.append(layer, &k, &v)?,
            None => (k, v),
        };
        let p = k.dim(2)?;
        let mask = run.mask.as_ref().map(|mask| key_mask(mask, b, p)).transpose()?;
        if fused && !tracked {
            return q.apply_op3_no_bwd(&k, &v, &self.fused(past, mask, p))?.reshape((b, t, h * d));
        }
        let bias = causal_bias(&past, [t, p], self, mask.as_deref(), q.device())?;
        let composed = Composed { heads, soft_cap: self.soft_cap, bias, backend };
        let q = q.transpose(1, 2)?; // [B, H, T, dim]
        if !run.taps.want_attention {
            return composed.forward(&q, &k, &v, used.once)?.transpose(1, 2)?.contiguous()?.reshape((b, t, h * d));
        }
        let probabilities = composed.probabilities(&q, &k)?;
        let mixed = composed.mix(&probabilities, &v)?;
        run.taps.attention.push(probabilities);
        mixed.transpose(1, 2)?.contiguous()?.reshape((b, t, h * d))
    }

    /// The same for the kernels, of rows with these positions `past` and `keys` keys.
    fn fused(&self, past: Vec<usize>, mask: Option<Vec<u8>>, keys: usize) -> Fused {
        let added = self.linear_bias.as_ref().map(|bias| bias.added(keys, self.heads.scale));
        Fused { heads: self.heads, soft_cap: self.soft_cap, sight: Sight::Causal(past, self.window), mask, added }
    }
}

/// The first `p` columns of a key mask of `b` rows, row-major.
fn key_mask(mask: &Tensor, b: usize, p: usize) -> Result<Vec<u8>> {
    match mask.dims() {
        [rows, keys] if *rows == b && *keys >= p => {}
        other => candle_core::bail!("a key mask of shape {other:?} for {b} rows of {p} positions"),
    }
    mask.narrow(1, 0, p)?.to_dtype(DType::U8)?.flatten_all()?.to_vec1()
}
