//! `linear`: LiMBeR's single linear projection, with optional dropout and layer norm behind it.
//!
//! Features `[B, N, E]` to prefix `[B, K, D]`. Many tokens: Linear(E, D) on each, K = N. One pooled vector:
//! Linear(E, K·D) read as K x D. Source followed: the facts of LiMBeR's image prefix (projection, dropout, layer norm).

use anyhow::Result;
use candle_core::{Tensor, Var};
use limber_core::stitch::{LayerNames, PrefixSpec, Projector, ProjectorSettings};
use limber_core::{Component, Mode, Stitch, StitchComponent, StitchContext, WeightSource, Weights, register};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

register!(stitch, Linear);

/// The settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Probability that an element of the prefix is zeroed while training; 0 to below 1. Never at inference.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: f64,
    /// Whether a layer norm over D follows the projection.
    pub layer_norm: bool,
    /// Prefix tokens K of an encoder with one pooled vector; by default what the checkpoint says, or 1.
    /// Other encoders give K = N.
    #[schemars(range(min = 1))]
    pub tokens: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self { dropout: 0.1, layer_norm: false, tokens: None }
    }
}

impl Config {
    fn projector(&self) -> ProjectorSettings {
        let Self { dropout, layer_norm, tokens } = *self;
        let (kind, names) = (Linear::KIND, LayerNames::Single);
        ProjectorSettings { kind, names, layers: None, hidden: None, dropout, layer_norm, tokens }
    }
}

/// The trained projection.
pub struct Linear(Projector);

impl Component for Linear {
    type Config = Config;
    const KIND: &'static str = "linear";
    const ABOUT: &'static str = "one linear projection of the features, as in LiMBeR";
    const FILES: &'static [&'static str] = &["proj.ckpt", "stitch.safetensors", "model.safetensors"];

    fn tiny() -> Config {
        Config { layer_norm: true, ..Config::default() }
    }

    fn resolve(config: Config, _source: &dyn WeightSource) -> Result<Config> {
        config.projector().check()?;
        Ok(config)
    }
}

impl StitchComponent for Linear {
    fn specs(config: &Config, context: &StitchContext) -> Result<PrefixSpec> {
        Projector::specs(&config.projector(), context)
    }

    fn new(config: &Config, context: &StitchContext, weights: &Weights) -> Result<Self> {
        Ok(Self(Projector::new(&config.projector(), context, weights)?))
    }
}

impl Stitch for Linear {
    fn prefix_spec(&self, tokens: usize) -> PrefixSpec {
        self.0.prefix_spec(tokens)
    }

    fn project(&self, features: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        self.0.project(features, mode, |x| Ok(x.clone()))
    }

    fn variables(&self) -> BTreeMap<String, Var> {
        self.0.variables()
    }
}
