//! `mlp`: a multi-layer perceptron as a stitch, with optional dropout and layer norm behind it.
//!
//! Features `[B, N, E]` to prefix `[B, K, D]`. Many tokens: the same layers E → hidden → D on each, K = N. One pooled
//! vector: the last layer gives K·D values, read as K x D. Names are those of PyTorch's
//! `nn.Sequential(Linear, activation, Linear, ...)`: `0.weight`, `0.bias`, `2.weight`, ...

use anyhow::Result;
use candle_core::{Tensor, Var};
use layout::{EPS, Layout, var};
use limber_core::ops::{dropout, gelu_erf, gelu_tanh, layer_norm_trainable};
use limber_core::stitch::PrefixSpec;
use limber_core::weights::{ONES, ZEROS};
use limber_core::{Init, Mode, Part, PartContext, Stitch, StitchPart, WeightSource, Weights, register};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod layout;
#[cfg(test)]
mod tests;

register!(stitch, Mlp);

/// The settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Linear layers, at least 1; what the checkpoint has, or 2, where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<usize>,
    /// Width of the hidden layers; what the checkpoint has, or D, where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<usize>,
    /// What stands between two linear layers.
    pub activation: Activation,
    /// Probability that an element of the prefix is zeroed while training; 0 to below 1. Never at inference.
    pub dropout: f64,
    /// Whether a layer norm over D follows the last layer.
    pub layer_norm: bool,
    /// Prefix tokens K of an encoder with one pooled vector; what the checkpoint says, or 1, where it is not set.
    /// Other encoders give K = N.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// The trained layers.
pub struct Mlp {
    layers: Vec<(Var, Var)>,
    norm: Option<(Var, Var)>,
    activation: Activation,
    dropout: f32,
    /// K where one pooled vector becomes K tokens.
    pooled: Option<usize>,
    n_in: usize,
    width: usize,
}

impl Part for Mlp {
    type Config = Config;
    const KIND: &'static str = "mlp";
    const ABOUT: &'static str = "a multi-layer perceptron over the features";
    const FILES: &'static [&'static str] = &["proj.ckpt", "stitch.safetensors", "model.safetensors"];

    fn tiny() -> Config {
        Config { width: Some(12), layer_norm: true, ..Config::default() }
    }

    fn resolve(config: Config, source: &dyn WeightSource) -> Result<Config> {
        layout::resolve(config, source)
    }
}

impl StitchPart for Mlp {
    fn specs(config: &Config, context: &PartContext) -> Result<PrefixSpec> {
        Ok(PrefixSpec { tokens: Layout::new(config, context)?.tokens, width: context.width })
    }

    fn new(config: &Config, context: &PartContext, weights: &Weights) -> Result<Self> {
        let layout = Layout::new(config, context)?;
        let (e, d) = (context.features.width, context.width);
        let mut layers = Vec::with_capacity(layout.widths.len());
        let mut n_in = e;
        for (i, n_out) in layout.widths.iter().copied().enumerate() {
            let at = layout.under(weights).pp(2 * i);
            let weight = var(&at, "weight", &[n_out, n_in], Init::fan_in(n_in))?;
            layers.push((weight, var(&at, "bias", &[n_out], Init::fan_in(n_in))?));
            n_in = n_out;
        }
        let norm = match config.layer_norm {
            true => {
                let ln = weights.pp(layout.norm);
                Some((var(&ln, "weight", &[d], ONES)?, var(&ln, "bias", &[d], ZEROS)?))
            }
            false => None,
        };
        let (activation, dropout, pooled) = (config.activation, config.dropout as f32, layout.pooled);
        Ok(Self { layers, norm, activation, dropout, pooled, n_in: e, width: d })
    }
}

impl Stitch for Mlp {
    fn prefix_spec(&self, tokens: usize) -> PrefixSpec {
        PrefixSpec { tokens: self.pooled.unwrap_or(tokens), width: self.width }
    }

    fn project(&self, features: &Tensor, mode: Mode) -> candle_core::Result<Tensor> {
        let (b, n) = match (features.dims(), self.pooled) {
            ([b, n, e], None) if *b > 0 && *n > 0 && *e == self.n_in => (*b, *n),
            ([b, 1, e], Some(_)) if *b > 0 && *e == self.n_in => (*b, 1),
            (other, pooled) => candle_core::bail!(
                "features have shape {other:?}, allowed is [B, {}, {}]",
                if pooled.is_some() { "1" } else { "N" },
                self.n_in
            ),
        };
        let mut y = features.reshape((b * n, self.n_in))?;
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            if i > 0 {
                y = self.activation.forward(&y)?;
            }
            y = y.matmul(&weight.t()?)?.broadcast_add(bias)?; // [B·N, hidden], at last [B·N, K·D]
        }
        let mut y = y.reshape((b, self.pooled.unwrap_or(n), self.width))?; // [B, K, D]
        if let Mode::Training { seed } = mode {
            y = dropout(&y, self.dropout, seed)?;
        }
        match &self.norm {
            Some((gain, shift)) => layer_norm_trainable(&y, gain, shift, EPS),
            None => Ok(y),
        }
    }

    fn variables(&self) -> BTreeMap<String, Var> {
        let mut all = BTreeMap::new();
        for (i, (weight, bias)) in self.layers.iter().enumerate() {
            all.insert(format!("{}.weight", 2 * i), weight.clone());
            all.insert(format!("{}.bias", 2 * i), bias.clone());
        }
        if let Some((gain, shift)) = &self.norm {
            all.extend([("ln.weight".into(), gain.clone()), ("ln.bias".into(), shift.clone())]);
        }
        all
    }
}
