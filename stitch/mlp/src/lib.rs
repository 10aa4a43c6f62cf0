//! `mlp`: a multi-layer perceptron as a stitch, with optional dropout and layer norm behind it.
//!
//! Features `[B, N, E]` to prefix `[B, K, D]`. Many tokens: the same layers E → hidden → D on each, K = N. One pooled
//! vector: the last layer gives K·D values, read as K x D. Names are those of PyTorch's
//! `nn.Sequential(Linear, activation, Linear, ...)`: `0.weight`, `0.bias`, `2.weight`, ... All but the activation is
//! [`limber_core::stitch::Projector`]'s.

use anyhow::Result;
use candle_core::{Tensor, Var};
use limber_core::ops::{gelu_erf, gelu_tanh};
use limber_core::stitch::{LayerNames, PrefixSpec, Projector, ProjectorSettings};
use limber_core::{Component, Mode, Stitch, StitchComponent, StitchContext, WeightSource, Weights, register};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

register!(stitch, Mlp);

/// The settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Linear layers, at least 1; by default what the checkpoint has, or 2.
    #[schemars(range(min = 1))]
    pub layers: Option<usize>,
    /// Width of the hidden layers; by default what the checkpoint has, or D.
    #[schemars(range(min = 1))]
    pub width: Option<usize>,
    /// What stands between two linear layers.
    pub activation: Activation,
    /// Probability that an element of the prefix is zeroed while training; 0 to below 1. Never at inference.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: f64,
    /// Whether a layer norm over D follows the last layer.
    pub layer_norm: bool,
    /// Prefix tokens K of an encoder with one pooled vector; by default what the checkpoint says, or 1.
    /// Other encoders give K = N.
    #[schemars(range(min = 1))]
    pub tokens: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self { layers: None, width: None, activation: Activation::Gelu, dropout: 0.1, layer_norm: false, tokens: None }
    }
}

/// The activation between two linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// GELU by the error function, PyTorch's default.
    Gelu,
    /// GELU by the tanh approximation.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// x · sigmoid(x).
    Silu,
    /// Hyperbolic tangent.
    Tanh,
}

impl Activation {
    fn forward(self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Activation::Gelu => gelu_erf(x),
            Activation::GeluTanh => gelu_tanh(x),
            Activation::Relu => x.relu(),
            Activation::Silu => x.silu(),
            Activation::Tanh => x.tanh(),
        }
    }
}

impl Config {
    fn projector(&self) -> ProjectorSettings {
        let Self { layers, width: hidden, dropout, layer_norm, tokens, .. } = *self;
        let (kind, names) = (Mlp::KIND, LayerNames::Sequential);
        ProjectorSettings { kind, names, layers, hidden, dropout, layer_norm, tokens }
    }
}

/// The trained layers.
pub struct Mlp {
    layers: Projector,
    activation: Activation,
}

impl Component for Mlp {
    type Config = Config;
    const KIND: &'static str = "mlp";
    const ABOUT: &'static str = "a multi-layer perceptron over the features";
    const FILES: &'static [&'static str] = &["proj.ckpt", "stitch.safetensors", "model.safetensors"];

    fn tiny() -> Config {
        Config { width: Some(12), layer_norm: true, ..Config::default() }
    }

    fn resolve(mut config: Config, source: &dyn WeightSource) -> Result<Config> {
        config.projector().check()?;
        config.layers = config.layers.or_else(|| config.projector().layers_in(source)).or(Some(2));
        Ok(config)
    }
}

impl StitchComponent for Mlp {
    fn specs(config: &Config, context: &StitchContext) -> Result<PrefixSpec> {
        Projector::specs(&config.projector(), context)
    }

    fn new(config: &Config, context: &StitchContext, weights: &Weights) -> Result<Self> {
        Ok(Self { layers: Projector::new(&config.projector(), context, weights)?, activation: config.activation })
    }
}

impl Stitch for Mlp {
    fn prefix_spec(&self, tokens: usize) -> PrefixSpec {
        self.layers.prefix_spec(tokens)
    }

    fn project(&self, features: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        self.layers.project(features, mode, |x| self.activation.forward(x))
    }

    fn variables(&self) -> BTreeMap<String, Var> {
        self.layers.variables()
    }
}
