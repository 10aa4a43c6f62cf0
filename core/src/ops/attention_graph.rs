//! Causal self-attention without a cache on the kernels, with a backward pass that keeps no probabilities.

use super::attention::Heads;
use crate::frozen::{contiguous_f32, take};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Storage, Tensor};
use limber_kernels::{Attention, CausalGrads, Heads as Strided, Values, Visible};

/// What decides which keys a query sees; the scale of the scores.
pub(super) struct Causal {
    pub heads: Heads,
    /// Zeros, one a row of the batch: there are no earlier positions.
    pub past: Vec<usize>,
    pub window: Option<usize>,
    /// `[B, T]`: 1 is seen, 0 is hidden.
    pub mask: Option<Vec<u8>>,
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

    /// The kernel over three tensors `[B, T, heads, dim]`.
    fn kernel<'a>(&'a self, [q, k, v]: [(&'a CpuStorage, &'a Layout); 3]) -> Result<Attention<'a>> {
        let (batch, queries, heads, head_dim) = q.1.shape().dims4()?;
        let (_, positions, kv_heads, _) = k.1.shape().dims4()?;
        if v.1.shape() != k.1.shape() {
            candle_core::bail!("keys of shape {:?} and values of shape {:?}", k.1.shape(), v.1.shape())
        }
        let (q, k, v) = (strided(q)?, strided(k)?, strided(v)?);
        let values = |x: Strided<&'a [f32]>| Strided { data: Values::F32(x.data), strides: x.strides };
        let visible = match self.window {
            None => Visible::Causal(&self.past),
            Some(width) => Visible::Window(&self.past, width),
        };
        let (scale, mask) = (self.heads.scale as f32, self.mask.as_deref());
        let (k, v) = (values(k), values(v));
        Ok(Attention {
            q,
            k,
            v,
            batch,
            heads,
            kv_heads,
            queries,
            positions,
            head_dim,
            scale,
            visible,
            mask,
            bias: None,
        })
    }
}

/// `[B, T, heads, dim]` f32 whose last elements lie side by side.
fn strided<'a>((storage, layout): (&'a CpuStorage, &'a Layout)) -> Result<Strided<&'a [f32]>> {
    match (storage, layout.stride()) {
        (CpuStorage::F32(data), [b, t, h, 1]) => {
            Ok(Strided { data: &data[layout.start_offset()..], strides: [*b, *h, *t] })
        }
        _ => candle_core::bail!("attention takes f32 heads whose elements lie side by side, got {layout:?}"),
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
        let mut out = vec![0f32; l1.shape().elem_count()];
        if self.value {
            self.kernel([(s1, l1), (s2, l2), (s3, l3)])?.run(&mut out, None).map_err(candle_core::Error::wrap)?;
        }
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
        let grads = CausalGrads {
            q: &mut gq,
            k: &mut gk,
            v: &mut gv,
            batch,
            positions,
            heads,
            kv_heads: k.dim(2)?,
            head_dim,
            scale: self.heads.scale as f32,
            window: self.window,
            mask: self.mask.as_deref(),
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
