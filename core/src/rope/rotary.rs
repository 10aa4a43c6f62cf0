//! The frequencies of heads whose `config.json` scales them.

use super::scaling::{RopeScaling, sharpening};
use crate::ops::{Growth, Rotary, RotaryStyle, frequencies};
use std::f64::consts::PI;

/// The rotary embedding, in halves, of the first `dim` elements of heads of a model with `max_position_embeddings`
/// positions.
pub fn rotary(dim: usize, theta: f64, scaling: Option<&RopeScaling>, max_position_embeddings: usize) -> Rotary {
    let plain = frequencies(dim, theta);
    let context = scaling.map_or(max_position_embeddings, |s| s.context(max_position_embeddings));
    let scaled = |scale: &dyn Fn(usize, f64) -> f64| {
        let scaled: Vec<f32> = plain.iter().enumerate().map(|(i, f)| scale(i, f64::from(*f)) as f32).collect();
        Rotary::from_frequencies(&scaled, context, RotaryStyle::Half)
    };
    match scaling {
        None => scaled(&|_, f| f),
        Some(RopeScaling::Linear { factor }) => scaled(&|_, f| f / factor),
        Some(RopeScaling::Dynamic { factor }) => scaled(&|_, f| f).with_growth(Growth::Base {
            dim,
            base: theta,
            factor: *factor,
            trained: max_position_embeddings,
        }),
        Some(RopeScaling::Longrope {
            short_factor,
            long_factor,
            original_max_position_embeddings: trained,
            attention_factor,
        }) => {
            let divided = |i: usize, f: f64, factors: &[f64]| factors.get(i).map_or(f, |factor| f / factor);
            let long = plain.iter().enumerate().map(|(i, f)| divided(i, f64::from(*f), long_factor) as f32).collect();
            let longer = max_position_embeddings as f64 / *trained as f64;
            let sharper = attention_factor.unwrap_or_else(|| {
                if longer <= 1.0 { 1.0 } else { (1.0 + longer.ln() / (*trained as f64).ln()).sqrt() }
            });
            let growth = Growth::Listed { frequencies: long, trained: *trained };
            scaled(&|i, f| divided(i, f, short_factor)).with_factor(sharper).with_growth(growth)
        }
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: trained,
        }) => scaled(&|_, f| {
            let turns = *trained as f64 * f / (2.0 * PI);
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            f / factor * (1.0 - kept) + f * kept
        }),
        Some(RopeScaling::Yarn {
            factor,
            original_max_position_embeddings: trained,
            attention_factor,
            beta_fast,
            beta_slow,
            truncate,
        }) => {
            // The dimension whose frequency turns so many times within the trained length.
            let dimension = |turns: f64| dim as f64 * (*trained as f64 / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
            let (mut low, mut high) = (dimension(*beta_fast), dimension(*beta_slow));
            if *truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(dim as f64 - 1.0));
            if low == high {
                high += 0.001;
            }
            let rotary = scaled(&|i, f| {
                let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                f / factor * divided + f * (1.0 - divided)
            });
            rotary.with_factor(attention_factor.unwrap_or_else(|| sharpening(*factor, 1.0)))
        }
    }
}
