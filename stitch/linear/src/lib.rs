//! `linear`: LiMBeR's single linear projection, with optional dropout and layer norm behind it.
//!
//! Features `[B, N, E]` to prefix `[B, K, D]`. Many tokens: Linear(E, D) on each, K = N. One pooled vector:
//! Linear(E, K·D) read as K x D. Source followed: the facts of LiMBeR's image prefix (projection, dropout, layer norm).

use anyhow::{Result, anyhow, bail};
use candle_core::{Tensor, Var};
use limber_core::ops::{dropout, layer_norm_trainable};
use limber_core::stitch::PrefixSpec;
use limber_core::weights::{ONES, ZEROS};
use limber_core::{FeatureKind, Init, Mode, Part, PartContext, Stitch, StitchPart, WeightSource, Weights, register};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

register!(stitch, Linear);

/// PyTorch's default epsilon of a layer norm.
const EPS: f64 = 1e-5;

/// Where trainers put the projection; the layer norm stands beside it. The first is how we save it ourselves.
const PREFIXES: [(&str, &str); 7] = [
    ("", "ln"),
    ("proj", "ln"),
    ("projection", "ln"),
    ("module", "module.ln"),
    ("module.proj", "module.ln"),
    ("image_prefix.proj", "image_prefix.ln"),
    ("module.image_prefix.proj", "module.image_prefix.ln"),
];

/// The settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Probability that an element of the prefix is zeroed while training; 0 to below 1. Never at inference.
    pub dropout: f64,
    /// Whether a layer norm over D follows the projection.
    pub layer_norm: bool,
    /// Prefix tokens K of an encoder with one pooled vector; what the checkpoint says, or 1, where it is not set.
    /// Other encoders give K = N.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self { dropout: 0.1, layer_norm: false, tokens: None }
    }
}

/// The trained projection.
pub struct Linear {
    weight: Var,
    bias: Var,
    norm: Option<(Var, Var)>,
    dropout: f32,
    /// K where one pooled vector becomes K tokens.
    pooled: Option<usize>,
    n_in: usize,
    width: usize,
}

impl Part for Linear {
    type Config = Config;
    const KIND: &'static str = "linear";
    const ABOUT: &'static str = "one linear projection of the features, as in LiMBeR";
    const FILES: &'static [&'static str] = &["proj.ckpt", "stitch.safetensors", "model.safetensors"];

    fn tiny() -> Config {
        Config { layer_norm: true, ..Config::default() }
    }

    fn resolve(config: Config, _source: &dyn WeightSource) -> Result<Config> {
        if !(0.0..1.0).contains(&config.dropout) {
            bail!("linear: dropout {} is not allowed, it is at least 0 and below 1", config.dropout)
        }
        if config.tokens == Some(0) {
            bail!("linear: tokens 0 is not allowed, it is at least 1")
        }
        Ok(config)
    }
}

impl StitchPart for Linear {
    fn specs(config: &Config, context: &PartContext) -> Result<PrefixSpec> {
        Ok(PrefixSpec { tokens: Layout::new(config, context)?.tokens, width: context.width })
    }

    fn new(config: &Config, context: &PartContext, weights: &Weights) -> Result<Self> {
        let layout = Layout::new(config, context)?;
        let (e, d) = (context.features.width, context.width);
        let rows = layout.pooled.unwrap_or(1) * d;
        let w = under(weights, layout.projection);
        let norm = match config.layer_norm {
            true => {
                let ln = weights.pp(layout.norm);
                Some((var(&ln, "weight", &[d], ONES)?, var(&ln, "bias", &[d], ZEROS)?))
            }
            false => None,
        };
        Ok(Self {
            weight: var(&w, "weight", &[rows, e], Init::fan_in(e))?,
            bias: var(&w, "bias", &[rows], Init::fan_in(e))?,
            norm,
            dropout: config.dropout as f32,
            pooled: layout.pooled,
            n_in: e,
            width: d,
        })
    }
}

impl Stitch for Linear {
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
        let flat = features.reshape((b * n, self.n_in))?;
        let y = flat.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?;
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
        let mut all = BTreeMap::from([("weight".into(), self.weight.clone()), ("bias".into(), self.bias.clone())]);
        if let Some((gain, shift)) = &self.norm {
            all.extend([("ln.weight".into(), gain.clone()), ("ln.bias".into(), shift.clone())]);
        }
        all
    }
}

