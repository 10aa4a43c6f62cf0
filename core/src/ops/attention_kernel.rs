//! Attention without a graph on the kernels: causal over a cache where it lies, or of every token to every token.

use super::attention::Heads;
use super::attention_composed::repeat;
use super::{AttentionBias, softmax};
use crate::frozen::contiguous_f32;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use limber_kernels::{Attention, Heads as Strided, ScoreBias, Values, Visible};

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

/// One kernel over the cache where it lies: q `[B, T, H, dim]`, k and v `[B, keys, P, dim]` of any strides, to
/// `[B, T, H, dim]`.
pub(super) struct Fused {
    pub heads: Heads,
    pub sight: Sight,
    pub mask: Option<Vec<u8>>,
}

/// Which keys a query sees.
pub(super) enum Sight {
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
