//! The MLP of a block, plain or gated, in two halves: to the hidden layer, and back onto the residual stream.

use super::branch::BranchEnd;
use super::pass::Pass;
use super::plan::{MlpLayers, MlpPlan};
use crate::backend::Backend;
use crate::frozen::{Epilogue, FrozenLinear, Hidden, Mlp};
use crate::ops::Activation;
use crate::weights::{WeightError, Weights};
use candle_core::{D, Tensor};

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// An MLP over x `[.., D]`, with its weights.
#[derive(Debug)]
pub(super) enum BlockMlp {
    /// Plain and on the kernels, whose gradient keeps the pre-activation alone.
    Fused(Mlp),
    /// From products and operations of their own.
    Composed { first: First, activation: Activation, down: FrozenLinear, backend: Backend },
}

#[derive(Debug)]
pub(super) enum First {
    Plain(FrozenLinear),
    Gated(FrozenLinear, FrozenLinear),
    GatedFused(FrozenLinear),
}

/// The hidden layer.
pub(super) enum HiddenLayer {
    Fused(Hidden),
    Composed(Tensor),
}

impl BlockMlp {
    pub fn load(plan: &MlpPlan, width: usize, w: &Weights) -> Result<Self, WeightError> {
        let (inner, activation, backend) = (plan.inner, plan.activation, w.backend());
        let down = plan.down.load(w, inner, width)?;
        let first = match plan.layers {
            MlpLayers::Plain { up } => {
                let up = up.load(w, width, inner)?;
                if backend.is_kernels() {
                    return Ok(Self::Fused(Mlp::new(up, activation, down)));
                }
                First::Plain(up)
            }
            MlpLayers::Gated { gate, up } => First::Gated(gate.load(w, width, inner)?, up.load(w, width, inner)?),
            MlpLayers::GatedFused { gate_up } => First::GatedFused(gate_up.load(w, width, 2 * inner)?),
        };
        Ok(Self::Composed { first, activation, down, backend })
    }

    /// The MLP as one of the kernels, which can share its pass over the input.
    pub fn fused(&self) -> Option<&Mlp> {
        match self {
            Self::Fused(mlp) => Some(mlp),
            Self::Composed { .. } => None,
        }
    }

    /// x `[.., D]` f32 to the hidden layer.
    pub fn hidden(&self, x: &Tensor, pass: &mut Pass) -> Result<HiddenLayer> {
        let (first, activation, backend) = match self {
            Self::Fused(mlp) => return Ok(HiddenLayer::Fused(pass.products_and_hidden(&[], mlp, x)?.1)),
            Self::Composed { first, activation, backend, .. } => (first, *activation, *backend),
        };
        let activated = Epilogue::activation(activation);
        Ok(HiddenLayer::Composed(match first {
            First::Plain(up) => pass.product(up, x, activated)?,
            First::Gated(gate, up) => match pass.products(&[(gate, activated), (up, Epilogue::NONE)], x)?.as_slice() {
                [gate, up] => (gate * up)?,
                others => candle_core::bail!("{} outputs of a gated mlp", others.len()),
            },
            First::GatedFused(both) => {
                let both = pass.product(both, x, Epilogue::NONE)?;
                let inner = both.dim(D::Minus1)? / 2;
                let gate = activation.apply_on(backend, &both.narrow(D::Minus1, 0, inner)?.contiguous()?)?;
                (gate * both.narrow(D::Minus1, inner, inner)?)?
            }
        }))
    }

    /// The hidden layer back onto the residual stream, by way of what the branch ends in.
    pub fn out(
        &self,
        hidden: HiddenLayer,
        residual: &Tensor,
        end: &BranchEnd,
        pass: &mut Pass,
        last: bool,
    ) -> Result<Tensor> {
        match (self, hidden) {
            (Self::Composed { down, .. }, HiddenLayer::Composed(h)) => end.product(down, &h, residual, pass, last),
            (Self::Fused(mlp), HiddenLayer::Fused(hidden)) => {
                if !end.is_plain() {
                    let y = pass.mlp(mlp, hidden, None)?;
                    return end.add(&y, residual, pass, last);
                }
                if last { pass.last_mlp(mlp, hidden, residual) } else { pass.mlp(mlp, hidden, Some(residual)) }
            }
            _ => candle_core::bail!("the hidden layer of another mlp"),
        }
    }
}
