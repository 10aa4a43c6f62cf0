//! The settings of a projector, and where its tensors stand in a checkpoint and what widths they map: from names and
//! shapes, before any value is read.

use crate::registry::StitchContext;
use crate::spec::FeatureKind;
use crate::weights::WeightSource;
use anyhow::{Result, anyhow, bail};
use std::collections::BTreeMap;

/// Where trainers put the layers, and the layer norm beside them. The first is how limber saves them itself.
pub(super) const PREFIXES: [(&str, &str); 7] = [
    ("", "ln"),
    ("proj", "ln"),
    ("projection", "ln"),
    ("module", "module.ln"),
    ("module.proj", "module.ln"),
    ("image_prefix.proj", "image_prefix.ln"),
    ("module.image_prefix.proj", "module.image_prefix.ln"),
];

/// What published models call their projector, wherever it stands in them.
pub(super) const PROJECTORS: [&str; 2] = ["mm_projector", "multi_modal_projector"];

/// What the tensors of the linear layers are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerNames {
    /// One layer: `weight`, `bias`.
    Single,
    /// As PyTorch's `nn.Sequential(Linear, activation, Linear, ...)`: `0.weight`, `0.bias`, `2.weight`, ...
    Sequential,
    /// As transformers' projectors: `linear_1.weight`, `linear_1.bias`, `linear_2.weight`, ...
    Numbered,
}

impl LayerNames {
    /// The name of `tensor` (`weight` or `bias`) of linear layer `index`.
    pub(super) fn of(self, index: usize, tensor: &str) -> String {
        match self {
            LayerNames::Single => tensor.to_string(),
            LayerNames::Sequential => format!("{}.{tensor}", 2 * index),
            LayerNames::Numbered => format!("linear_{}.{tensor}", index + 1),
        }
    }

    /// The names that a checkpoint of such layers may have.
    fn spellings(self) -> &'static [LayerNames] {
        match self {
            LayerNames::Single => &[LayerNames::Single],
            _ => &[LayerNames::Sequential, LayerNames::Numbered],
        }
    }

    /// The layers that there may be.
    fn indices(self) -> std::ops::Range<usize> {
        0..if self == LayerNames::Single { 1 } else { usize::MAX / 2 }
    }
}

/// The settings of a projector.
#[derive(Debug, Clone, Copy)]
pub struct ProjectorSettings {
    /// The stitch's kind, for messages.
    pub kind: &'static str,
    /// What the layers are called.
    pub names: LayerNames,
    /// Linear layers; what the checkpoint has by default, or one.
    pub layers: Option<usize>,
    /// Width of the hidden layers; what the checkpoint has by default, or D.
    pub hidden: Option<usize>,
    /// Probability that an element of the prefix is zeroed while training; 0 to below 1.
    pub dropout: f64,
    /// Whether a layer norm over D follows the last layer.
    pub layer_norm: bool,
    /// Prefix tokens K of an encoder with one pooled vector; what the checkpoint says by default, or 1.
    pub tokens: Option<usize>,
}

impl ProjectorSettings {
    /// Refuses what no encoder and decoder could make right.
    ///
    /// # Errors
    /// A setting out of range, by name.
    pub fn check(&self) -> Result<()> {
        let Self { kind, dropout, .. } = *self;
        if !(0.0..1.0).contains(&dropout) {
            bail!("{kind}: dropout {dropout} is not allowed, expected at least 0 and below 1")
        }
        for (key, value) in [("layers", self.layers), ("width", self.hidden), ("tokens", self.tokens)] {
            if value == Some(0) {
                bail!("{kind}: {key} 0 is not allowed, expected at least 1")
            }
        }
        Ok(())
    }

    /// The number of linear layers that a checkpoint has; None where it has none, or lists no tensors.
    pub fn layers_in(&self, source: &dyn WeightSource) -> Option<usize> {
        Found::new(self.names, &source.tensors()?).map(|found| found.shapes.len())
    }
}