/// Where the tensors stand and how many tokens they make: known from names and shapes, before any value is read.
struct Layout {
    projection: &'static str,
    norm: &'static str,
    pooled: Option<usize>,
    tokens: usize,
}

impl Layout {
    fn new(config: &Config, context: &PartContext) -> Result<Self> {
        let (features, d) = (context.features, context.width);
        let (n, e) = (features.tokens, features.width);
        let one_vector = features.kind == FeatureKind::Pooled && n == 1;
        if let Some(tokens) = config.tokens.filter(|tokens| !one_vector && *tokens != n) {
            bail!(
                "stitch linear: tokens is {tokens}, but encoder {} gives {n} tokens of width {e} and each becomes one prefix token; leave tokens out or set it to {n}",
                context.encoder
            )
        }
        let Some(tensors) = context.source.tensors() else {
            let pooled = one_vector.then(|| config.tokens.unwrap_or(1));
            return Ok(Self { projection: "", norm: "ln", pooled, tokens: pooled.unwrap_or(n) });
        };
        let label = context.source.label();
        let names = || tensors.keys().take(6).map(String::as_str).collect::<Vec<_>>().join(", ");
        let (projection, norm) = PREFIXES
            .into_iter()
            .find(|(prefix, _)| tensors.contains_key(&join(prefix, "weight")))
            .ok_or_else(|| anyhow!("stitch checkpoint {label} has no tensor \"weight\"; it has: {}", names()))?;
        let weight = &tensors[&join(projection, "weight")];
        let sides = format!("encoder {} gives {n} x {e} and decoder {} takes {d}", context.encoder, context.decoder);
        let [rows, columns] = weight[..] else {
            bail!("stitch checkpoint {label}: weight has shape {weight:?}, a projection has [rows, columns]; {sides}")
        };
        let maps = format!("stitch checkpoint {label} maps width {columns} to {rows} (weight {weight:?})");
        let fits = if one_vector { d > 0 && rows > 0 && rows % d == 0 } else { rows == d };
        if columns != e || !fits {
            bail!("{maps}; {sides}")
        }
        let pooled = one_vector.then(|| rows / d);
        if let (Some(k), Some(tokens)) = (pooled, config.tokens)
            && k != tokens
        {
            bail!("{maps}, which makes {k} prefix tokens of width {d}; the settings say tokens {tokens}")
        }
        match tensors.get(&join(projection, "bias")) {
            None => bail!("stitch checkpoint {label} has no tensor \"bias\" beside weight {weight:?}"),
            Some(bias) if bias[..] != [rows] => {
                bail!("stitch checkpoint {label}: bias has shape {bias:?}, weight {weight:?} needs [{rows}]")
            }
            Some(_) => {}
        }
        for name in ["weight", "bias"].map(|name| join(norm, name)) {
            match (config.layer_norm, tensors.get(&name)) {
                (true, None) => bail!("layer_norm is on, but stitch checkpoint {label} has no tensor {name:?}"),
                (false, Some(_)) => {
                    bail!(
                        "stitch checkpoint {label} has a layer norm ({name:?}), but layer_norm is off in the settings"
                    )
                }
                (true, Some(shape)) if shape[..] != [d] => {
                    bail!(
                        "stitch checkpoint {label}: {name:?} has shape {shape:?}, decoder {} takes {d}",
                        context.decoder
                    )
                }
                _ => {}
            }
        }
        Ok(Self { projection, norm, pooled, tokens: pooled.unwrap_or(n) })
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") }
}

fn under(weights: &Weights, prefix: &str) -> Weights {
    if prefix.is_empty() { weights.clone() } else { weights.pp(prefix) }
}

/// A variable from a tensor of the source, which must be finite: training from a NaN only spreads it.
fn var(weights: &Weights, name: &str, shape: &[usize], init: Init) -> Result<Var> {
    let tensor = weights.tensor(name, shape, init)?;
    // x * 0 is NaN for what is not finite, and a sum keeps a NaN.
    if tensor.affine(0.0, 0.0)?.sum_all()?.to_scalar::<f32>()?.is_nan() {
        bail!("{}: tensor {name:?} has values that are not finite", weights.source().label())
    }
    Ok(Var::from_tensor(&tensor)?)
}
