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
    AttentionPlan, BlockPlan, BranchNorms, FusedLayout, MatrixPlan, MlpLayers, MlpPlan, NormPlan, ProjectionPlan,
    QueryKeyNorm,
};

use crate::decoder::Run;
use crate::frozen::Epilogue;
use crate::gather::gather;
use crate::layers::{At, Stage};
use crate::ops::Norm;
use crate::weights::{WeightError, Weights};
use attention::SelfAttention;
use branch::BranchEnd;
use candle_core::Tensor;
use mlp::{BlockMlp, HiddenLayer};
use pass::Pass;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// One block: x `[B, T, D]` to `[B, T, D]`, with its weights.
#[derive(Debug)]
pub struct DecoderBlock {
    attention_norm: Option<Norm>,
    attention: SelfAttention,
    attention_end: BranchEnd,
    mlp_norm: Option<Norm>,
    mlp: BlockMlp,
    mlp_end: BranchEnd,
    parallel: bool,
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
        })
    }

    /// x + attention(norm(x)), then that + mlp(norm(that)).
    fn serial(&self, x: &Tensor, at: At, run: &mut Run, pass: &mut Pass) -> Result<Tensor> {
        let normed = before(&self.attention_norm, x, pass)?;
        let projected = self.project(&normed, pass)?;
        let attended = self.attention.attend(projected, at, run, pass, false)?;
        let residual = gather(x, at.rows)?;
        let x = self.attention_end.product(&self.attention.out, &attended, &residual, pass, false)?;
        let x = self.attention_end.normed(x)?;
        let hidden = self.mlp.hidden(&before(&self.mlp_norm, &x, pass)?, pass)?;
        let last = self.mlp_end.sum.is_none();
        self.mlp_end.normed(self.mlp.out(hidden, &x, &self.mlp_end, pass, last)?)
    }

    /// x + attention(norm(x)) + mlp(norm'(x)).
    fn side_by_side(&self, x: &Tensor, at: At, run: &mut Run, pass: &mut Pass) -> Result<Tensor> {
        let normed = before(&self.attention_norm, x, pass)?;
        let residual = gather(x, at.rows)?;
        let (projected, hidden) = match (self.mlp.fused(), &self.mlp_norm, at.rows) {
            (Some(mlp), None, None) => {
                let (projected, hidden) = pass.products_and_hidden(&self.attention.layers(), mlp, &normed)?;
                (projected, HiddenLayer::Fused(hidden))
            }
            (_, own, rows) => {
                let projected = self.project(&normed, pass)?;
                let input = match own {
                    Some(norm) => pass.normed(norm, &residual)?,
                    None => gather(&normed, rows)?,
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

impl Stage for DecoderBlock {
    const IS_OURS: bool = true;

    fn forward(&self, x: &Tensor, at: At, run: &mut Run, pass: &mut Pass) -> Result<Tensor> {
        if self.parallel { self.side_by_side(x, at, run, pass) } else { self.serial(x, at, run, pass) }
    }
}

#[cfg(test)]
mod tests;
