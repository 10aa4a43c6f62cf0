//! A toy stitch: one matrix and one shift, and its lies.

use super::{caught, honest, parse};
use candle_core::{Result, Tensor, Var};
use limber_core::registry::{Entry, Maker, Prepared};
use limber_core::stitch::PrefixSpec;
use limber_core::{Init, Mode, Stitch};
use limber_kit::check_entry;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lie {
    None,
    Tokens,
    Batch,
    Draws,
    FixedDropout,
    DrawsInTraining,
    NoVariables,
    CutShift,
    WrongGradient,
    NotLoaded,
    Misfit,
    AnyShape,
    Panics,
}

struct Toy {
    lie: Lie,
    weight: Var,
    shift: Var,
    calls: AtomicUsize,
}

impl Stitch for Toy {
    fn prefix_spec(&self, tokens: usize) -> PrefixSpec {
        PrefixSpec { tokens: tokens + usize::from(self.lie == Lie::Tokens), width: self.shift.elem_count() }
    }

    fn project(&self, features: &Tensor, mode: Mode) -> Result<Tensor> {
        let (e, d) = self.weight.dims2()?;
        let features = match (self.lie, features.dims()) {
            (Lie::AnyShape, dims) if dims.last() != Some(&e) => &features.narrow(dims.len() - 1, 0, e)?,
            _ => features,
        };
        let (b, n, _) = features.dims3()?;
        assert!(self.lie != Lie::Panics, "a stitch in time");
        let weight = match self.lie {
            // The value is the weight's, the gradient its opposite.
            Lie::WrongGradient => (self.weight.detach() * 2.0)?.sub(&self.weight)?,
            _ => self.weight.as_tensor().clone(),
        };
        let shift = if self.lie == Lie::CutShift { self.shift.detach() } else { self.shift.as_tensor().clone() };
        let y =
            features.contiguous()?.reshape((b * n, e))?.matmul(&weight)?.broadcast_add(&shift)?.reshape((b, n, d))?;
        let call = || self.calls.fetch_add(1, Ordering::Relaxed) as f64;
        match (self.lie, mode) {
            (Lie::Batch, _) => y.broadcast_sub(&y.mean_keepdim(0)?),
            (Lie::Draws, _) | (Lie::DrawsInTraining, Mode::Training { .. }) => y + call(),
            (Lie::FixedDropout, _) => limber_core::ops::dropout(&y, 0.3, 1),
            _ => Ok(y),
        }
    }

    fn variables(&self) -> BTreeMap<String, Var> {
        if self.lie == Lie::NoVariables {
            return BTreeMap::new();
        }
        BTreeMap::from([("weight".into(), self.weight.clone()), ("shift".into(), self.shift.clone())])
    }
}

fn entry(lie: Lie) -> Entry {
    super::entry(Maker::Stitch(Arc::new(move |settings, context| {
        let (e, d) = (context.features.width, context.width);
        let spec = PrefixSpec { tokens: context.features.tokens, width: d };
        let found = context.source.tensors().and_then(|tensors| tensors.get("weight").cloned());
        if let Some(shape) = found
            && shape != [e, d]
            && lie != Lie::Misfit
        {
            anyhow::bail!(
                "weight {shape:?}; encoder {} gives {e}, decoder {} takes {d}",
                context.encoder,
                context.decoder
            )
        }
        Ok(Prepared::new("toy", parse(settings, true)?, spec, move |weights| {
            let weights = match lie {
                Lie::NotLoaded => &limber_core::Weights::random(3),
                _ => weights,
            };
            let weight = Var::from_tensor(&weights.tensor("weight", &[e, d], Init::normal(1.0))?)?;
            let shift = Var::from_tensor(&weights.tensor("shift", &[d], Init::normal(1.0))?)?;
            Ok(Box::new(Toy { lie, weight, shift, calls: AtomicUsize::new(0) }) as Box<dyn Stitch>)
        }))
    })))
}

#[test]
fn an_honest_stitch_passes() {
    honest(&entry(Lie::None));
}

#[test]
fn every_lie_is_caught() {
    let check = |lie, name, reason| caught(&check_entry(&entry(lie)), name, reason);
    check(Lie::Tokens, "patches: the prefix has the shape", "tokens: 6");
    check(Lie::Batch, "a batch gives", "row 0 of 3");
    check(Lie::Draws, "inference has no dropout", "second call");
    check(Lie::FixedDropout, "inference has no dropout", "equal rows");
    check(Lie::DrawsInTraining, "function of the seed", "second call");
    check(Lie::NoVariables, "every variable", "no variable to train");
    check(Lie::CutShift, "every variable", "no gradient reaches \"shift\"");
    check(Lie::WrongGradient, "every variable", "gradient of \"weight\": finite differences");
    check(Lie::NotLoaded, "pooled vector: saved variables", "loaded stitch");
    check(Lie::Misfit, "does not fit is refused", "was accepted");
    check(Lie::AnyShape, "another shape", "was accepted");
    check(Lie::Panics, "the prefix has the shape", "panicked: a stitch in time");
}
