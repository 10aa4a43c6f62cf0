//! The contract of `Stitch`: patches and a pooled vector, variables, gradients, dropout, save and load.

use crate::lively::lively;
use crate::report::Report;
use crate::values::{close, has_shape, noise, refused, same};
use crate::{gradient, settings};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor, Var};
use limber_core::registry::{Entry, Maker, PrepareStitchFn, PreparedStitch};
use limber_core::weights::{FrozenData, Request, WeightError};
use limber_core::{FeatureKind, FeatureSpec, Mode, Stitch, StitchContext, WeightSource, Weights};
use std::collections::BTreeMap;
use std::sync::Arc;

const E: usize = 6;
const D: usize = 8;
const ENCODER: &str = "toy-encoder";
const DECODER: &str = "toy-decoder";

/// Checks a stitch between a toy encoder (patches, then one pooled vector) and a toy decoder.
pub fn check_stitch(entry: &Entry) -> Report {
    let mut report = Report::new(entry);
    let Maker::Stitch(prepare) = &entry.maker else {
        report.check("is a stitch", || bail!("it is registered as {}", entry.maker.role()));
        return report;
    };
    let source = lively(1);
    let patches = FeatureSpec { tokens: 5, width: E, kind: FeatureKind::Patches };
    settings::check(&mut report, entry, |settings| prepare(settings, &context(source.as_ref(), patches, D)));
    let pooled = FeatureSpec { tokens: 1, width: E, kind: FeatureKind::Pooled };
    for (name, features) in [("patches", patches), ("a pooled vector", pooled)] {
        check_sides(&mut report, entry, prepare, name, features);
    }
    report
}

fn check_sides(report: &mut Report, entry: &Entry, prepare: &PrepareStitchFn, name: &str, sides: FeatureSpec) {
    let named = |what: &str| format!("{name}: {what}");
    let prepared = |source: &dyn WeightSource, width| -> Result<PreparedStitch> {
        prepare(entry.tiny.clone(), &context(source, sides, width))
    };
    let build = |source: Arc<dyn WeightSource>| -> Result<_> {
        let prepared = prepared(source.as_ref(), D)?;
        Ok((prepared.spec, prepared.build(&Weights::new(source, Device::Cpu, None))?))
    };
    let built = || build(lively(1));
    let Some((spec, stitch)) = report.get(&named("builds from its tiny settings with random weights"), built) else {
        return;
    };
    let stitch: &dyn Stitch = stitch.as_ref();
    let n = sides.tokens;
    let features = |b: usize, seed| noise(&[b, n, E], seed);

    report.check(&named("the prefix has the shape of the spec, f32 and finite"), || {
        ensure!(spec.width == D, "the spec's width is {}, the decoder takes {D}", spec.width);
        let after = stitch.prefix_spec(n);
        ensure!(after == spec, "spec {spec:?} became {after:?}");
        for mode in [Mode::Inference, Mode::Training { seed: 1 }] {
            has_shape("prefixes", &stitch.project(&features(3, 2)?, mode)?, &[3, spec.tokens, D])?;
        }
        Ok(())
    });
    report.check(&named("a batch gives what its images give alone"), || {
        let features = features(3, 3)?;
        let batch = stitch.project(&features, Mode::Inference)?;
        for row in 0..3 {
            let single = stitch.project(&features.narrow(0, row, 1)?, Mode::Inference)?;
            close(&format!("row {row} of 3"), &batch.narrow(0, row, 1)?, &single)?;
        }
        Ok(())
    });
    report.check(&named("inference has no dropout"), || {
        // A mask over the batch would differ from row to row, and from call to call where it is drawn anew.
        let one = features(1, 4)?;
        let prefix = stitch.project(&Tensor::cat(&[&one, &one, &one, &one], 0)?, Mode::Inference)?;
        for row in 1..4 {
            close(&format!("equal rows 0 and {row}"), &prefix.narrow(0, 0, 1)?, &prefix.narrow(0, row, 1)?)?;
        }
        same("second call", &stitch.project(&one, Mode::Inference)?, &stitch.project(&one, Mode::Inference)?)
    });
    report.check(&named("training is a function of the seed"), || {
        let features = features(2, 5)?;
        let mode = Mode::Training { seed: 7 };
        same("second call", &stitch.project(&features, mode)?, &stitch.project(&features, mode)?)
    });
    report.check(&named("every variable has a gradient that equals finite differences"), || {
        let variables = stitch.variables();
        ensure!(!variables.is_empty(), "there is no variable to train");
        let features = features(2, 6)?;
        for (name, variable) in &variables {
            ensure!(
                variable.dtype() == DType::F32,
                "variable {name:?} is {:?}, the contract says f32",
                variable.dtype()
            );
            for mode in [Mode::Inference, Mode::Training { seed: 3 }] {
                gradient::check(&format!("{name:?}"), variable, None, &|| stitch.project(&features, mode))?;
            }
        }
        Ok(())
    });
    report.check(&named("saved variables load to the same stitch"), || {
        let (_, again) = build(Arc::new(Saved::new(&moved(stitch)?)?)).context("of saved variables")?;
        let features = features(2, 7)?;
        let first = stitch.project(&features, Mode::Inference)?;
        same("loaded stitch", &first, &again.project(&features, Mode::Inference)?)?;
        let names = |stitch: &dyn Stitch| stitch.variables().into_keys().collect::<Vec<_>>();
        ensure!(names(stitch) == names(again.as_ref()), "names {:?} became {:?}", names(stitch), names(again.as_ref()));
        Ok(())
    });
    report.check(&named("a checkpoint that does not fit is refused before its weights, naming both sides"), || {
        let saved = Saved { unread: true, ..Saved::new(&stitch.variables())? };
        // D + 1 is a width that no whole number of tokens of the checkpoint's fills.
        let Err(error) = prepared(&saved, D + 1) else { bail!("a checkpoint of width {D} was accepted for {}", D + 1) };
        let message = format!("{error:#}");
        for side in [ENCODER, DECODER] {
            ensure!(message.contains(side), "the message does not name {side:?}: {message:?}");
        }
        Ok(())
    });
    report.check(&named("features of another shape are an error"), || {
        for shape in [&[2, n, E + 1][..], &[n, E], &[2, n, E, 1]] {
            let features = Tensor::zeros(shape, DType::F32, &Device::Cpu)?;
            refused(&format!("shape {shape:?}"), stitch.project(&features, Mode::Inference))?;
        }
        Ok(())
    });
}