/// Where the linear layers stand in a checkpoint.
struct Found {
    names: LayerNames,
    prefix: String,
    /// The prefix of the norm behind them.
    norm: String,
    /// Shapes of their weights.
    shapes: Vec<Vec<usize>>,
}

impl Found {
    /// The layers under the first prefix that has them: one of a trainer, that of a published model's projector, or the one
    /// under which all tensors stand.
    fn new(names: LayerNames, tensors: &BTreeMap<String, Vec<usize>>) -> Option<Self> {
        let known = PREFIXES.into_iter().map(|(prefix, norm)| (prefix.to_string(), norm.to_string()));
        let all = known.chain(tensors.keys().filter_map(|name| own_prefix(name, names, tensors)));
        all.flat_map(|(prefix, norm)| names.spellings().iter().map(move |names| (prefix.clone(), norm.clone(), *names)))
            .find_map(|(prefix, norm, names)| {
                let weight = |index| tensors.get(&join(&prefix, &names.of(index, "weight"))).cloned();
                let shapes: Vec<Vec<usize>> = names.indices().map_while(weight).collect();
                (!shapes.is_empty()).then_some(Self { names, prefix, norm, shapes })
            })
    }
}

/// What stands before the first layer's weight, where that is a projector's name or stands before all other names too.
fn own_prefix(name: &str, names: LayerNames, tensors: &BTreeMap<String, Vec<usize>>) -> Option<(String, String)> {
    let first = names.spellings().iter().map(|names| names.of(0, "weight"));
    let prefix = first.filter_map(|first| name.strip_suffix(&first)?.strip_suffix('.')).next()?;
    let last = prefix.rsplit('.').next().unwrap_or(prefix);
    let inside = |name: &String| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
    (PROJECTORS.contains(&last) || tensors.keys().all(inside)).then(|| (prefix.to_string(), join(prefix, "ln")))
}

/// What the layers are, before any is read.
pub(super) struct Layout {
    pub(super) names: LayerNames,
    pub(super) prefix: String,
    pub(super) norm: String,
    /// Width after each linear layer; the last is D, or K·D of one pooled vector.
    pub(super) widths: Vec<usize>,
    /// K where one pooled vector becomes K tokens.
    pub(super) pooled: Option<usize>,
    /// Prefix tokens K.
    pub(super) tokens: usize,
}

impl Layout {
    pub(super) fn new(settings: &ProjectorSettings, context: &StitchContext) -> Result<Self> {
        let (n, e, d) = (context.features.tokens, context.features.width, context.width);
        let one_vector = context.features.kind == FeatureKind::Pooled && n == 1;
        if let Some(tokens) = settings.tokens.filter(|tokens| !one_vector && *tokens != n) {
            bail!(
                "stitch {}: tokens is {tokens}, but encoder {} gives {n} tokens of width {e} and each becomes one prefix token; leave tokens out or set it to {n}",
                settings.kind,
                context.encoder
            )
        }
        let (names, prefix, norm, widths, pooled) = match context.source.tensors() {
            Some(tensors) => {
                let checkpoint = Checkpoint::find(settings.names, tensors, context)?;
                let (widths, pooled) = checkpoint.widths(settings, one_vector)?;
                checkpoint.check_norm(settings.layer_norm)?;
                let Found { names, prefix, norm, .. } = checkpoint.found;
                (names, prefix, norm, widths, pooled)
            }
            None => {
                let pooled = one_vector.then(|| settings.tokens.unwrap_or(1));
                let mut widths = vec![settings.hidden.unwrap_or(d); settings.layers.unwrap_or(1).saturating_sub(1)];
                widths.push(pooled.unwrap_or(1) * d);
                (settings.names, String::new(), "ln".to_string(), widths, pooled)
            }
        };
        Ok(Self { names, prefix, norm, widths, pooled, tokens: pooled.unwrap_or(n) })
    }
}

/// A checkpoint that has the layers somewhere.
struct Checkpoint<'a> {
    context: &'a StitchContext<'a>,
    label: String,
    tensors: BTreeMap<String, Vec<usize>>,
    found: Found,
}

