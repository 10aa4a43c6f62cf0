//! Rotary frequencies as `config.json` describes them: base, rotated fraction of a head, scaling beyond the trained length.
//!
//! Source followed: transformers' `modeling_rope_utils.py`, which reads `rope_scaling` beside `rope_theta` (versions up
//! to 4) and `rope_parameters` (from 5 on). What it would warn of and compute all the same is refused here.

use crate::model_config::ModelConfig;
use crate::ops::{Growth, Rotary, RotaryStyle, frequencies};
use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

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
}

fn beta_fast() -> f64 {
    32.0
}

fn beta_slow() -> f64 {
    1.0
}

fn truncate() -> bool {
    true
}

/// 0.1 scale ln(factor) + 1, and 1 for factors that stretch nothing.
fn sharpening(factor: f64, scale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 }
}

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
const KEYS: [&str; 14] = [
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
        let rope = Self::read(component, config, max_position_embeddings.unwrap_or(0))?;
        match rope.fraction {
            Some(share) if share != 1.0 => {
                bail!("{}: partial_rotary_factor is {share}, supported is 1", config.location())
            }
            _ => Ok(rope),
        }
    }

    fn fill(&mut self, component: &str, config: &ModelConfig, section: &ModelConfig, longest: usize) -> Result<()> {
        let key = if section.value("rope_type").is_some() { "rope_type" } else { "type" };
        let kind = section.text(key)?.unwrap_or_else(|| "default".to_string());
        if !["default", "linear", "dynamic", "llama3", "yarn"].contains(&kind.as_str()) {
            return Err(section.refusal(key, "supported is default, linear, dynamic, llama3, yarn"));
        }
        if let Some(unknown) = section.keys().find(|key| !KEYS.contains(key)) {
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
            _ => None,
        };
        Ok(())
    }
}

impl RopeScaling {
    fn factor(&self) -> f64 {
        match self {
            Self::Linear { factor } | Self::Dynamic { factor } => *factor,
            Self::Llama3 { factor, .. } | Self::Yarn { factor, .. } => *factor,
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
        match *self {
            Self::Linear { .. } => Ok(()),
            Self::Dynamic { .. } if dim < 3 => {
                bail!(
                    "{component}: rope_scaling: dynamic needs heads with more than 2 rotated elements, these have {dim}"
                )
            }
            Self::Dynamic { .. } => Ok(()),
            Self::Llama3 { low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings, .. } => {
                above_zero(trained, original_max_position_embeddings as f64)?;
                above_zero("low_freq_factor", low)?;
                if !(high.is_finite() && high > low) {
                    bail!(
                        "{component}: rope_scaling: high_freq_factor is {high}, expected a number above low_freq_factor, {low}"
                    )
                }
                Ok(())
            }
            Self::Yarn { original_max_position_embeddings, attention_factor, beta_fast, beta_slow, .. } => {
                above_zero(trained, original_max_position_embeddings as f64)?;
                above_zero("attention_factor", attention_factor.unwrap_or(1.0))?;
                above_zero("beta_slow", beta_slow)?;
                if !(beta_fast.is_finite() && beta_fast >= beta_slow) {
                    bail!(
                        "{component}: rope_scaling: beta_fast is {beta_fast}, expected at least beta_slow, {beta_slow}"
                    )
                }
                Ok(())
            }
        }
    }

    /// Positions that a model of `max_position_embeddings` can take with this scaling.
    ///
    /// linear and dynamic stretch them, yarn reaches `factor` times the trained length; a Llama 3.1 says them itself.
    pub fn context(&self, max_position_embeddings: usize) -> usize {
        let from = match *self {
            Self::Linear { .. } | Self::Dynamic { .. } => max_position_embeddings,
            Self::Yarn { original_max_position_embeddings, .. } => original_max_position_embeddings,
            Self::Llama3 { .. } => return max_position_embeddings,
        };
        max_position_embeddings.max((from as f64 * self.factor()).floor() as usize)
    }
}

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
        Some(RopeScaling::Dynamic { factor }) => scaled(&|_, f| f).with_growth(Growth {
            dim,
            base: theta,
            factor: *factor,
            trained: max_position_embeddings,
        }),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{FrozenData, Request, WeightError, WeightSource};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    struct Config(Value);

