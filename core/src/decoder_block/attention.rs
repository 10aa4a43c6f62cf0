//! The attention of a block: projections, query and key norms, rotary embedding, scores, mixture.

use super::pass::Pass;
use super::plan::{AttentionPlan, FusedLayout, NormPlan, ProjectionPlan};
use crate::backend::Backend;
use crate::decoder::Run;
use crate::frozen::FrozenLinear;
use crate::gather::gather;
use crate::layers::At;
use crate::ops::{CausalAttention, Heads, Norm, Rotary};
use crate::weights::{WeightError, Weights};
use candle_core::Tensor;

type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// Attention over x `[B, T, D]`, with its weights.
#[derive(Debug)]
pub(super) struct SelfAttention {
    backend: Backend,
    attention: CausalAttention,
    projections: Projections,
    pub out: FrozenLinear,
    norms: Option<HeadNorms>,
    rotary: Option<Rotary>,
}

#[derive(Debug)]
enum Projections {
    Split(Box<[FrozenLinear; 3]>),
    Fused(FrozenLinear, FusedLayout),
}

#[derive(Debug)]
struct HeadNorms {
    q: Norm,
    k: Norm,
    per_head: bool,
}

impl SelfAttention {
    pub fn load(plan: &AttentionPlan, width: usize, w: &Weights) -> Result<Self, WeightError> {
        let Heads { queries, keys, dim, .. } = plan.attention.heads;
        let projections = match plan.projections {
            ProjectionPlan::Split { q, k, v } => Projections::Split(Box::new([
                q.load(w, width, queries * dim)?,
                k.load(w, width, keys * dim)?,
                v.load(w, width, keys * dim)?,
            ])),
            ProjectionPlan::Fused { qkv, layout } => {
                Projections::Fused(qkv.load(w, width, (queries + 2 * keys) * dim)?, layout)
            }
        };
        let norms = match plan.query_key_norm {
            None => None,
            Some(names) => {
                let NormPlan { kind, eps } = names.norm;
                let norm = |name: &str, heads: usize| {
                    Norm::load(kind, &w.pp(name), if names.per_head { dim } else { heads * dim }, eps)
                };
                Some(HeadNorms { q: norm(names.q, queries)?, k: norm(names.k, keys)?, per_head: names.per_head })
            }
        };
        Ok(Self {
            backend: w.backend(),
            attention: plan.attention.clone(),
            projections,
            out: plan.out.load(w, queries * dim, width)?,
            norms,
            rotary: plan.rotary.clone(),
        })
    }

    /// The layers over the block's input.
    pub fn layers(&self) -> Vec<&FrozenLinear> {
        match &self.projections {
            Projections::Split(layers) => layers.iter().collect(),
            Projections::Fused(layer, _) => vec![layer],
        }
    }

    /// What [`Self::layers`] gave to `[.., H * dim]`: at the rows wanted alone. `last` says that only sums follow the out
    /// projection.
    pub fn attend(&self, projected: Vec<Tensor>, at: At, run: &mut Run, pass: &Pass, last: bool) -> Result<Tensor> {
        let [q, k, v] = self.heads(projected)?;
        let (b, t, ..) = q.dims4()?;
        let [q, k] = match &self.norms {
            None => [q, k],
            Some(norms) => [norms.apply(&norms.q, &q)?, norms.apply(&norms.k, &k)?],
        };
        let [q, k] = match &self.rotary {
            None => [q, k],
            Some(rotary) => {
                let lengths = run.row_lengths(b, t)?;
                let rotate = |x: &Tensor| pass.rotated(self.backend, rotary, x, at.past, &lengths);
                [rotate(&q)?, rotate(&k)?]
            }
        };
        let used = pass.attention(last);
        let y = self.attention.forward_on(self.backend, at.index, [&q, &k, &v], run, used)?;
        gather(&y, at.rows)
    }

    /// Queries `[B, T, H, dim]`, keys and values `[B, T, keys, dim]`.
    fn heads(&self, mut projected: Vec<Tensor>) -> Result<[Tensor; 3]> {
        let Heads { queries, keys, dim, .. } = self.attention.heads;
        let (Some(last), first) = (projected.pop(), projected) else { candle_core::bail!("attention without values") };
        let (b, t, _) = last.dims3()?;
        match (&self.projections, first.as_slice()) {
            (Projections::Split(_), [q, k]) => {
                Ok([q.reshape((b, t, queries, dim))?, k.reshape((b, t, keys, dim))?, last.reshape((b, t, keys, dim))?])
            }
            (Projections::Fused(_, FusedLayout::Concatenated), []) => {
                let all = last.reshape((b, t, queries + 2 * keys, dim))?;
                Ok([all.narrow(2, 0, queries)?, all.narrow(2, queries, keys)?, all.narrow(2, queries + keys, keys)?])
            }
            (Projections::Fused(_, FusedLayout::Grouped), []) => {
                let group = queries / keys.max(1);
                let all = last.reshape((b, t, keys, group + 2, dim))?;
                let q = match group {
                    1 => all.narrow(3, 0, 1)?.squeeze(3)?,
                    _ => all.narrow(3, 0, group)?.reshape((b, t, queries, dim))?,
                };
                Ok([q, all.narrow(3, group, 1)?.squeeze(3)?, all.narrow(3, group + 1, 1)?.squeeze(3)?])
            }
            (_, others) => candle_core::bail!("{} projections for attention", others.len() + 1),
        }
    }
}

impl HeadNorms {
    /// x `[B, T, H, dim]` behind one of the norms.
    fn apply(&self, norm: &Norm, x: &Tensor) -> Result<Tensor> {
        if self.per_head {
            return norm.forward(x);
        }
        norm.forward(&x.flatten_from(2)?)?.reshape(x.dims())
    }
}
