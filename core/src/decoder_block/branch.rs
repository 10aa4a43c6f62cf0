//! What stands around a branch of a block: the norms, the residual stream and its scale.

use super::pass::Pass;
use super::plan::{BlockPlan, BranchNorms};
use crate::backend::Backend;
use crate::frozen::{Epilogue, FrozenLinear};
use crate::ops::Norm;
use crate::weights::{WeightError, Weights};
use candle_core::Tensor;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// What follows a branch's last product y: `sum(residual + scale after(y))`.
#[derive(Debug)]
pub(super) struct BranchEnd {
    after: Option<Norm>,
    scale: Option<f64>,
    backend: Backend,
    pub sum: Option<Norm>,
}

/// The norms of a branch with `names`, as (before, end).
pub(super) fn load(
    names: &BranchNorms,
    plan: &BlockPlan,
    w: &Weights,
) -> Result<(Option<Norm>, BranchEnd), WeightError> {
    let norm = |name: Option<&str>| {
        name.map(|name| Norm::load(plan.norm.kind, &w.pp(name), plan.width, plan.norm.eps)).transpose()
    };
    let end = BranchEnd {
        after: norm(names.after)?,
        scale: plan.residual_scale,
        backend: w.backend(),
        sum: norm(names.sum)?,
    };
    Ok((norm(names.before)?, end))
}

impl BranchEnd {
    /// Whether the branch's product is added as it is.
    pub fn is_plain(&self) -> bool {
        self.after.is_none() && self.scale.is_none()
    }

    /// The branch whose last product is that of `layer` over h, without the norm of the sum; `last` says that the block
    /// ends there or only adds up.
    pub fn product(
        &self,
        layer: &FrozenLinear,
        h: &Tensor,
        residual: &Tensor,
        pass: &mut Pass,
        last: bool,
    ) -> Result<Tensor> {
        if !self.is_plain() {
            let y = pass.product(layer, h, Epilogue::NONE)?;
            return self.add(&y, residual, pass, last);
        }
        if last { pass.last_product(layer, h, residual) } else { pass.product(layer, h, Epilogue::residual(residual)) }
    }

    /// `residual + scale after(y)`.
    pub fn add(&self, y: &Tensor, residual: &Tensor, pass: &Pass, last: bool) -> Result<Tensor> {
        let y = match &self.after {
            Some(norm) if last => pass.last_normed(norm, y)?,
            Some(norm) => norm.forward(y)?,
            None => y.clone(),
        };
        let y = match self.scale {
            Some(scale) => (y * scale)?,
            None => y,
        };
        if last { pass.last_sum(self.backend, residual, &y) } else { residual + y }
    }

    /// The sum behind its norm.
    pub fn normed(&self, sum: Tensor) -> Result<Tensor> {
        self.sum.as_ref().map_or(Ok(sum.clone()), |norm| norm.forward(&sum))
    }
}
