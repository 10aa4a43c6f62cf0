//! Self-attention: causal over cached and new positions, rows of different lengths, grouped queries, sliding windows;
//! and, for encoders, of every token to every token.
//!
//! On the CPU one kernel over keys and values where they lie, with its gradient where a graph is wanted; composed of
//! differentiable operations on accelerators, over a cache with a graph, and where the probabilities are wanted. All are
//! tested equal.

use super::attention_graph::Causal;
use super::{AttentionBias, softmax};
use crate::cache::KvCache;
use crate::decoder::Run;
use crate::frozen::contiguous_f32;
use crate::products::Products;
use candle_core::{CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor};
use limber_kernels::{Attention, Heads as Strided, ScoreBias, Values, Visible};

/// How a layer's heads are laid out.
#[derive(Debug, Clone, Copy)]
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

/// q `[B, T, H, dim]`, k and v `[B, T, keys, dim]` of `layer`, all f32, to `[B, T, H * dim]`.
///
/// With a cache in `run`, k and v are appended to it and its earlier positions are seen too; position t of row b
/// sees `past[b] + t + 1` keys. Taps are filled where asked for. Where a block runs for its gradient, going back uses up the
/// memory of q, k and v: they have memory of their own each, and no other operation's way back may read their numbers.
///
/// # Errors
/// Shapes that do not fit, a full cache.
pub fn attend(layer: usize, q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, run: &mut Run) -> Result<Tensor> {
    attend_within(layer, q, k, v, heads, None, run)
}

/// [`attend`] whose result goes to [`Run::last_product`] and nowhere else, but for a [`pick`](crate::pick): where a block runs
/// for its gradient, the value is left out.
///
/// # Errors
/// As [`attend`].
pub fn attend_last(layer: usize, q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, run: &mut Run) -> Result<Tensor> {
    let valued = !matches!(run.products, Products::Again(_));
    attention(layer, q, k, v, heads, None, run, valued)
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
    attention(layer, q, k, v, heads, window, run, true)
}

#[allow(clippy::too_many_arguments)]
fn attention(
    layer: usize,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: Heads,
    window: Option<usize>,
    run: &mut Run,
    valued: bool,
) -> Result<Tensor> {
    let (b, t, h, d) = q.dims4()?;
    if window == Some(0) {
        candle_core::bail!("an attention window of 0 keys, allowed is 1 and above")
    }
    let past = run.past(b)?;
    let wants_graph = q.track_op() || k.track_op() || v.track_op();
    let is_plain = run.cache.is_none() && !run.taps.want_attention && [q, k, v].iter().all(|x| x.dtype() == DType::F32);
    if q.device().is_cpu() && wants_graph && is_plain {
        let mask = run.mask.as_ref().map(|mask| key_mask(mask, b, t)).transpose()?;
        let once = matches!(run.products, Products::Again(_));
        return Causal { heads, past, window, mask, once, valued }.attend(q, k, v)?.reshape((b, t, h * d));
    }
    let (k, v) = (k.transpose(1, 2)?, v.transpose(1, 2)?); // [B, keys, T, dim]
    let (k, v) = match run.cache_as::<KvCache>()? {
        Some(cache) => cache.append(layer, &k, &v)?,
        None => (k, v),
    };
    let mask = run.mask.as_ref().map(|mask| key_mask(mask, b, k.dim(2)?)).transpose()?;
    if q.device().is_cpu() && !wants_graph && !run.taps.want_attention {
        let op = Fused { heads, sight: Sight::Causal(past, window), mask };
        return q.contiguous()?.apply_op3_no_bwd(&k, &v, &op)?.reshape((b, t, h * d));
    }
    let q = q.transpose(1, 2)?.contiguous()?; // [B, H, T, dim]
    let (k, v) = (k.to_dtype(DType::F32)?, v.to_dtype(DType::F32)?);
    let (k, v) = (repeat(&k, h / heads.keys)?, repeat(&v, h / heads.keys)?);
    let scores = (q.matmul(&k.transpose(2, 3)?)? * heads.scale)?; // [B, H, T, P]
    let bias = causal_bias(&past, t, k.dim(2)?, window, mask.as_deref(), q.device())?;
    let probabilities = softmax(&scores.broadcast_add(&bias)?)?;
    if run.taps.want_attention {
        run.taps.attention.push(probabilities.clone());
    }
    probabilities.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((b, t, h * d))
}

