//! Scaling of rotary frequencies beyond the trained length, in transformers' names, and which numbers are in range.

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Scaling of rotary frequencies, in transformers' names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "rope_type", rename_all = "lowercase", deny_unknown_fields)]
pub enum RopeScaling {
    /// All divided by `factor`.
    Linear {
        /// How many times longer rows become.
        factor: f64,
    },
    /// A base that grows with the length of a row beyond the trained one ("dynamic NTK").
    Dynamic {
        /// How many times longer rows may become.
        factor: f64,
    },
    /// Low ones divided by `factor`, high ones kept, between them a ramp over the turns (Llama 3.1).
    Llama3 {
        /// What low frequencies are divided by.
        factor: f64,
        /// Frequencies that turn fewer times within the trained length are divided.
        low_freq_factor: f64,
        /// Frequencies that turn more often within the trained length are kept.
        high_freq_factor: f64,
        /// Positions that the model was trained with.
        original_max_position_embeddings: usize,
    },
    /// Low ones divided by `factor`, high ones kept, between them a ramp over dimensions; sharper scores (YaRN).
    Yarn {
        /// What low frequencies are divided by.
        factor: f64,
        /// Positions that the model was trained with.
        original_max_position_embeddings: usize,
        /// What cosines and sines are multiplied with; 0.1 ln(factor) + 1 where it is not set.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attention_factor: Option<f64>,
        /// Frequencies that turn more often within the trained length are kept; 32 where it is not set.
        #[serde(default = "beta_fast")]
        beta_fast: f64,
        /// Frequencies that turn fewer times within the trained length are divided; 1 where it is not set.
        #[serde(default = "beta_slow")]
        beta_slow: f64,
        /// Whether the ramp's ends are whole dimensions; true where it is not set.
        #[serde(default = "truncate")]
        truncate: bool,
    },
    /// Each divided by a factor of its own, by another in rows longer than the trained ones; sharper scores (LongRoPE).
    Longrope {
        /// What the frequencies of rows up to the trained length are divided by.
        short_factor: Vec<f64>,
        /// What those of longer rows are divided by.
        long_factor: Vec<f64>,
        /// Positions that the model was trained with.
        original_max_position_embeddings: usize,
        /// What cosines and sines are multiplied with; where it is not set, by how many times longer rows become.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attention_factor: Option<f64>,
    },
}

pub(super) fn beta_fast() -> f64 {
    32.0
}

pub(super) fn beta_slow() -> f64 {
    1.0
}

pub(super) fn truncate() -> bool {
    true
}

/// 0.1 scale ln(factor) + 1, and 1 for factors that stretch nothing.
pub(super) fn sharpening(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

impl RopeScaling {
    fn factor(&self) -> f64 {
        match self {
            Self::Linear { factor } | Self::Dynamic { factor } => *factor,
            Self::Llama3 { factor, .. } | Self::Yarn { factor, .. } => *factor,
            // It has one for each frequency.
            Self::Longrope { .. } => 1.0,
        }
    }

    /// Checks the numbers for heads with `dim` rotated elements; `component` is what messages call the decoder.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn check(&self, component: &str, dim: usize) -> Result<()> {
        let above_zero = |key: &str, value: f64| {
            if value.is_finite() && value > 0.0 {
                return Ok(());
            }
            bail!("{component}: rope_scaling: {key} is {value}, expected a number above 0")
        };
        above_zero("factor", self.factor())?;
        let trained = "original_max_position_embeddings";
        match self {
            Self::Linear { .. } => Ok(()),
            Self::Dynamic { .. } if dim < 3 => {
                bail!(
                    "{component}: rope_scaling: dynamic needs heads with more than 2 rotated elements, these have {dim}"
                )
            }
            Self::Dynamic { .. } => Ok(()),
            Self::Llama3 { low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings, .. } => {
                above_zero(trained, *original_max_position_embeddings as f64)?;
                above_zero("low_freq_factor", *low)?;
                if !(high.is_finite() && high > low) {
                    bail!(
                        "{component}: rope_scaling: high_freq_factor is {high}, expected a number above low_freq_factor, {low}"
                    )
                }
                Ok(())
            }
            Self::Yarn { original_max_position_embeddings, attention_factor, beta_fast, beta_slow, .. } => {
                above_zero(trained, *original_max_position_embeddings as f64)?;
                above_zero("attention_factor", attention_factor.unwrap_or(1.0))?;
                above_zero("beta_slow", *beta_slow)?;
                if !(beta_fast.is_finite() && beta_fast >= beta_slow) {
                    bail!(
                        "{component}: rope_scaling: beta_fast is {beta_fast}, expected at least beta_slow, {beta_slow}"
                    )
                }
                Ok(())
            }
            Self::Longrope { short_factor, long_factor, original_max_position_embeddings, attention_factor } => {
                above_zero(trained, *original_max_position_embeddings as f64)?;
                above_zero("attention_factor", attention_factor.unwrap_or(1.0))?;
                for (key, list) in [("short_factor", short_factor), ("long_factor", long_factor)] {
                    if list.len() != dim / 2 {
                        bail!(
                            "{component}: rope_scaling: {key} has {} numbers, expected one for each of {} rotated pairs",
                            list.len(),
                            dim / 2
                        )
                    }
                    list.iter().try_for_each(|factor| above_zero(key, *factor))?;
                }
                Ok(())
            }
        }
    }

    /// Positions that a model of `max_position_embeddings` can take with this scaling.
    ///
    /// linear and dynamic stretch them, yarn reaches `factor` times the trained length; a Llama 3.1 and a longrope say them themselves.
    pub fn context(&self, max_position_embeddings: usize) -> usize {
        let from = match *self {
            Self::Linear { .. } | Self::Dynamic { .. } => max_position_embeddings,
            Self::Yarn { original_max_position_embeddings, .. } => original_max_position_embeddings,
            Self::Llama3 { .. } | Self::Longrope { .. } => return max_position_embeddings,
        };
        max_position_embeddings.max((from as f64 * self.factor()).floor() as usize)
    }
}
