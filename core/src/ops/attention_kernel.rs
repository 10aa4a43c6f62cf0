//! Attention without a graph on the kernels: causal over a cache where it lies, or of every token to every token; and how
//! the kernels are given tensors, with a graph too.

use super::AttentionBias;
use super::attention::Heads;
use super::attention_composed::repeat;
use super::softmax::softmax_on;
use crate::backend::Backend;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use limber_kernels::{Attention, Heads as Strided, ScoreBias, Values, Visible};
use std::sync::Arc;

/// Attention in which every token sees every token: q, k and v `[B, N, H, dim]` f32 to `[B, N, H * dim]`, no graph.
///
/// # Errors
/// Shapes that do not fit.
pub fn attend_all(q: &Tensor, k: &Tensor, v: &Tensor, heads: Heads, bias: Option<&AttentionBias>) -> Result<Tensor> {
    attend_all_on(Backend::of(q.device()), [q, k, v], heads, bias)
}

/// [`attend_all`] by a backend.
pub(crate) fn attend_all_on(
    backend: Backend,
    [q, k, v]: [&Tensor; 3],
    heads: Heads,
    bias: Option<&AttentionBias>,
) -> Result<Tensor> {
    let (b, n, h, d) = q.dims4()?;
    if let Some(bias) = bias
        && (bias.heads(), bias.tokens()) != (h, n)
    {
        candle_core::bail!("a bias of {} heads and {} tokens for {h} heads and {n} tokens", bias.heads(), bias.tokens())
    }
    let (k, v) = (k.transpose(1, 2)?, v.transpose(1, 2)?); // [B, keys, N, dim]
    if backend.is_kernels() {
        let (sight, added) = (Sight::All(vec![n; b]), bias.cloned().map(Added::Grid));
        let op = Fused { heads, soft_cap: None, sight, mask: None, added };
        return q.apply_op3_no_bwd(&k, &v, &op)?.reshape((b, n, h * d));
    }
    let (k, v) = (repeat(&k, h / heads.keys)?, repeat(&v, h / heads.keys)?);
    let mut scores = (q.transpose(1, 2)?.contiguous()?.matmul(&k.transpose(2, 3)?)? * heads.scale)?;
    if let Some(bias) = bias {
        scores = scores.broadcast_add(&bias.expanded(q.device())?)?;
    }
    softmax_on(backend, &scores)?.matmul(&v)?.transpose(1, 2)?.contiguous()?.reshape((b, n, h * d))
}

/// One kernel over the cache where it lies: q `[B, T, H, dim]` f32, k and v `[B, keys, P, dim]`, to `[B, T, H, dim]`; the
/// elements of each head lie side by side, all other strides are free.
pub(super) struct Fused {
    pub heads: Heads,
    pub soft_cap: Option<f64>,
    pub sight: Sight,
    /// `[B, P]`: 1 is seen, 0 is hidden.
    pub mask: Option<Vec<u8>>,
    pub added: Option<Added>,
}

/// Which keys a query sees.
pub(super) enum Sight {
    /// Those up to its own position, or the last few of them; positions behind each row.
    Causal(Vec<usize>, Option<usize>),
    /// All of its row.
    All(Vec<usize>),
}

/// What scores get.
pub(super) enum Added {
    /// Less the distance of the key times the head's slope.
    Slopes(Arc<[f32]>),
    /// A number a head and key, `[H, P]`.
    Keys(Vec<f32>),
    /// A number a distance on a grid.
    Grid(AttentionBias),
}

impl Added {
    /// As the kernels take it, of `keys` keys.
    pub fn kernel(&self, keys: usize) -> ScoreBias<'_> {
        match self {
            Self::Slopes(slopes) => ScoreBias::Slopes(slopes),
            Self::Keys(data) => ScoreBias::Each { data, strides: [0, keys, 0] },
            Self::Grid(bias) => ScoreBias::Grid(bias.kernel()),
        }
    }
}

impl Fused {
    /// The result `[B, T, H, dim]`, row-major.
    pub fn run(&self, [q, k, v]: [(&CpuStorage, &Layout); 3]) -> Result<Vec<f32>> {
        let (batch, queries, heads, head_dim) = q.1.shape().dims4()?;
        let (_, kv_heads, positions, _) = k.1.shape().dims4()?;
        if v.1.shape() != k.1.shape() {
            candle_core::bail!("keys of shape {:?} and values of shape {:?}", k.1.shape(), v.1.shape())
        }
        let (data, [b, t, h]) = strided(q)?;
        let Values::F32(data) = data else { candle_core::bail!("attention takes queries in f32, got {:?}", q.1) };
        let heads_of = |x| strided(x).map(|(data, strides)| Strided { data, strides });
        let kernel = Attention {
            q: Strided { data, strides: [b, h, t] },
            k: heads_of(k)?,
            v: heads_of(v)?,
            batch,
            heads,
            kv_heads,
            queries,
            positions,
            head_dim,
            scale: self.heads.scale as f32,
            visible: match &self.sight {
                Sight::Causal(past, None) => Visible::Causal(past),
                Sight::Causal(past, Some(width)) => Visible::Window(past, *width),
                Sight::All(keys) => Visible::All(keys),
            },
            mask: self.mask.as_deref(),
            soft_cap: self.soft_cap.map(|cap| cap as f32),
            bias: self.added.as_ref().map(|added| added.kernel(positions)),
        };
        let mut out = vec![0f32; batch * queries * heads * head_dim];
        kernel.run(&mut out, None).map_err(candle_core::Error::wrap)?;
        Ok(out)
    }
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
        Ok((CpuStorage::F32(self.run([(s1, l1), (s2, l2), (s3, l3)])?), l1.shape().clone()))
    }
}

/// The elements of four dimensions, and the strides of the first three; of memory that was given away, none.
fn strided<'a>((storage, layout): (&'a CpuStorage, &Layout)) -> Result<(Values<'a>, [usize; 3])> {
    let [a, b, c, 1] = *layout.stride() else {
        candle_core::bail!("attention takes heads whose elements lie side by side, got {layout:?}")
    };
    let from = layout.start_offset();
    let values = match storage {
        CpuStorage::F32(data) => Values::F32(data.get(from..).unwrap_or_default()),
        CpuStorage::F16(data) => Values::F16(data.get(from..).unwrap_or_default()),
        CpuStorage::BF16(data) => Values::Bf16(data.get(from..).unwrap_or_default()),
        other => candle_core::bail!("attention takes heads in f32, f16 or bf16, got {}", other.dtype().as_str()),
    };
    Ok((values, [a, b, c]))
}
