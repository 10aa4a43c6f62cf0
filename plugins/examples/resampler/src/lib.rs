//! `resampler`: a perceiver resampler as a stitch, in a plugin.
//!
//! Features `[B, N, E]` to prefix `[B, K, D]`, whatever N is: K learned latents of width A look once at the features,
//! projected to A, and at themselves, and what they become is projected to D.
//! Source followed: `PerceiverResampler` of Flamingo (Alayrac et al. 2022, appendix A.1), one layer without its MLP.

use anyhow::{Result, bail};
use candle_core::{Tensor, Var};
use limber_sdk::core::ops::softmax;
use limber_sdk::core::stitch::PrefixSpec;
use limber_sdk::core::weights::ZEROS;
use limber_sdk::core::{Component, Init, Mode, Stitch, StitchComponent, StitchContext, WeightSource, Weights};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

limber_sdk::export_plugin!(stitch: Resampler);

/// The settings.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Prefix tokens K.
    pub tokens: usize,
    /// Width A of the latents.
    pub width: usize,
    /// Attention heads; a divisor of the width.
    pub heads: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { tokens: 16, width: 512, heads: 8 }
    }
}

/// The trained resampler.
pub struct Resampler {
    variables: BTreeMap<String, Var>,
    config: Config,
    n_in: usize,
    width: usize,
}

/// Names and shapes of the variables.
fn shapes(config: &Config, e: usize, d: usize) -> [(&'static str, Vec<usize>); 9] {
    let (k, a) = (config.tokens, config.width);
    [
        ("latents", vec![k, a]),
        ("input.weight", vec![a, e]),
        ("input.bias", vec![a]),
        ("query.weight", vec![a, a]),
        ("key.weight", vec![a, a]),
        ("value.weight", vec![a, a]),
        ("mixed.weight", vec![a, a]),
        ("output.weight", vec![d, a]),
        ("output.bias", vec![d]),
    ]
}

impl Component for Resampler {
    type Config = Config;
    const KIND: &'static str = "resampler";
    const ABOUT: &'static str = "a perceiver resampler: any number of features to K prefix tokens";
    const FILES: &'static [&'static str] = &["stitch.safetensors", "model.safetensors"];

    fn tiny() -> Config {
        Config { tokens: 3, width: 8, heads: 2 }
    }

    fn resolve(config: Config, _: &dyn WeightSource) -> Result<Config> {
        let Config { tokens, width, heads } = config;
        if tokens == 0 || width == 0 || heads == 0 || !width.is_multiple_of(heads) {
            bail!(
                "resampler: tokens {tokens}, width {width}, heads {heads}: each is at least 1, and heads divides width"
            )
        }
        Ok(config)
    }
}

impl StitchComponent for Resampler {
    fn specs(config: &Config, context: &StitchContext) -> Result<PrefixSpec> {
        let (e, d) = (context.features.width, context.width);
        if let Some(tensors) = context.source.tensors() {
            for (name, shape) in shapes(config, e, d) {
                let found = tensors.get(name);
                if found != Some(&shape) {
                    let found = found.map_or("none".to_string(), |shape| format!("shape {shape:?}"));
                    bail!(
                        "stitch checkpoint {}: {name} has {found}, {shape:?} is what goes from encoder {} (width {e}) to decoder {} (width {d}) with these settings",
                        context.source.label(),
                        context.encoder,
                        context.decoder
                    )
                }
            }
        }
        Ok(PrefixSpec { tokens: config.tokens, width: d })
    }

    fn new(config: &Config, context: &StitchContext, weights: &Weights) -> Result<Self> {
        let (e, d) = (context.features.width, context.width);
        let variable = |(name, shape): (&str, Vec<usize>)| -> Result<(String, Var)> {
            let init = match shape.as_slice() {
                [_] => ZEROS,
                _ if name == "latents" => Init::normal(1.0),
                [.., n_in] => Init::fan_in(*n_in),
                [] => ZEROS,
            };
            Ok((name.to_string(), Var::from_tensor(&weights.tensor(name, &shape, init)?)?))
        };
        let variables = shapes(config, e, d).into_iter().map(variable).collect::<Result<_>>()?;
        Ok(Self { variables, config: config.clone(), n_in: e, width: d })
    }
}

impl Resampler {
    fn variable(&self, name: &str) -> candle_core::Result<&Tensor> {
        match self.variables.get(name) {
            Some(variable) => Ok(variable.as_tensor()),
            None => candle_core::bail!("no variable {name:?}"),
        }
    }

    /// x `[B, M, in]` to `[B, M, out]` by the matrix `name.weight` `[out, in]`.
    fn linear(&self, name: &str, x: &Tensor) -> candle_core::Result<Tensor> {
        let (b, m, n_in) = x.dims3()?;
        let weight = self.variable(&format!("{name}.weight"))?;
        x.reshape((b * m, n_in))?.matmul(&weight.t()?)?.reshape((b, m, weight.dim(0)?))
    }

    /// `[B, M, A]` to `[B, H, M, A / H]`.
    fn heads(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (b, m, a) = x.dims3()?;
        let h = self.config.heads;
        x.reshape((b, m, h, a / h))?.transpose(1, 2)?.contiguous()
    }
}

impl Stitch for Resampler {
    fn prefix_spec(&self, _tokens: usize) -> PrefixSpec {
        PrefixSpec { tokens: self.config.tokens, width: self.width }
    }

    fn project(&self, features: &Tensor, _mode: Mode) -> candle_core::Result<Tensor> {
        let b = match features.dims() {
            [b, n, e] if *b > 0 && *n > 0 && *e == self.n_in => *b,
            other => candle_core::bail!("features have shape {other:?}, expected [B, N, {}]", self.n_in),
        };
        let Config { tokens: k, width: a, heads } = self.config;
        let latents = self.variable("latents")?.unsqueeze(0)?.expand((b, k, a))?.contiguous()?; // [B, K, A]
        let seen = self.linear("input", features)?.broadcast_add(self.variable("input.bias")?)?;
        let seen = Tensor::cat(&[&seen, &latents], 1)?; // [B, N + K, A]
        let query = self.heads(&self.linear("query", &latents)?)?;
        let (key, value) = (self.heads(&self.linear("key", &seen)?)?, self.heads(&self.linear("value", &seen)?)?);
        let scores = (query.matmul(&key.transpose(2, 3)?.contiguous()?)? / ((a / heads) as f64).sqrt())?;
        let mixed = softmax(&scores)?.matmul(&value)?.transpose(1, 2)?.contiguous()?.reshape((b, k, a))?;
        let latents = (latents + self.linear("mixed", &mixed)?)?;
        self.linear("output", &latents)?.broadcast_add(self.variable("output.bias")?)
    }

    fn variables(&self) -> BTreeMap<String, Var> {
        self.variables.clone()
    }
}