impl<'a> Checkpoint<'a> {
    fn find(names: LayerNames, tensors: BTreeMap<String, Vec<usize>>, context: &'a StitchContext) -> Result<Self> {
        let label = context.source.label();
        let found = Found::new(names, &tensors).ok_or_else(|| {
            let there: Vec<&str> = tensors.keys().take(6).map(String::as_str).collect();
            anyhow!("stitch checkpoint {label} has no tensor {:?}; it has: {}", names.of(0, "weight"), there.join(", "))
        })?;
        Ok(Self { context, label, tensors, found })
    }

    /// The width after each layer, and K of one pooled vector, held against both sides and the settings.
    fn widths(&self, settings: &ProjectorSettings, one_vector: bool) -> Result<(Vec<usize>, Option<usize>)> {
        let Self { context, label, found: Found { names, prefix, shapes, .. }, .. } = self;
        let (n, e, d) = (context.features.tokens, context.features.width, context.width);
        let sides = format!("encoder {} gives {n} x {e} and decoder {} takes {d}", context.encoder, context.decoder);
        let mut widths: Vec<usize> = Vec::with_capacity(shapes.len());
        for (index, shape) in shapes.iter().enumerate() {
            let weight = names.of(index, "weight");
            let [rows, columns] = shape[..] else {
                bail!("stitch checkpoint {label}: {weight} has shape {shape:?}, expected [rows, columns]; {sides}")
            };
            if let Some(before) = widths.last().filter(|before| **before != columns) {
                bail!("stitch checkpoint {label}: {weight} {shape:?} does not follow a layer of width {before}")
            }
            let bias = names.of(index, "bias");
            match self.tensors.get(&join(prefix, &bias)) {
                None => bail!("stitch checkpoint {label} has no tensor {bias:?} beside {weight} {shape:?}"),
                Some(found) if found[..] != [rows] => {
                    bail!("stitch checkpoint {label}: {bias} has shape {found:?}, {weight} {shape:?} needs [{rows}]")
                }
                Some(_) => widths.push(rows),
            }
        }
        let (first, last) = (shapes[0][1], widths[widths.len() - 1]);
        let shown = match names {
            LayerNames::Single => format!("weight {:?}", shapes[0]),
            _ => format!("weights {shapes:?}"),
        };
        let maps = format!("stitch checkpoint {label} maps width {first} to {last} ({shown})");
        let fits = if one_vector { d > 0 && last > 0 && last % d == 0 } else { last == d };
        if first != e || !fits {
            bail!("{maps}; {sides}")
        }
        let pooled = one_vector.then(|| last / d);
        if let (Some(k), Some(tokens)) = (pooled, settings.tokens)
            && k != tokens
        {
            bail!("{maps}, which makes {k} prefix tokens of width {d}; the settings say tokens {tokens}")
        }
        if let Some(layers) = settings.layers.filter(|layers| *layers != widths.len()) {
            bail!("{maps} by {} layers; the settings say layers {layers}", widths.len())
        }
        if let Some(width) = settings.hidden.filter(|width| widths[..widths.len() - 1].iter().any(|w| w != width)) {
            bail!("{maps}; the settings say width {width} for the hidden layers")
        }
        Ok((widths, pooled))
    }

    /// The layer norm is there where the settings say so, and has the decoder's width.
    fn check_norm(&self, wanted: bool) -> Result<()> {
        let Self { context, label, .. } = self;
        for name in ["weight", "bias"].map(|name| join(&self.found.norm, name)) {
            match (wanted, self.tensors.get(&name)) {
                (true, None) => bail!("layer_norm is on, but stitch checkpoint {label} has no tensor {name:?}"),
                (false, Some(_)) => bail!(
                    "stitch checkpoint {label} has a layer norm ({name:?}), but layer_norm is off in the settings"
                ),
                (true, Some(shape)) if shape[..] != [context.width] => bail!(
                    "stitch checkpoint {label}: {name:?} has shape {shape:?}, decoder {} takes {}",
                    context.decoder,
                    context.width
                ),
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") }
}
