//! Rotary frequencies as `config.json` describes them: base, rotated fraction of a head, scaling beyond the trained length.
//!
//! Source followed: transformers' `modeling_rope_utils.py`, which reads `rope_scaling` beside `rope_theta` (versions up
//! to 4) and `rope_parameters` (from 5 on). What it would warn of and compute all the same is refused here.

mod rotary;
mod scaling;
#[cfg(test)]
mod tests;

pub use rotary::rotary;
pub use scaling::RopeScaling;

use crate::model_config::ModelConfig;
use anyhow::{Result, bail};
use scaling::{beta_fast, beta_slow, sharpening, truncate};

/// What `config.json` says of rotary embeddings; None where it says nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rope {
    /// `rope_theta`.
    pub theta: Option<f64>,
    /// `partial_rotary_factor`.
    pub fraction: Option<f64>,
    /// The scaling, unless it is `default`.
    pub scaling: Option<RopeScaling>,
}

/// The keys of `rope_scaling` and `rope_parameters` that are read.
const KEYS: [&str; 16] = [
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "short_factor",
    "long_factor",
];

impl Rope {
    /// Reads `rope_scaling`, `rope_parameters`, `rope_theta` and `partial_rotary_factor` of a model with
    /// `max_position_embeddings` positions; `component` is what messages call the decoder.
    ///
    /// # Errors
    /// A kind of scaling that is not supported, a key that is unknown, a value that is missing or no number.
    pub fn read(component: &str, config: &ModelConfig, max_position_embeddings: usize) -> Result<Self> {
        let theta = config.number("rope_theta")?;
        let partial = config.number("partial_rotary_factor")?;
        let mut rope = Rope { theta, fraction: partial, scaling: None };
        // As in transformers, an empty `rope_scaling` counts as none, and one that says something comes first.
        for key in ["rope_scaling", "rope_parameters"] {
            let Some(value) = config.value(key) else { continue };
            let Some(map) = value.as_object() else {
                return Err(config.refusal(key, "expected a map of rope parameters"));
            };
            if let (false, Some(section)) = (map.is_empty(), config.section(key)) {
                rope.fill(component, config, &section, max_position_embeddings)?;
                break;
            }
        }
        Ok(rope)
    }

    /// As [`Self::read`], of a decoder that rotates whole heads; `max_position_embeddings` is set or has a default.
    ///
    /// # Errors
    /// As [`Self::read`]; a fraction of a head.
    pub fn read_whole(component: &str, config: &ModelConfig, max_position_embeddings: Option<usize>) -> Result<Self> {
        Self::read(component, config, max_position_embeddings.unwrap_or(0))?.whole(config)
    }

    /// Reads `section`, a map of rope parameters of `config` as `rope_scaling` is one, of a decoder that rotates whole heads:
    /// for models with several.
    ///
    /// # Errors
    /// As [`Self::read_whole`].
    pub fn read_section(
        component: &str,
        config: &ModelConfig,
        section: &ModelConfig,
        max_position_embeddings: usize,
    ) -> Result<Self> {
        let mut rope = Self::default();
        rope.fill(component, config, section, max_position_embeddings)?;
        rope.whole(config)
    }

    /// Refuses a fraction of a head.
    fn whole(self, config: &ModelConfig) -> Result<Self> {
        match self.fraction {
            Some(share) if share != 1.0 => {
                bail!("{}: partial_rotary_factor is {share}, supported is 1", config.location())
            }
            _ => Ok(self),
        }
    }

    fn fill(&mut self, component: &str, config: &ModelConfig, section: &ModelConfig, longest: usize) -> Result<()> {
        let key = if section.value("rope_type").is_some() { "rope_type" } else { "type" };
        let kind = section.text(key)?.unwrap_or_else(|| "default".to_string());
        // "su" is the older name of "longrope".
        if !["default", "linear", "dynamic", "llama3", "yarn", "longrope", "su"].contains(&kind.as_str()) {
            return Err(section.refusal(key, "supported is default, linear, dynamic, llama3, yarn, longrope"));
        }
        // The last is a note of who made a longer context, which transformers passes over.
        if let Some(unknown) = section.keys().find(|key| !KEYS.contains(key) && *key != "finetuned") {
            return Err(section.refusal(unknown, format!("which {component} does not support")));
        }
        self.theta = section.number("rope_theta")?.or(self.theta);
        self.fraction = section.number("partial_rotary_factor")?.or(self.fraction);
        let need = |key: &str| section.number(key)?.ok_or_else(|| section.refusal(key, "expected a number"));
        let key = "original_max_position_embeddings";
        let trained = config.size(key)?.or(section.size(key)?).unwrap_or(longest);
        self.scaling = match kind.as_str() {
            "linear" => Some(RopeScaling::Linear { factor: need("factor")? }),
            "dynamic" => Some(RopeScaling::Dynamic { factor: need("factor")? }),
            "llama3" => Some(RopeScaling::Llama3 {
                factor: need("factor")?,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original_max_position_embeddings: trained,
            }),
            "yarn" => {
                let factor = section.number("factor")?.unwrap_or(longest as f64 / trained as f64);
                let set = |key: &str| Ok::<_, anyhow::Error>(section.number(key)?.filter(|value| *value != 0.0));
                let attention_factor =
                    match (section.number("attention_factor")?, set("mscale")?, set("mscale_all_dim")?) {
                        (None, Some(scale), Some(all)) => Some(sharpening(factor, scale) / sharpening(factor, all)),
                        (given, ..) => given,
                    };
                Some(RopeScaling::Yarn {
                    factor,
                    original_max_position_embeddings: trained,
                    attention_factor,
                    beta_fast: set("beta_fast")?.unwrap_or_else(beta_fast),
                    beta_slow: set("beta_slow")?.unwrap_or_else(beta_slow),
                    truncate: section.flag("truncate")?.unwrap_or_else(truncate),
                })
            }
            "longrope" | "su" => {
                let list =
                    |key: &str| section.numbers(key)?.ok_or_else(|| section.refusal(key, "expected a list of numbers"));
                let attention_factor = section.number("attention_factor")?;
                let longer = longest as f64 / trained as f64;
                // Which of the two scales the scores depends on the version of transformers.
                if let (None, Some(factor)) = (attention_factor, section.number("factor")?)
                    && factor != longer
                {
                    return Err(
                        section.refusal("factor", format!("but the model has {longer} times the trained positions"))
                    );
                }
                Some(RopeScaling::Longrope {
                    short_factor: list("short_factor")?,
                    long_factor: list("long_factor")?,
                    original_max_position_embeddings: trained,
                    attention_factor,
                })
            }
            _ => None,
        };
        Ok(())
    }
}