/// Moves every variable a little, so that a stitch that does not load them but draws them again is found out.
fn moved(stitch: &dyn Stitch) -> Result<BTreeMap<String, Var>> {
    let variables = stitch.variables();
    for (i, variable) in variables.values().enumerate() {
        let step = noise(variable.dims(), 20 + i as u64)?.affine(0.1, 0.0)?;
        variable.set(&variable.as_tensor().add(&step)?)?;
    }
    Ok(variables)
}

fn context(source: &dyn WeightSource, features: FeatureSpec, width: usize) -> StitchContext<'_> {
    StitchContext { features, encoder: ENCODER, width, decoder: DECODER, source }
}

/// Variables as a checkpoint would list them.
struct Saved {
    tensors: BTreeMap<String, FrozenData>,
    unread: bool,
}

impl Saved {
    fn new(variables: &BTreeMap<String, Var>) -> Result<Self> {
        let save = |(name, variable): (&String, &Var)| -> Result<_> {
            let values = variable.as_tensor().flatten_all()?.to_vec1::<f32>()?;
            Ok((name.clone(), FrozenData::from_f32(values, variable.dims())))
        };
        Ok(Self { tensors: variables.iter().map(save).collect::<Result<_>>()?, unread: false })
    }
}

impl WeightSource for Saved {
    fn label(&self) -> String {
        "saved.safetensors".into()
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        Some(self.tensors.iter().map(|(name, data)| (name.clone(), data.shape().to_vec())).collect())
    }

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        let error = |message: &str| WeightError::Read { source_label: self.label(), message: message.into() };
        if self.unread {
            return Err(error("a value was read before the shapes were compared"));
        }
        self.tensors.get(request.name).cloned().ok_or_else(|| error(&format!("no tensor {:?}", request.name)))
    }
}