/// Attention in which every token sees every token: q, k and v `[B, N, H, dim]` f32 to `[B, N, H * dim]`, no graph.
///
/// # Errors
/// Shapes that do not fit.
pub fn attend_all(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, bias: Option<&AttentionBias>) -> Result<Tensor> {
    let (b, n, h, d) = q.dims4()?;
    if let Some(bias) = bias
        && (bias.heads(), bias.tokens()) != (h, n)
    {
        candle_core::bail!("a bias of {} heads and {} tokens for {h} heads and {n} tokens", bias.heads(), bias.tokens())
    }
    let (k, v) = (k.transpose(1, 2)?, v.transpose(1, 2)?); // [B, keys, N, dim]
    if q.device().is_cpu() {
        let op = Fused { heads, sight: Sight::All(vec![n; b], bias.cloned()), mask: None };
        return q.contiguous()?.apply_op3_no_bwd(&k, &v, &op)?.reshape((b, n, h * d));
    }
    let (k, v) = (repeat(&k, h / heads.keys)?, repeat(&v, h / heads.keys)?);
    let mut scores = (q.transpose(1, 2)?.contiguous()?.matmul(&k.transpose(2, 3)?)? * heads.scale)?;
    if let Some(bias) = bias {
        scores = scores.broadcast_add(&bias.expanded(q.device())?)?;
    }
    softmax(&scores)?.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((b, n, h * d))
}

/// `[B, keys, P, dim]` with every head `times` times in a row.
fn repeat(x: &Tensor, times: usize) -> Result<Tensor> {
    let (b, keys, p, d) = x.dims4()?;
    if times == 1 {
        return x.contiguous();
    }
    x.unsqueeze(2)?.expand((b, keys, times, p, d))?.contiguous()?.reshape((b, keys * times, p, d))
}

/// `[B, 1, T, P]`: 0 where position t of row b sees key p, -inf elsewhere.
fn causal_bias(
    past: &[usize],
    t: usize,
    p: usize,
    window: Option<usize>,
    mask: Option<&[u8]>,
    device: &Device,
) -> Result<Tensor> {
    let mut bias = vec![f32::NEG_INFINITY; past.len() * t * p];
    for (row, before) in past.iter().enumerate() {
        for at in 0..t {
            let seen = (before + at + 1).min(p);
            let hidden = window.map_or(0, |width| seen.saturating_sub(width));
            let line = &mut bias[(row * t + at) * p..][..seen];
            for (key, value) in line.iter_mut().enumerate().skip(hidden) {
                if mask.is_none_or(|mask| mask[row * p + key] != 0) {
                    *value = 0.0;
                }
            }
        }
    }
    Tensor::from_vec(bias, (past.len(), 1, t, p), device)
}

/// The first `p` columns of a key mask of `b` rows, row-major.
fn key_mask(mask: &Tensor, b: usize, p: usize) -> Result<Vec<u8>> {
    match mask.dims() {
        [rows, keys] if *rows == b && *keys >= p => {}
        other => candle_core::bail!("a key mask of shape {other:?} for {b} rows of {p} positions"),
    }
    mask.narrow(1, 0, p)?.to_dtype(DType::U8)?.flatten_all()?.to_vec1()
}

/// One kernel over the cache where it lies: q `[B, T, H, dim]`, k and v `[B, keys, P, dim]` of any strides, to
/// `[B, T, H, dim]`.
struct Fused {
    heads: Heads,
    sight: Sight,
    mask: Option<Vec<u8>>,
}

/// Which keys a query sees.
enum Sight {
    /// Those up to its own position, or the last few of them; positions behind each row.
    Causal(Vec<usize>, Option<usize>),
    /// All of its row, with a bias on the scores.
    All(Vec<usize>, Option<AttentionBias>),
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "fused-attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, queries, heads, head_dim) = l1.shape().dims4()?;
        let (_, kv_heads, positions, _) = l2.shape().dims4()?;
        let [b, t, h, _] = *l1.stride() else { candle_core::bail!("queries have four dimensions") };
        let (visible, bias) = match &self.sight {
            Sight::Causal(past, None) => (Visible::Causal(past), None),
            Sight::Causal(past, Some(width)) => (Visible::Window(past, *width), None),
            Sight::All(keys, bias) => (Visible::All(keys), bias.as_ref()),
        };
        let kernel = Attention {
            q: Strided { data: contiguous_f32(self.name(), s1, l1)?, strides: [b, h, t] },
            k: strided(self.name(), s2, l2)?,
            v: strided(self.name(), s3, l3)?,
            batch,
            heads,
            kv_heads,
            queries,
            positions,
            head_dim,
            scale: self.heads.scale as f32,
            visible,
            mask: self.mask.as_deref(),
            bias: bias.map(|bias| ScoreBias::Grid(bias.kernel())),
        };
        let mut out = vec![0f32; batch * queries * heads * head_dim];
        kernel.run(&mut out, None).map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

fn strided<'a>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<Strided<Values<'a>>> {
    let from = layout.start_offset();
    match (storage, layout.stride()) {
        (CpuStorage::F32(data), [b, h, p, 1]) => {
            Ok(Strided { data: Values::F32(&data[from..]), strides: [*b, *h, *p] })
        }
        (CpuStorage::F16(data), [b, h, p, 1]) => {
            Ok(Strided { data: Values::F16(&data[from..]), strides: [*b, *h, *p] })
        }
        (CpuStorage::BF16(data), [b, h, p, 1]) => {
            Ok(Strided { data: Values::Bf16(&data[from..]), strides: [*b, *h, *p] })
        }
        _ => candle_core::bail!("{op} takes float heads whose elements lie side by side, got {layout:?}"),
    }
}
