//! A hidden state without the layer norm after the last block, which candle-transformers' model does not give: the same
//! tensors in core's blocks, where matrices stay in their own type and in the mapped file.

use super::names::{self, init};
use super::settings::Sizes;
use anyhow::Result;
use candle_core::Tensor;
use limber_core::Weights;
use limber_core::frozen::{FrozenConv, FrozenLinear};
use limber_core::ops::{Heads, LayerNorm};
use limber_core::vit::{VitBlock, through};
use limber_core::weights::WeightError;

/// Embeddings and the blocks up to the hidden state.
pub(super) struct Cut {
    patches: FrozenConv,
    /// `[1, N, E]`.
    positions: Tensor,
    blocks: Vec<VitBlock>,
    heads: Heads,
}

impl Cut {
    pub fn new(w: &Weights, sizes: &Sizes) -> Result<Self> {
        let (e, p) = (sizes.vit.width, sizes.vit.patch);
        let tensor = |name: &str, shape: &[usize]| names::tensor(w, sizes, name, shape);
        let kernel = tensor(names::PROBE, &[e, 3, p, p])?;
        let bias = tensor("embeddings.patch_embedding.bias", &[e])?;
        Ok(Self {
            patches: FrozenConv::on(kernel, Some(bias), p, 0, w.backend())?,
            positions: names::positions(w, sizes)?.unsqueeze(0)?,
            blocks: (0..sizes.vit.layer).map(|i| block(w, i, sizes)).collect::<Result<_, _>>()?,
            heads: sizes.vit.heads,
        })
    }

    /// Pixels `[B, 3, S, S]` to `[B, N, E]`.
    pub fn forward(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        let patches = self.patches.forward(pixels)?.flatten_from(2)?.transpose(1, 2)?;
        through(&self.blocks, patches.broadcast_add(&self.positions)?, self.heads)?.contiguous()
    }
}

fn block(w: &Weights, index: usize, sizes: &Sizes) -> Result<VitBlock, WeightError> {
    let (e, inner) = (sizes.vit.width, sizes.inner);
    let prefix = format!("encoder.layers.{index}");
    let linear = |name: &str, n_in: usize, n_out: usize| -> Result<FrozenLinear, WeightError> {
        let name = format!("{prefix}.{name}");
        let bias = init(&format!("{name}.bias"), &[n_out]);
        w.pp(&name).linear(n_in, n_out, init(&format!("{name}.weight"), &[n_out, n_in]), Some(bias))
    };
    let norm = |name: &str| LayerNorm::load(&w.pp(format!("{prefix}.{name}")), e, sizes.vit.eps);
    Ok(VitBlock {
        norm1: norm("layer_norm1")?,
        q: linear("self_attn.q_proj", e, e)?,
        k: linear("self_attn.k_proj", e, e)?,
        v: linear("self_attn.v_proj", e, e)?,
        out: linear("self_attn.out_proj", e, e)?,
        scale1: None,
        norm2: norm("layer_norm2")?,
        fc1: linear("mlp.fc1", e, inner)?,
        gate: None,
        activation: sizes.vit.activation,
        fc2: linear("mlp.fc2", inner, e)?,
        scale2: None,
    })
}