    impl WeightSource for Config {
        fn label(&self) -> String {
            "here".into()
        }
        fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
            None
        }
        fn read(&self, _: &Request) -> Result<FrozenData, WeightError> {
            Ok(FrozenData::from_f32(vec![], &[0]))
        }
        fn document(&self, _: &str) -> Result<Option<String>, WeightError> {
            Ok(Some(self.0.to_string()))
        }
    }

    fn read(tree: Value, longest: usize) -> Result<Rope> {
        Rope::read("the decoder toy", &ModelConfig::read(&Config(tree)).unwrap().unwrap(), longest)
    }

    /// Frequencies of heads of 128 elements as transformers 5.24 gives them: (index, value).
    fn check(rope: &Rope, longest: usize, length: Option<usize>, factor: f32, expected: &[(usize, f32)]) {
        let scaling = rope.scaling.as_ref();
        scaling.unwrap().check("toy", 128).unwrap();
        let rotary = rotary(128, rope.theta.unwrap(), scaling, longest);
        // Transformers works in f32, ours in f64 rounded once.
        assert!((rotary.factor - factor).abs() < 1e-7 * factor, "{} for {factor}", rotary.factor);
        let frequencies = match length {
            Some(length) => rotary.growth.unwrap().frequencies(length),
            None => rotary.frequencies.to_vec(),
        };
        for (i, value) in expected {
            let far = (frequencies[*i] - value).abs() / value;
            assert!(far < 1e-6, "frequency {i} is {}, not {value}", frequencies[*i]);
        }
    }

    #[test]
    fn frequencies_are_those_of_transformers_however_they_are_written() {
        // Llama 3.1, as version 4 and as version 5 of transformers write it.
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192});
        let mut parameters = scaling.clone();
        parameters["rope_theta"] = json!(500_000.0);
        let old = read(json!({"rope_theta": 500_000.0, "rope_scaling": scaling}), 131_072).unwrap();
        let new = read(json!({"rope_parameters": parameters, "rope_scaling": null}), 131_072).unwrap();
        assert_eq!(old, new);
        let expected = [
            (0, 1.0),
            (20, 0.016_560_44),
            (27, 0.003_942_276),
            (30, 0.001_371_893_7),
            (33, 3.126_936_5e-4),
            (36, 7.784_655e-5),
            (40, 3.428_102_4e-5),
            (63, 3.068_926e-7),
        ];
        check(&old, 131_072, None, 1.0, &expected);
        assert_eq!(old.scaling.unwrap().context(131_072), 131_072);

        let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768});
        let qwen = read(json!({"rope_theta": 1e6, "rope_scaling": yarn}), 32_768).unwrap();
        let expected = [
            (0, 1.0),
            (10, 0.115_478_2),
            (20, 0.013_335_215),
            (23, 0.006_978_306),
            (30, 0.001_064_361),
            (36, 1.798_411_5e-4),
            (39, 6.490_394e-5),
            (50, 5.133_812_5e-6),
            (63, 3.102_344_4e-7),
        ];
        check(&qwen, 32_768, None, 1.138_629_4, &expected);
        assert_eq!(qwen.scaling.unwrap().context(32_768), 131_072);
        let yarn = json!({"type": "yarn", "factor": null, "original_max_position_embeddings": 4096, "beta_fast": 16,
            "beta_slow": 2, "truncate": false, "mscale": 0.7, "mscale_all_dim": 1.3});
        let rope = read(json!({"rope_theta": 1e4, "rope_scaling": yarn}), 16_384).unwrap();
        let expected = [
            (0, 1.0),
            (20, 0.056_234_13),
            (23, 0.036_517_41),
            (30, 0.010_401_097),
            (39, 0.001_142_359_8),
            (63, 2.886_955e-5),
        ];
        check(&rope, 16_384, None, 0.929_523_5, &expected);

        let rope = read(json!({"rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 4}}), 2048).unwrap();
        check(&rope, 2048, None, 1.0, &[(0, 0.25), (1, 0.216_491_09), (40, 7.905_695e-4), (63, 2.886_955e-5)]);
        assert_eq!(rope.scaling.unwrap().context(2048), 8192);
        let rope = read(json!({"rope_theta": 1e4, "rope_scaling": {"type": "dynamic", "factor": 2}}), 2048).unwrap();
        check(&rope, 2048, None, 1.0, &[(0, 1.0), (1, 0.865_964_35), (63, 1.154_782e-4)]);
        check(&rope, 2048, Some(3000), 1.0, &[(0, 1.0), (1, 0.856_975_6), (40, 0.002_083_236), (63, 5.984_296e-5)]);
        assert_eq!(rope.scaling.unwrap().context(2048), 4096);
    }

    #[test]
    fn no_scaling_is_said_in_several_ways() {
        for tree in [
            json!({}),
            json!({"rope_scaling": null}),
            json!({"rope_scaling": {}}),
            json!({"rope_scaling": {}, "rope_parameters": {"rope_type": "default"}}),
            json!({"rope_parameters": {"type": "default", "rope_type": "default"}}),
        ] {
            assert_eq!(read(tree.clone(), 64).unwrap().scaling, None, "{tree}");
        }
        let rope = read(json!({"rope_theta": 7, "rope_parameters": {"rope_theta": 8, "rope_type": "default"}}), 64);
        assert_eq!(rope.unwrap().theta, Some(8.0));
        let rope = read(json!({"partial_rotary_factor": 0.5, "rope_parameters": {"partial_rotary_factor": 0.25}}), 64);
        assert_eq!(rope.unwrap().fraction, Some(0.25));
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let check = |tree: Value, expected: &str| assert_eq!(read(tree, 64).unwrap_err().to_string(), expected);
        let supported = "supported is default, linear, dynamic, llama3, yarn";
        check(
            json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}),
            &format!("here: config.json, rope_scaling: type is \"longrope\", {supported}"),
        );
        check(
            json!({"rope_parameters": {"rope_type": "proportional"}}),
            &format!("here: config.json, rope_parameters: rope_type is \"proportional\", {supported}"),
        );
        check(
            json!({"rope_scaling": {"type": "linear"}}),
            "here: config.json, rope_scaling: factor is null, expected a number",
        );
        check(
            json!({"rope_scaling": "linear"}),
            "here: config.json: rope_scaling is \"linear\", expected a map of rope parameters",
        );
        check(
            json!({"rope_scaling": {"type": "default", "mrope_section": [1, 2]}}),
            "here: config.json, rope_scaling: mrope_section is [1,2], which the decoder toy does not support",
        );
        check(
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            "here: config.json, rope_parameters: full_attention is {\"rope_type\":\"default\"}, which the decoder toy does not support",
        );
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        let check = |tree: Value, expected: &str| {
            let scaling: RopeScaling = serde_json::from_value(tree).unwrap();
            assert_eq!(scaling.check("toy", 2).unwrap_err().to_string(), format!("toy: rope_scaling: {expected}"));
        };
        check(json!({"rope_type": "linear", "factor": 0.0}), "factor is 0, expected a number above 0");
        check(
            json!({"rope_type": "dynamic", "factor": 2.0}),
            "dynamic needs heads with more than 2 rotated elements, these have 2",
        );
        let llama = |low: f64, high: f64, trained: usize| {
            json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": low, "high_freq_factor": high,
                "original_max_position_embeddings": trained})
        };
        check(llama(4.0, 4.0, 8), "high_freq_factor is 4, expected a number above low_freq_factor, 4");
        check(llama(0.0, 4.0, 8), "low_freq_factor is 0, expected a number above 0");
        check(llama(1.0, 4.0, 0), "original_max_position_embeddings is 0, expected a number above 0");
        let yarn = |attention: f64, fast: f64, slow: f64| {
            json!({"rope_type": "yarn", "factor": 8.0, "attention_factor": attention, "beta_fast": fast,
                "beta_slow": slow, "original_max_position_embeddings": 8})
        };
        check(yarn(-1.0, 32.0, 1.0), "attention_factor is -1, expected a number above 0");
        check(yarn(1.0, 1.0, 2.0), "beta_fast is 1, expected at least beta_slow, 2");
        check(yarn(1.0, 1.0, 0.0), "beta_slow is 0, expected a number above 0");
    }
}
