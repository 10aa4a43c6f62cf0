//! Where the tensors of a checkpoint stand and what widths they map: from names and shapes, before any value is read.

use super::Config;
use anyhow::{Result, anyhow, bail};
use candle_core::Var;
use limber_core::{FeatureKind, Init, PartContext, WeightSource, Weights};
use std::collections::BTreeMap;

/// PyTorch's default epsilon of a layer norm.
pub(super) const EPS: f64 = 1e-5;

/// Where trainers put the layers; the layer norm stands beside them. The first is how we save it ourselves.
pub(super) const PREFIXES: [(&str, &str); 7] = [
    ("", "ln"),
    ("proj", "ln"),
    ("projection", "ln"),
    ("module", "module.ln"),
    ("module.proj", "module.ln"),
    ("image_prefix.proj", "image_prefix.ln"),
    ("module.image_prefix.proj", "module.image_prefix.ln"),
];

/// What the layers are, before any is read.
pub(super) struct Layout {
    prefix: &'static str,
    pub(super) norm: &'static str,
    /// Width after each linear layer; the last is D, or K·D of a pooled encoder.
    pub(super) widths: Vec<usize>,
    pub(super) pooled: Option<usize>,
    pub(super) tokens: usize,
}

/// Checks the settings, and takes the number of layers from the checkpoint where they do not say.
pub(super) fn resolve(mut config: Config, source: &dyn WeightSource) -> Result<Config> {
    if !(0.0..1.0).contains(&config.dropout) {
        bail!("mlp: dropout {} is not allowed, it is at least 0 and below 1", config.dropout)
    }
    for (key, value) in [("layers", config.layers), ("width", config.width), ("tokens", config.tokens)] {
        if value == Some(0) {
            bail!("mlp: {key} 0 is not allowed, it is at least 1")
        }
    }
    let found = source.tensors().and_then(|tensors| shapes(&tensors).map(|(_, _, shapes)| shapes.len()));
    config.layers = config.layers.or(found).or(Some(2));
    Ok(config)
}

/// Prefix, place of the norm, and the shapes of `0.weight`, `2.weight`, ... under the first prefix that has them.
fn shapes(tensors: &BTreeMap<String, Vec<usize>>) -> Option<(&'static str, &'static str, Vec<Vec<usize>>)> {
    PREFIXES.into_iter().find_map(|(prefix, norm)| {
        let weights = (0..).map_while(|i| tensors.get(&join(prefix, &format!("{}.weight", 2 * i))).cloned());
        let weights: Vec<Vec<usize>> = weights.collect();
        (!weights.is_empty()).then_some((prefix, norm, weights))
    })
}

impl Layout {
    pub(super) fn new(config: &Config, context: &PartContext) -> Result<Self> {
        let (features, d) = (context.features, context.width);
        let (n, e) = (features.tokens, features.width);
        let one_vector = features.kind == FeatureKind::Pooled && n == 1;
        if let Some(tokens) = config.tokens.filter(|tokens| !one_vector && *tokens != n) {
            bail!(
                "stitch mlp: tokens is {tokens}, but encoder {} gives {n} tokens of width {e} and each becomes one prefix token; leave tokens out or set it to {n}",
                context.encoder
            )
        }
        let Some(tensors) = context.source.tensors() else {
            let pooled = one_vector.then(|| config.tokens.unwrap_or(1));
            let mut widths = vec![config.width.unwrap_or(d); config.layers.unwrap_or(2).saturating_sub(1)];
            widths.push(pooled.unwrap_or(1) * d);
            return Ok(Self { prefix: "", norm: "ln", widths, pooled, tokens: pooled.unwrap_or(n) });
        };
        let label = context.source.label();
        let (prefix, norm, shapes) = shapes(&tensors).ok_or_else(|| {
            let names: Vec<&str> = tensors.keys().take(6).map(String::as_str).collect();
            anyhow!("stitch checkpoint {label} has no tensor \"0.weight\"; it has: {}", names.join(", "))
        })?;
        let sides = format!("encoder {} gives {n} x {e} and decoder {} takes {d}", context.encoder, context.decoder);
        let mut widths = Vec::with_capacity(shapes.len());
        let mut before = e;
        for (i, shape) in shapes.iter().enumerate() {
            let [rows, columns] = shape[..] else {
                bail!(
                    "stitch checkpoint {label}: {}.weight has shape {shape:?}, a layer has [rows, columns]; {sides}",
                    2 * i
                )
            };
            if i > 0 && columns != before {
                bail!("stitch checkpoint {label}: {}.weight {shape:?} does not follow a layer of width {before}", 2 * i)
            }
            let bias = tensors.get(&join(prefix, &format!("{}.bias", 2 * i)));
            if bias.map(Vec::as_slice) != Some(&[rows]) {
                let found = bias.map_or("no bias".into(), |bias| format!("bias {bias:?}"));
                bail!("stitch checkpoint {label}: {}.weight {shape:?} has {found}, it needs [{rows}]", 2 * i)
            }
            widths.push(rows);
            before = rows;
        }
        let maps = format!("stitch checkpoint {label} maps width {} to {before} (weights {shapes:?})", shapes[0][1]);
        let fits = if one_vector { d > 0 && before > 0 && before % d == 0 } else { before == d };
        if shapes[0][1] != e || !fits {
            bail!("{maps}; {sides}")
        }
        let pooled = one_vector.then(|| before / d);
        if let (Some(k), Some(tokens)) = (pooled, config.tokens)
            && k != tokens
        {
            bail!("{maps}, which makes {k} prefix tokens of width {d}; the settings say tokens {tokens}")
        }
        if let Some(layers) = config.layers.filter(|layers| *layers != widths.len()) {
            bail!("{maps} by {} layers; the settings say layers {layers}", widths.len())
        }
        if let Some(width) = config.width.filter(|width| widths[..widths.len() - 1].iter().any(|w| w != width)) {
            bail!("{maps}; the settings say width {width} for the hidden layers")
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
        Ok(Self { prefix, norm, widths, pooled, tokens: pooled.unwrap_or(n) })
    }

    /// The tensors of the layers.
    pub(super) fn under(&self, weights: &Weights) -> Weights {
        if self.prefix.is_empty() { weights.clone() } else { weights.pp(self.prefix) }
    }
}

pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") }
}

/// A variable from a tensor of the source, which must be finite: training from a NaN only spreads it.
pub(super) fn var(weights: &Weights, name: &str, shape: &[usize], init: Init) -> Result<Var> {
    let tensor = weights.tensor(name, shape, init)?;
    // x * 0 is NaN for what is not finite, and a sum keeps a NaN.
    if tensor.affine(0.0, 0.0)?.sum_all()?.to_scalar::<f32>()?.is_nan() {
        bail!("{}: tensor {name:?} has values that are not finite", weights.source().label())
    }
    Ok(Var::from_tensor(&tensor)?)
}
