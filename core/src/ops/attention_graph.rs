//! Causal self-attention without a cache on the kernels, with a backward pass that keeps no probabilities.

use super::attention_kernel::{Fused, Sight};
use crate::frozen::{contiguous_f32, take};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Storage, Tensor};
use limber_kernels::CausalGrads;

/// Attention over the positions of this run, and what its graph needs to know.
pub(super) struct Causal {
    /// Without earlier positions.
    pub fused: Fused,
    /// Whether the gradient uses up queries, keys and values.
    pub once: bool,
    /// Whether anything reads the value; else this is a backward-only node.
    pub value: bool,
}

impl Causal {
    /// q `[B, T, H, dim]`, k and v `[B, T, keys, dim]` f32 to `[B, T, H, dim]`.
    pub fn attend(self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        q.apply_op3(k, v, self)
    }
}

impl CustomOp3 for Causal {
    fn name(&self) -> &'static str {
        "causal-attention"
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
        let out = if self.value {
            self.fused.run([(s1, l1), (s2, &l2.transpose(1, 2)?), (s3, &l3.transpose(1, 2)?)])?
        } else {
            vec![0f32; l1.shape().elem_count()]
        };
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (batch, positions, heads, head_dim) = q.dims4()?;
        let elements = |x: &Tensor| match self.once {
            true => take(&x.contiguous()?),
            false => x.flatten_all()?.to_vec1::<f32>(),
        };
        let (mut gq, mut gk, mut gv) = (elements(q)?, elements(k)?, elements(v)?);
        let fused = &self.fused;
        let grads = CausalGrads {
            q: &mut gq,
            k: &mut gk,
            v: &mut gv,
            batch,
            positions,
            heads,
            kv_heads: k.dim(2)?,
            head_dim,
            scale: fused.heads.scale as f32,
            window: match fused.sight {
                Sight::Causal(_, window) => window,
                Sight::All(_) => candle_core::bail!("attention to all keys has no gradient"),
            },
            mask: fused.mask.as_deref(),
            soft_cap: fused.soft_cap.map(|cap| cap as f32),
            bias: fused.added.as_ref().map(|added| added.kernel(positions)),
        };
        let grad = grad.contiguous()?;
        let (storage, layout) = grad.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("a gradient on another device than its attention, which is on the cpu")
        };
        grads.run(contiguous_f32(self.name(), storage, layout)?).map_err(candle_core::Error::wrap)?;
        let tensor =
            |elements: Vec<f32>, like: &Tensor| Tensor::from_vec(elements, like.shape(), like.device()).map(Some);
        Ok((tensor(gq, q)?, tensor(gk, k)?, tensor(gv, v)?))
    }
}
