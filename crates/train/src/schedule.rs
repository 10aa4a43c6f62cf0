//! The learning rate of each step, counted from 0.
//!
//! Sources followed: DeepSpeed's `WarmupLR` and `WarmupDecayLR` (`deepspeed/runtime/lr_schedules.py`), whose warm-up
//! is logarithmic or linear; the cosine is that of SGDR without restarts (Loshchilov and Hutter 2017).

use limber_config::{Schedule, Train, Warmup};
use std::f64::consts::PI;

/// The learning rate of step `step`.
pub fn learning_rate(train: &Train, step: usize) -> f64 {
    // DeepSpeed takes at least two steps of warm-up, so that the logarithm is not 0; the cosine is none of its.
    let warmup = if train.schedule == Schedule::Cosine { train.warmup } else { train.warmup.max(2) };
    let (s, last, steps) = (step as f64, warmup as f64, train.steps as f64);
    if train.schedule == Schedule::Constant {
        return train.lr;
    }
    if step < warmup {
        let gamma = match train.warmup_type {
            Warmup::Log => (s + 1.0).ln() / last.max(2.0).ln(),
            Warmup::Linear => s / last.max(2.0),
        };
        return train.min_lr + (train.lr - train.min_lr) * gamma;
    }
    // 1 at the end of the warm-up, 0 at the last step and beyond.
    let left = ((steps - s) / (steps - last).max(1.0)).clamp(0.0, 1.0);
    match train.schedule {
        Schedule::Constant | Schedule::Warmup => train.lr,
        Schedule::WarmupDecay => train.lr * left,
        Schedule::Cosine => train.min_lr + (train.lr - train.min_lr) * 0.5 * (1.0 + (PI * (1.0 - left)).cos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_warm_ups_are_deepspeeds() {
        for warmup in [0, 1, 2] {
            let train = Train { steps: 4, lr: 8e-4, warmup, ..Train::default() };
            let rates: Vec<f64> = (0..4).map(|step| learning_rate(&train, step)).collect();
            assert_eq!(rates, [0.0, 8e-4, 8e-4, 4e-4], "{warmup}");
        }
        let train = Train { steps: 4, lr: 1.0, warmup: 0, schedule: Schedule::Cosine, ..Train::default() };
        assert_eq!(learning_rate(&train, 0), 1.0);
    }
}
