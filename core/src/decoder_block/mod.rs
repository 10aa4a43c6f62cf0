//! The decoder block: attention and MLP between norms on a residual stream, as nearly all published language models have it.
//!
//! A model is sizes, names and the order of operations ([`BlockPlan`]); forward, cached forward and the checkpointed
//! backward pass are written once, here, for the kernels and for candle's operations. No gradient of a weight is computed.
//! Sources followed: transformers' `modeling_*.py` of the families; llama.cpp's `llama-graph.cpp` for what they share.

mod attention;
mod branch;
mod mlp;
pub(crate) mod pass;
mod plan;

pub use plan::{
    AttentionPlan, BlockPlan, BranchNorms, FusedLayout, MatrixPlan, MlpLayers, MlpPlan, NormPlan, NormScope,
    ProjectionPlan, QueryKeyNorm,
};

use crate::backend::Backend;
use crate::decoder::Run;
use crate::frozen::Epilogue;
use crate::gather::gather_on;
use crate::layers::{At, Layer, Stage};
use crate::ops::Norm;
use crate::weights::{WeightError, Weights};
use attention::SelfAttention;
use branch::BranchEnd;
use candle_core::Tensor;
use mlp::{BlockMlp, HiddenLayer};
use pass::Pass;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// One block: x `[B, T, D]` to `[B, T, D]`, with its weights.
///
/// A model of such blocks alone is a [`ModelPlan`](crate::decoder_model::ModelPlan) and needs no code. For one that has
/// others beside them, or another way around them, this is a [`Layer`] that [`Layers`](crate::Layers) runs, and that a
/// layer of one's own can hold; selective activation checkpointing is full there.
///
/// ```
/// use candle_core::{Result, Tensor};
/// use limber_core::decoder_block::*;
/// use limber_core::ops::{Activation, CausalAttention, Heads, NormKind, Rotary, RotaryStyle};
/// use limber_core::{DecoderBlock, DecoderSpec, Init, Layer, Layers, LogitPositions, Run, Weights};
///
/// /// The usual block, whose output counts half.
/// struct Halved(DecoderBlock);
///
/// impl Layer for Halved {
///     fn forward(&self, i: usize, x: &Tensor, past: &[usize], run: &mut Run, rows: Option<&Tensor>) -> Result<Tensor> {
///         self.0.forward(i, x, past, run, rows)? * 0.5
///     }
/// }
///
/// # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// let matrix = |name| MatrixPlan::new(name, Init::normal(0.1));
/// let plan = BlockPlan {
///     width: 8,
///     norm: NormPlan { kind: NormKind::Rms, eps: 1e-5 },
///     attention_norms: BranchNorms::before("norm1"),
///     attention: AttentionPlan {
///         attention: CausalAttention::new(Heads::new(2, 1, 4)),
///         projections: ProjectionPlan::Split { q: matrix("q"), k: matrix("k"), v: matrix("v") },
///         clip: None,
///         out: matrix("out"),
///         query_key_norm: None,
///         rotary: Some(Rotary::new(4, 32, 10_000.0, RotaryStyle::Half)),
///     },
///     mlp_norms: BranchNorms::before("norm2"),
///     mlp: MlpPlan {
///         inner: 16,
///         activation: Activation::Silu,
///         layers: MlpLayers::Gated { gate: matrix("gate"), up: matrix("up") },
///         down: matrix("down"),
///     },
///     parallel: false,
///     residual_scale: None,
/// };
/// let spec = DecoderSpec { width: 8, vocab: 8, layers: 2, kv_heads: 1, head_dim: 4, context: 32, eos: vec![] };
/// let weights = Weights::random(1);
/// let block = |i: usize| Ok(Halved(DecoderBlock::load(&plan, &weights.pp(i))?));
/// let blocks = (0..2).map(block).collect::<std::result::Result<Vec<_>, limber_core::weights::WeightError>>()?;
/// let layers = Layers::new(spec, blocks);
///
/// let embeds = Weights::random(2).tensor("x", &[1, 5, 8], Init::normal(1.0))?;
/// let mut run = Run { logits: LogitPositions::Last, ..Run::new() };
/// let past = layers.start(&embeds, &run)?;
/// let hidden = layers.run(&embeds, &past, &mut run, |x| Ok(x.clone()), |x| Ok(x.clone()))?;
/// assert_eq!(hidden.dims(), [1, 8]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DecoderBlock {
    attention_norm: Option<Norm>,
    attention: SelfAttention,
    attention_end: BranchEnd,
    mlp_norm: Option<Norm>,
    mlp: BlockMlp,
    mlp_end: BranchEnd,
    parallel: bool,
    backend: Backend,
}

