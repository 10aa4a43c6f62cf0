//! A stitch of linear layers, with dropout and layer norm behind it.
//!
//! Features `[B, N, E]` to prefix `[B, K, D]`. Many tokens: the same layers E → hidden → D on each, K = N. One pooled
//! vector: the last layer gives K·D values, read as K x D.

use super::layout::{Layout, join};
use super::{LayerNames, Mode, PrefixSpec, ProjectorSettings};
use crate::ops::{dropout, layer_norm_trainable};
use crate::registry::StitchContext;
use crate::weights::{Init, ONES, Weights, ZEROS};
use anyhow::bail;
use candle_core::{Result, Tensor, Var};
use std::collections::BTreeMap;

/// PyTorch's default epsilon of a layer norm.
const EPS: f64 = 1e-5;

/// The trained layers of a projector.
pub struct Projector {
    names: LayerNames,
    /// Weight `[out, in]` and bias `[out]` of each linear layer.
    layers: Vec<(Var, Var)>,
    norm: Option<(Var, Var)>,
    dropout: f32,
    /// K where one pooled vector becomes K tokens.
    pooled: Option<usize>,
    n_in: usize,
    width: usize,
}

impl Projector {
    /// The prefix that these settings give between these two sides.
    ///
    /// # Errors
    /// A checkpoint that does not fit, naming both sides.
    pub fn specs(settings: &ProjectorSettings, context: &StitchContext) -> anyhow::Result<PrefixSpec> {
        Ok(PrefixSpec { tokens: Layout::new(settings, context)?.tokens, width: context.width })
    }

    /// The layers from `weights`.
    ///
    /// # Errors
    /// As [`Self::specs`]; values that are not finite.
    pub fn new(settings: &ProjectorSettings, context: &StitchContext, weights: &Weights) -> anyhow::Result<Self> {
        let layout = Layout::new(settings, context)?;
        let (e, d) = (context.features.width, context.width);
        let mut layers = Vec::with_capacity(layout.widths.len());
        let mut n_in = e;
        for (index, n_out) in layout.widths.iter().copied().enumerate() {
            let tensor = |tensor| join(&layout.prefix, &layout.names.of(index, tensor));
            let weight = variable(weights, &tensor("weight"), &[n_out, n_in], Init::fan_in(n_in))?;
            layers.push((weight, variable(weights, &tensor("bias"), &[n_out], Init::fan_in(n_in))?));
            n_in = n_out;
        }
        let norm = match settings.layer_norm {
            true => {
                let tensor = |tensor| join(&layout.norm, tensor);
                let gain = variable(weights, &tensor("weight"), &[d], ONES)?;
                Some((gain, variable(weights, &tensor("bias"), &[d], ZEROS)?))
            }
            false => None,
        };
        let (names, dropout, pooled) = (settings.names, settings.dropout as f32, layout.pooled);
        Ok(Self { names, layers, norm, dropout, pooled, n_in: e, width: d })
    }

    /// As [`Stitch::prefix_spec`](super::Stitch::prefix_spec).
    pub fn prefix_spec(&self, tokens: usize) -> PrefixSpec {
        PrefixSpec { tokens: self.pooled.unwrap_or(tokens), width: self.width }
    }

    /// Features `[B, N, E]` to prefix `[B, K, D]`, with `activation` between two layers.
    ///
    /// # Errors
    /// Features of another shape.
    pub fn project(
        &self,
        features: &Tensor,
        mode: Mode,
        activation: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (b, n) = match (features.dims(), self.pooled) {
            ([b, n, e], None) if *b > 0 && *n > 0 && *e == self.n_in => (*b, *n),
            ([b, 1, e], Some(_)) if *b > 0 && *e == self.n_in => (*b, 1),
            (other, pooled) => candle_core::bail!(
                "features have shape {other:?}, expected [B, {}, {}]",
                if pooled.is_some() { "1" } else { "N" },
                self.n_in
            ),
        };
        let mut y = features.reshape((b * n, self.n_in))?;
        for (index, (weight, bias)) in self.layers.iter().enumerate() {
            if index > 0 {
                y = activation(&y)?;
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

    /// As [`Stitch::variables`](super::Stitch::variables).
    pub fn variables(&self) -> BTreeMap<String, Var> {
        let mut all = BTreeMap::new();
        for (index, (weight, bias)) in self.layers.iter().enumerate() {
            all.insert(self.names.of(index, "weight"), weight.clone());
            all.insert(self.names.of(index, "bias"), bias.clone());
        }
        if let Some((gain, shift)) = &self.norm {
            all.extend([("ln.weight".into(), gain.clone()), ("ln.bias".into(), shift.clone())]);
        }
        all
    }
}

/// A variable from a tensor of the source, which must be finite: training from a NaN only spreads it.
fn variable(weights: &Weights, name: &str, shape: &[usize], init: Init) -> anyhow::Result<Var> {
    let tensor = weights.tensor(name, shape, init)?;
    // x * 0 is NaN for what is not finite, and a sum keeps a NaN.
    if tensor.affine(0.0, 0.0)?.sum_all()?.to_scalar::<f32>()?.is_nan() {
        bail!("{}: tensor {name:?} has values that are not finite", weights.source().label())
    }
    Ok(Var::from_tensor(&tensor)?)
}
