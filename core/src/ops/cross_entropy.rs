//! Cross-entropy of each row's target, with a backward: one pass over the logits each way, rows over all threads.
//!
//! Followed: `torch.nn.functional.cross_entropy(reduction="none")`; the sum over V is taken in f64.

use super::kernel_node::{self, Kernel, width};
use candle_core::{D, Result, Shape, Tensor};
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
        return kernel_node::apply(logits, CrossEntropy(targets.into()));
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

/// Of each row's target; the backward pass is gx = (softmax(x) - onehot) gy.
#[derive(Clone)]
struct CrossEntropy(Arc<[u32]>);

impl Kernel for CrossEntropy {
    const NAME: &'static str = "cross-entropy";
    const GRADIENT: &'static str = "cross-entropy-gradient";

    fn forward(&self, x: &[f32], shape: &Shape) -> Result<Vec<f32>> {
        let losses = x.par_chunks(width(shape)).zip(self.0.par_iter()).map(|(row, target)| {
            let (max, log) = log_sum(row);
            (log - f64::from(row[*target as usize] - max)) as f32
        });
        Ok(losses.collect())
    }

    fn input_gradient(&self, x: &[f32], shape: &Shape, gy: &[f32]) -> Result<Vec<f32>> {
        let (v, mut gx) = (width(shape), vec![0f32; x.len()]);
        let rows = gx.par_chunks_mut(v).zip(x.par_chunks(v)).zip(self.0.par_iter().zip(gy));
        rows.for_each(|((gx, x), (target, gy))| {
            let (max, log) = log_sum(x);
            for (g, x) in gx.iter_mut().zip(x) {
                *g = gy * (f64::from(x - max) - log).exp() as f32;
            }
            gx[*target as usize] -= gy;
        });
        Ok(gx)
    }

    fn output(&self, shape: &Shape) -> Result<Shape> {
        Ok(Shape::from(shape.dims2()?.0))
    }
}