impl DecoderBlock {
    /// The block of `plan` whose tensors stand under `weights`.
    ///
    /// # Errors
    /// Weights that are missing or of another shape; a parallel block with a norm of a branch's sum, which has no order.
    pub fn load(plan: &BlockPlan, weights: &Weights) -> Result<Self, WeightError> {
        if plan.parallel && (plan.attention_norms.sum.is_some() || plan.mlp_norms.sum.is_some()) {
            let message =
                "a parallel block with a norm of a branch's sum, expected norms before the branches".to_string();
            return Err(WeightError::Read { source_label: weights.source().label(), message });
        }
        let (attention_norm, attention_end) = branch::load(&plan.attention_norms, plan, weights)?;
        let (mlp_norm, mlp_end) = branch::load(&plan.mlp_norms, plan, weights)?;
        Ok(Self {
            attention_norm,
            attention: SelfAttention::load(&plan.attention, plan.width, weights)?,
            attention_end,
            mlp_norm,
            mlp: BlockMlp::load(&plan.mlp, plan.width, weights)?,
            mlp_end,
            parallel: plan.parallel,
            backend: weights.backend(),
        })
    }

    /// x + attention(norm(x)), then that + mlp(norm(that)).
    fn serial(&self, x: &Tensor, at: At, run: &mut Run, pass: &mut Pass) -> Result<Tensor> {
        let normed = before(&self.attention_norm, x, pass)?;
        let projected = self.project(&normed, pass)?;
        let attended = self.attention.attend(projected, at, run, pass, false)?;
        let residual = gather_on(self.backend, x, at.rows)?;
        let x = self.attention_end.product(&self.attention.out, &attended, &residual, pass, false)?;
        let x = self.attention_end.normed(x)?;
        let hidden = self.mlp.hidden(&before(&self.mlp_norm, &x, pass)?, pass)?;
        let last = self.mlp_end.sum.is_none();
        self.mlp_end.normed(self.mlp.out(hidden, &x, &self.mlp_end, pass, last)?)
    }

    /// x + attention(norm(x)) + mlp(norm'(x)).
    fn side_by_side(&self, x: &Tensor, at: At, run: &mut Run, pass: &mut Pass) -> Result<Tensor> {
        let normed = before(&self.attention_norm, x, pass)?;
        let residual = gather_on(self.backend, x, at.rows)?;
        let (projected, hidden) = match (self.mlp.fused(), &self.mlp_norm, at.rows) {
            (Some(mlp), None, None) => {
                let (projected, hidden) = pass.products_and_hidden(&self.attention.layers(), mlp, &normed)?;
                (projected, HiddenLayer::Fused(hidden))
            }
            (_, own, rows) => {
                let projected = self.project(&normed, pass)?;
                let input = match own {
                    Some(norm) => pass.normed(norm, &residual)?,
                    None => gather_on(self.backend, &normed, rows)?,
                };
                (projected, self.mlp.hidden(&input, pass)?)
            }
        };
        let attended = self.attention.attend(projected, at, run, pass, self.attention_end.is_plain())?;
        let x = self.attention_end.product(&self.attention.out, &attended, &residual, pass, true)?;
        self.mlp.out(hidden, &x, &self.mlp_end, pass, true)
    }

    fn project(&self, normed: &Tensor, pass: &mut Pass) -> Result<Vec<Tensor>> {
        let layers: Vec<_> = self.attention.layers().into_iter().map(|layer| (layer, Epilogue::NONE)).collect();
        pass.products(&layers, normed)
    }
}

/// x behind the norm before a branch.
fn before(norm: &Option<Norm>, x: &Tensor, pass: &Pass) -> Result<Tensor> {
    norm.as_ref().map_or(Ok(x.clone()), |norm| pass.normed(norm, x))
}

impl Layer for DecoderBlock {
    fn forward(
        &self,
        index: usize,
        x: &Tensor,
        past: &[usize],
        run: &mut Run,
        rows: Option<&Tensor>,
    ) -> Result<Tensor> {
        Stage::forward(self, x, At { index, past, rows }, run, &mut Pass::Forward)
    }
}

impl Stage for DecoderBlock {
    const IS_OURS: bool = true;

    fn backend(&self) -> Option<Backend> {
        Some(self.backend)
    }

    fn forward(&self, x: &Tensor, at: At, run: &mut Run, pass: &mut Pass) -> Result<Tensor> {
        if self.parallel { self.side_by_side(x, at, run, pass) } else { self.serial(x, at, run, pass) }
    }
}

#[cfg(test)]
mod tests;
