//! AdamW over named variables, whose state is saved by name; clipping by the global norm.
//!
//! Sources followed: `torch.optim.AdamW` (single tensor, f32) and `torch.nn.utils.clip_grad_norm_`.
//! Own code, because the state must be saved and restored bit for bit, which candle-nn's optimiser does not allow.

use anyhow::{Context, Result, bail};
use candle_core::{Tensor, Var};
use limber_core::weights::FrozenData;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Numbers of AdamW that stay the same over a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the first and second moment.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// Gradients by the name of their variable, summed over micro-batches.
pub type Gradients = BTreeMap<String, Vec<f32>>;

/// The optimiser and its state.
pub struct Optimizer {
    settings: AdamW,
    variables: BTreeMap<String, Var>,
    /// Moments of every variable, flat.
    moments: BTreeMap<String, Moments>,
    /// Steps taken.
    steps: u64,
}

#[derive(Debug, Clone, PartialEq)]
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Optimizer {
    /// An optimiser of these variables, each f32, with moments of 0.
    pub fn new(settings: AdamW, variables: BTreeMap<String, Var>) -> Self {
        let zeros = |var: &Var| Moments { first: vec![0.0; var.elem_count()], second: vec![0.0; var.elem_count()] };
        let moments = variables.iter().map(|(name, var)| (name.clone(), zeros(var))).collect();
        Self { settings, variables, moments, steps: 0 }
    }

    /// The variables.
    pub fn variables(&self) -> &BTreeMap<String, Var> {
        &self.variables
    }

    /// Adds the gradients of one backward pass to `sums`.
    ///
    /// # Errors
    /// A variable that got no gradient: the graph is cut somewhere, and training would not notice.
    pub fn gather(&self, grads: &candle_core::backprop::GradStore, sums: &mut Gradients) -> Result<()> {
        for (name, var) in &self.variables {
            let Some(gradient) = grads.get(var.as_tensor()) else {
                bail!("the stitch's variable {name:?} gets no gradient; the decoder or the stitch cuts the graph")
            };
            let values = gradient.flatten_all()?.to_vec1::<f32>()?;
            match sums.get_mut(name) {
                Some(sum) => sum.par_iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
                None => drop(sums.insert(name.clone(), values)),
            }
        }
        Ok(())
    }

    /// One step of learning rate `lr`.
    ///
    /// # Errors
    /// Gradients of other variables than this optimiser's.
    pub fn step(&mut self, gradients: &Gradients, lr: f64) -> Result<()> {
        self.steps += 1;
        let AdamW { betas: [b1, b2], eps, weight_decay } = self.settings;
        let correction1 = 1.0 - b1.powf(self.steps as f64);
        let correction2 = (1.0 - b2.powf(self.steps as f64)).sqrt();
        let (step_size, keep) = ((lr / correction1) as f32, (1.0 - lr * weight_decay) as f32);
        for (name, var) in &self.variables {
            let gradient = gradients.get(name).with_context(|| format!("no gradient of {name:?}"))?;
            let moments = self.moments.get_mut(name).with_context(|| format!("no moments of {name:?}"))?;
            let mut values = var.flatten_all()?.to_vec1::<f32>()?;
            let all = values.par_iter_mut().zip(gradient).zip(&mut moments.first).zip(&mut moments.second);
            all.for_each(|(((value, g), m), v)| {
                *value *= keep;
                // torch's `lerp_`: m + (g - m) (1 - b1).
                *m += (g - *m) * (1.0 - b1) as f32;
                *v = *v * b2 as f32 + (1.0 - b2) as f32 * g * g;
                let root = v.sqrt() / correction2 as f32 + eps as f32;
                *value -= step_size * *m / root;
            });
            var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
        }
        Ok(())
    }

    /// The state as tensors: `first.NAME` and `second.NAME`, each of the variable's shape.
    pub fn state(&self) -> BTreeMap<String, FrozenData> {
        let mut state = BTreeMap::new();
        for (name, Moments { first, second }) in &self.moments {
            let shape = self.variables[name].dims();
            state.insert(format!("first.{name}"), FrozenData::from_f32(first.clone(), shape));
            state.insert(format!("second.{name}"), FrozenData::from_f32(second.clone(), shape));
        }
        state
    }

    /// Takes up a state after `steps` steps; `read` gives the tensor of a name and shape.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn restore(&mut self, steps: u64, read: impl Fn(&str, &[usize]) -> Result<Vec<f32>>) -> Result<()> {
        for (name, moments) in &mut self.moments {
            let shape = self.variables[name].dims();
            moments.first = read(&format!("first.{name}"), shape)?;
            moments.second = read(&format!("second.{name}"), shape)?;
        }
        self.steps = steps;
        Ok(())
    }
}

/// Multiplies all gradients.
pub fn scale(gradients: &mut Gradients, factor: f32) {
    for values in gradients.values_mut() {
        values.par_iter_mut().for_each(|value| *value *= factor);
    }
}

/// The norm of all gradients together, summed in f64 and in one order whatever the threads.
pub fn norm(gradients: &Gradients) -> f64 {
    let parts = |values: &Vec<f32>| -> f64 {
        let sums: Vec<f64> =
            values.par_chunks(1 << 14).map(|part| part.iter().map(|x| f64::from(*x).powi(2)).sum()).collect();
        sums.iter().sum()
    };
    gradients.values().map(parts).sum::<f64>().sqrt()
}

/// Scales gradients down to a global norm of `limit` (0 does not clip); the norm before.
pub fn clip(gradients: &mut Gradients, limit: f64) -> f64 {
    let before = norm(gradients);
    // As PyTorch: a norm of 0 divides nothing by 0, and a norm below the limit changes nothing.
    let factor = limit / (before + 1e-6);
    if limit > 0.0 && factor < 1.0 {
        scale(gradients, factor as f32);
    }
    before
}
