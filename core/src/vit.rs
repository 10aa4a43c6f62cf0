//! The encoder block that vision transformers share: x + attention(norm(x)), then x + mlp(norm(x)); no graph.
//!
//! Sources followed: transformers' `modeling_clip.py` (`CLIPEncoderLayer`), `modeling_beit.py` (`BeitLayer`, with
//! layer scale and a bias on the scores) and `modeling_dinov2.py` (`Dinov2SwiGLUFFN`). Encoders load the pieces under their own names.

mod settings;

pub use settings::{VitClass, VitSettings, VitSizes, hidden_state};

use crate::Run;
use crate::frozen::{Epilogue, FrozenLinear, forward_all, forward_all_with};
use crate::ops::{Activation, AttentionBias, CausalAttention, Heads, LayerNorm, Use, attend_all_on};
use candle_core::{Result, Tensor};

/// One block of width E.
#[derive(Debug, Clone)]
pub struct VitBlock {
    /// Before the attention.
    pub norm1: LayerNorm,
    /// Queries, E to E.
    pub q: FrozenLinear,
    /// Keys, E to E.
    pub k: FrozenLinear,
    /// Values, E to E.
    pub v: FrozenLinear,
    /// After the attention, E to E.
    pub out: FrozenLinear,
    /// Layer scale `[E]` of the attention, where the model has it.
    pub scale1: Option<Tensor>,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// E to the MLP's width.
    pub fc1: FrozenLinear,
    /// E to the MLP's width, where the activation acts on this gate and multiplies `fc1`'s output (SwiGLU).
    pub gate: Option<FrozenLinear>,
    /// The MLP's activation.
    pub activation: Activation,
    /// The MLP's width to E.
    pub fc2: FrozenLinear,
    /// Layer scale `[E]` of the MLP, where the model has it.
    pub scale2: Option<Tensor>,
}

impl VitBlock {
    /// x `[B, N, E]` f32 to `[B, N, E]` f32; every token sees every token, scores plus `bias`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, x: &Tensor, heads: Heads, bias: Option<&AttentionBias>) -> Result<Tensor> {
        self.around(x, heads, |heads_of| attend_all_on(self.q.backend(), heads_of, heads, bias))
    }

    /// x `[B, T, E]` f32 to `[B, T, E]` f32; a position sees itself and those before it, as in CLIP's text tower.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward_causal(&self, x: &Tensor, heads: Heads) -> Result<Tensor> {
        let attention = CausalAttention::new(heads);
        self.around(x, heads, |heads_of| {
            attention.forward_on(self.q.backend(), 0, heads_of, &mut Run::new(), Use::SHARED)
        })
    }

    /// The block with `attention` of q, k and v `[B, N, H, dim]` to `[B, N, E]`.
    fn around(
        &self,
        x: &Tensor,
        heads: Heads,
        attention: impl FnOnce([&Tensor; 3]) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (b, n, _) = x.dims3()?;
        let normed = self.norm1.forward(x)?;
        let [q, k, v] = forward_all([&self.q, &self.k, &self.v], &normed)?;
        let split = |x: Tensor| x.reshape((b, n, heads.queries, heads.dim));
        let (q, k, v) = (split(q)?, split(k)?, split(v)?);
        let x = self.out.forward_with(&attention([&q, &k, &v])?, scaled_residual(x, &self.scale1))?;
        let normed = self.norm2.forward(&x)?;
        let activation = Epilogue::activation(self.activation);
        let mlp = match &self.gate {
            Some(gate) => {
                let [hidden, gate] = forward_all_with([(&self.fc1, Epilogue::NONE), (gate, activation)], &normed)?;
                (gate * hidden)?
            }
            None => self.fc1.forward_with(&normed, activation)?,
        };
        self.fc2.forward_with(&mlp, scaled_residual(&x, &self.scale2))
    }
}

/// Tokens `lead` `[1, K, E]` before each image's `patches` `[B, N, E]`: `[B, K + N, E]`.
///
/// # Errors
/// Another width.
pub fn led_by(lead: &Tensor, patches: &Tensor) -> Result<Tensor> {
    let (_, k, e) = lead.dims3()?;
    Tensor::cat(&[&lead.broadcast_as((patches.dim(0)?, k, e))?, patches], 1)
}

/// x `[B, N, E]` through `blocks`, one after the other.
///
/// # Errors
/// Shapes that do not fit.
pub fn through(blocks: &[VitBlock], x: Tensor, heads: Heads) -> Result<Tensor> {
    blocks.iter().try_fold(x, |x, block| block.forward(&x, heads, None))
}

fn scaled_residual<'a>(x: &'a Tensor, scale: &'a Option<Tensor>) -> Epilogue<'a> {
    Epilogue { scale: scale.as_ref(), ..Epilogue::residual(x) }
}
