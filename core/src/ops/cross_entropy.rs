//! Cross-entropy of each row's target, with a backward: one pass over the logits each way, rows over all threads.
//!
//! Followed: `torch.nn.functional.cross_entropy(reduction="none")`; the sum over V is taken in f64.

use crate::frozen::contiguous_f32;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::sync::Arc;

/// Logits `[n, V]` f32 and n targets to -log p of each target, `[n]` f32.
///
/// # Errors
/// Another number of targets than rows, a target that is no row of V.
pub fn cross_entropy(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let (n, v) = logits.dims2()?;
    if targets.len() != n {
        candle_core::bail!("{} targets for {n} rows of logits", targets.len())
    }
    if let Some(bad) = targets.iter().find(|id| **id as usize >= v) {
        candle_core::bail!("target {bad} is not in 0..{v}")
    }
    if logits.device().is_cpu() {
        return logits.contiguous()?.apply_op1(Forward(targets.into()));
    }
    let max = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&max)?;
    let index = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    let picked = shifted.gather(&index, 1)?.squeeze(1)?;
    shifted.exp()?.sum(1)?.log()?.sub(&picked)
}

/// The largest logit and the logarithm of the sum of all exponentials relative to it.
fn log_sum(row: &[f32]) -> (f32, f64) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from((x - max).exp())).sum();
    (max, sum.ln())
}

struct Forward(Arc<[u32]>);

impl CustomOp1 for Forward {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(self.name(), storage, layout)?;
        let (n, v) = layout.shape().dims2()?;
        let losses = x.par_chunks(v.max(1)).zip(self.0.par_iter()).map(|(row, target)| {
            let (max, log) = log_sum(row);
            (log - f64::from(row[*target as usize] - max)) as f32
        });
        Ok((CpuStorage::F32(losses.collect()), Shape::from(n)))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(arg.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &Backward(self.0.clone()))?))
    }
}

/// gx = (softmax(x) - onehot) gy.
struct Backward(Arc<[u32]>);

impl CustomOp2 for Backward {
    fn name(&self) -> &'static str {
        "cross-entropy-gradient"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = contiguous_f32(self.name(), s1, l1)?;
        let gy = contiguous_f32(self.name(), s2, l2)?;
        let (_, v) = l1.shape().dims2()?;
        let mut gx = vec![0f32; x.len()];
        let rows = gx.par_chunks_mut(v.max(1)).zip(x.par_chunks(v.max(1))).zip(self.0.par_iter().zip(gy));
        rows.for_each(|((gx, x), (target, gy))| {
            let (max, log) = log_sum(x);
            for (g, x) in gx.iter_mut().zip(x) {
                *g = gy * (f64::from(x - max) - log).exp() as f32;
            }
            gx[*target as usize] -= gy;
        });
        Ok((CpuStorage::F32(gx), l1.shape().clone()))
    }
}
