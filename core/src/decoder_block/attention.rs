//! The attention of a block: projections, query and key norms, rotary embedding, scores, mixture.

use super::pass::Pass;
use super::plan::{AttentionPlan, FusedLayout, NormPlan, NormScope, ProjectionPlan};
use crate::backend::Backend;
use crate::decoder::Run;
use crate::frozen::FrozenLinear;
use crate::gather::gather_on;
use crate::graph::node;
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
    clip: Option<f64>,
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
    q: ScopedNorm,
    k: ScopedNorm,
}

/// A norm of queries or keys `[B, T, H, dim]`.
#[derive(Debug)]
enum ScopedNorm {
    Head(Norm),
    EachHead(Vec<Norm>),
    AllHeads(Norm),
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
                let norm = |name: &str, heads: usize| -> Result<_, WeightError> {
                    let (w, load) = (w.pp(name), |w: &Weights, width| Norm::load(kind, w, width, eps));
                    Ok(match names.scope {
                        NormScope::Head => ScopedNorm::Head(load(&w, dim)?),
                        NormScope::AllHeads => ScopedNorm::AllHeads(load(&w, heads * dim)?),
                        NormScope::EachHead => {
                            let one = |head| load(&w.pp(format!("norms.{head}")), dim);
                            ScopedNorm::EachHead((0..heads).map(one).collect::<Result<_, _>>()?)
                        }
                    })
                };
                Some(HeadNorms { q: norm(names.q, queries)?, k: norm(names.k, keys)? })
            }
        };
        Ok(Self {
            backend: w.backend(),
            attention: plan.attention.clone(),
            projections,
            clip: plan.clip,
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
        let [q, k, v] = match self.clip {
            None => [q, k, v],
            Some(limit) => [clamp(&q, limit)?, clamp(&k, limit)?, clamp(&v, limit)?],
        };
        let (b, t, ..) = q.dims4()?;
        let [q, k] = match &self.norms {
            None => [q, k],
            Some(norms) => [norms.q.forward(&q)?, norms.k.forward(&k)?],
        };
        let [q, k] = match &self.rotary {
            None => [q, k],
            Some(rotary) => {
                let lengths = run.sequence_lengths(b, t)?;
                let rotate = |x: &Tensor| pass.rotated(self.backend, rotary, x, at.past, &lengths);
                [rotate(&q)?, rotate(&k)?]
            }
        };
        let used = pass.attention(last);
        let y = self.attention.forward_on(self.backend, at.index, [&q, &k, &v], run, used)?;
        gather_on(self.backend, &y, at.rows)
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

impl ScopedNorm {
    /// x `[B, T, H, dim]` f32 behind the norm.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Head(norm) => norm.forward(x),
            Self::AllHeads(norm) => norm.forward(&x.flatten_from(2)?)?.reshape(x.dims()),
            Self::EachHead(norms) => {
                let one = |(head, norm): (usize, &Norm)| norm.forward(&x.narrow(2, head, 1)?);
                Tensor::cat(&norms.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?, 2)
            }
        }
    }
}

/// x f32 within `limit` on both sides of 0; the gradient flows where it is.
fn clamp(x: &Tensor, limit: f64) -> Result<Tensor> {
    let values = x.detach();
    let clamped = values.clamp(-limit, limit)?;
    node("clamp", x, clamped, move |grad| grad * values.abs()?.le(limit)?.to_dtype(grad.dtype())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn what_is_clipped_has_no_gradient() {
        let x = Var::new(&[-1f32, -0.4, 0.2, 0.9], &Device::Cpu).unwrap();
        let y = clamp(x.as_tensor(), 0.4).unwrap();
        assert_eq!(y.to_vec1::<f32>().unwrap(), [-0.4, -0.4, 0.2, 0.4]);
        let grads = (y * 3.0).unwrap().sum_all().unwrap().backward().unwrap();
        let grad = grads.get(x.as_tensor()).unwrap().to_vec1::<f32>().unwrap();
        // At the edge it has, as in PyTorch.
        assert_eq!(grad, [0.0, 3.0, 3.0, 0.0]);
    }
}
