//! Shapes, names, gradients by finite differences, dropout, and every refusal of a projector. Numbers against torch's
//! are in the integration tests, and the settings of each kind in its crate.

use super::layout::{PREFIXES, join};
use super::*;
use crate::ops::{gelu_erf, gelu_tanh};
use crate::random::RandomSource;
use crate::registry::StitchContext;
use crate::spec::{FeatureKind, FeatureSpec};
use crate::weights::{FrozenData, Init, Request, WeightError, WeightSource, Weights};
use candle_core::{DType, Device};
use std::sync::Arc;

const N: usize = 5;
const E: usize = 6;
const D: usize = 4;

const PATCHES: FeatureSpec = FeatureSpec { tokens: N, width: E, kind: FeatureKind::Patches };
const POOLED: FeatureSpec = FeatureSpec { tokens: 1, width: E, kind: FeatureKind::Pooled };

const SINGLE: ProjectorSettings = ProjectorSettings {
    kind: "linear",
    names: LayerNames::Single,
    layers: None,
    hidden: None,
    dropout: 0.1,
    layer_norm: false,
    tokens: None,
};
const SEQUENTIAL: ProjectorSettings = ProjectorSettings { kind: "mlp", names: LayerNames::Sequential, ..SINGLE };

/// Tensors in memory, as a checkpoint would list them.
struct Memory(BTreeMap<String, FrozenData>);

impl Memory {
    fn new(tensors: &[(&str, &[usize])]) -> Self {
        let data = |shape: &[usize]| FrozenData::from_f32(vec![0.5; shape.iter().product()], shape);
        Self(tensors.iter().map(|(name, shape)| (name.to_string(), data(shape))).collect())
    }
}

impl WeightSource for Memory {
    fn label(&self) -> String {
        "proj.ckpt".into()
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        Some(self.0.iter().map(|(name, data)| (name.clone(), data.shape().to_vec())).collect())
    }

    fn read(&self, request: &Request) -> std::result::Result<FrozenData, WeightError> {
        Ok(self.0[request.name].clone())
    }
}

fn context<'a>(source: &'a dyn WeightSource, features: FeatureSpec) -> StitchContext<'a> {
    StitchContext { features, encoder: "clip-resnet", width: D, decoder: "gptj", source }
}

fn build(
    settings: &ProjectorSettings,
    source: Arc<dyn WeightSource>,
    features: FeatureSpec,
) -> anyhow::Result<Projector> {
    let weights = Weights::new(source.clone(), Device::Cpu, None);
    Projector::new(settings, &context(source.as_ref(), features), &weights)
}

fn random(settings: &ProjectorSettings, features: FeatureSpec) -> Projector {
    build(settings, Arc::new(RandomSource::new(1)), features).unwrap()
}

fn noise(shape: &[usize], seed: u64) -> Tensor {
    Weights::random(seed).tensor("noise", shape, Init::normal(1.0)).unwrap()
}

#[test]
fn shapes_of_patches_and_pooled() {
    let check = |kind, n: usize, tokens: Option<usize>, k: usize| {
        let features = FeatureSpec { tokens: n, width: E, kind };
        for settings in [SINGLE, ProjectorSettings { layers: Some(2), ..SEQUENTIAL }] {
            let settings = ProjectorSettings { tokens, ..settings };
            let spec = Projector::specs(&settings, &context(&RandomSource::new(1), features)).unwrap();
            assert_eq!(spec, PrefixSpec { tokens: k, width: D });
            let stitch = random(&settings, features);
            assert_eq!(stitch.prefix_spec(n), spec);
            let prefix = stitch.project(&noise(&[2, n, E], 2), Mode::Inference, gelu_erf).unwrap();
            assert_eq!(prefix.dims(), [2, k, D]);
        }
    };
    check(FeatureKind::Patches, N, None, N);
    check(FeatureKind::Patches, N, Some(N), N);
    check(FeatureKind::Patches, 1, None, 1);
    check(FeatureKind::Pooled, 1, None, 1);
    check(FeatureKind::Pooled, 1, Some(3), 3);
    check(FeatureKind::Pooled, 2, None, 2);
}

#[test]
fn layers_widths_and_k_are_read_off_the_checkpoint() {
    let one = Memory::new(&[("weight", &[3 * D, E]), ("bias", &[3 * D])]);
    assert_eq!(Projector::specs(&SINGLE, &context(&one, POOLED)).unwrap().tokens, 3);
    let shapes: [(&str, &[usize]); 6] = [
        ("0.weight", &[9, E]),
        ("0.bias", &[9]),
        ("2.weight", &[7, 9]),
        ("2.bias", &[7]),
        ("4.weight", &[3 * D, 7]),
        ("4.bias", &[3 * D]),
    ];
    let stitch = build(&SEQUENTIAL, Arc::new(Memory::new(&shapes)), POOLED).unwrap();
    assert_eq!(stitch.prefix_spec(1).tokens, 3);
    let variables = stitch.variables();
    assert_eq!(variables.len(), 6);
    for (name, shape) in shapes {
        assert_eq!(variables[name].dims(), shape);
    }
    assert_eq!(SEQUENTIAL.layers_in(&Memory::new(&shapes)), Some(3));
    assert_eq!(SEQUENTIAL.layers_in(&one), None);
    assert_eq!(SEQUENTIAL.layers_in(&RandomSource::new(1)), None);
}

#[test]
fn the_settings_give_layers_and_widths() {
    let check = |layers, hidden, expected: &[&[usize]]| {
        let variables = random(&ProjectorSettings { layers, hidden, ..SEQUENTIAL }, PATCHES).variables();
        let shapes: Vec<&[usize]> =
            (0..expected.len()).map(|i| variables[&format!("{}.weight", 2 * i)].dims()).collect();
        assert_eq!((shapes, variables.len()), (expected.to_vec(), 2 * expected.len()));
    };
    check(Some(1), None, &[&[D, E]]);
    check(Some(2), None, &[&[D, E], &[D, D]]);
    check(Some(3), Some(9), &[&[9, E], &[9, 9], &[D, 9]]);
}

#[test]
fn every_prefix_of_a_trainer_is_found() {
    let check = |settings: ProjectorSettings, layers: &[(&str, &[usize])]| {
        for (prefix, norm) in PREFIXES {
            let norm = ["weight", "bias"].map(|name| (join(norm, name), &[D][..]));
            let named = layers.iter().map(|(name, shape)| (join(prefix, name), *shape)).chain(norm);
            let named: Vec<(String, &[usize])> = named.collect();
            let listed: Vec<(&str, &[usize])> = named.iter().map(|(name, shape)| (name.as_str(), *shape)).collect();
            let stitch = build(&settings, Arc::new(Memory::new(&listed)), PATCHES).unwrap();
            let names: Vec<String> = stitch.variables().into_keys().collect();
            let mut expected: Vec<&str> =
                layers.iter().map(|(name, _)| *name).chain(["ln.bias", "ln.weight"]).collect();
            expected.sort_unstable();
            assert_eq!(names, expected, "{prefix:?}");
        }
    };
    let norm = |settings| ProjectorSettings { layer_norm: true, ..settings };
    check(norm(SINGLE), &[("weight", &[D, E]), ("bias", &[D])]);
    check(norm(SEQUENTIAL), &[("0.weight", &[7, E]), ("0.bias", &[7]), ("2.weight", &[D, 7]), ("2.bias", &[D])]);
}

#[test]
fn the_projector_of_a_published_model_is_found() {
    let named = |layers: &[&str], others: &[&str]| {
        let widths = [E, 7, D];
        let layer = |i: usize| {
            [
                (format!("{}.weight", layers[i]), vec![widths[i + 1], widths[i]]),
                (format!("{}.bias", layers[i]), vec![widths[i + 1]]),
            ]
        };
        let others = others.iter().map(|name| (name.to_string(), vec![D, D]));
        let all: Vec<(String, Vec<usize>)> = (0..2).flat_map(layer).chain(others).collect();
        let listed: Vec<(&str, &[usize])> = all.iter().map(|(name, shape)| (name.as_str(), &shape[..])).collect();
        Projector::specs(&SEQUENTIAL, &context(&Memory::new(&listed), PATCHES)).map(|spec| spec.tokens)
    };
    let inside = ["a.layers.0.weight", "vision.0.weight", "vision.0.bias", "z"];
    for (layers, others) in [
        (["model.mm_projector.0", "model.mm_projector.2"], &[][..]),
        (["base_model.model.model.mm_projector.0", "base_model.model.model.mm_projector.2"], &inside),
        (["multi_modal_projector.linear_1", "multi_modal_projector.linear_2"], &inside),
        // Whatever it is called, where nothing else is there.
        (["a.b.bridge.0", "a.b.bridge.2"], &["a.b.bridge.1.steps"]),
        (["bridge.linear_1", "bridge.linear_2"], &[]),
    ] {
        assert_eq!(named(&layers, others).unwrap(), N, "{layers:?}");
    }
    let message = named(&["bridge.0", "bridge.2"], &["other"]).unwrap_err().to_string();
    assert!(message.contains("no tensor \"0.weight\"; it has: bridge.0.bias"), "{message}");
    // One layer, for `linear`.
    let one = Memory::new(&[("model.mm_projector.weight", &[D, E]), ("model.mm_projector.bias", &[D])]);
    assert_eq!(
        build(&SINGLE, Arc::new(one), PATCHES).unwrap().variables().into_keys().collect::<Vec<_>>(),
        ["bias", "weight"]
    );
}

#[track_caller]
fn refused(settings: ProjectorSettings, features: FeatureSpec, tensors: &[(&str, &[usize])], expected: &str) {
    let source = Memory::new(tensors);
    let message = Projector::specs(&settings, &context(&source, features)).unwrap_err().to_string();
    assert!(message.contains(expected), "{message:?} lacks {expected:?}");
}

#[test]
fn refusals_of_one_layer_name_both_sides() {
    let weight = |shape: &'static [usize], bias: &'static [usize]| [("weight", shape), ("bias", bias)];
    refused(
        SINGLE,
        PATCHES,
        &weight(&[D, 7], &[D]),
        "stitch checkpoint proj.ckpt maps width 7 to 4 (weight [4, 7]); encoder clip-resnet gives 5 x 6 and decoder gptj takes 4",
    );
    refused(SINGLE, PATCHES, &weight(&[8, E], &[8]), "maps width 6 to 8");
    refused(SINGLE, POOLED, &weight(&[7, E], &[7]), "maps width 6 to 7");
    let three = ProjectorSettings { tokens: Some(3), ..SINGLE };
    let made = "makes 2 prefix tokens of width 4; the settings say tokens 3";
    refused(three, POOLED, &weight(&[8, E], &[8]), made);
    refused(
        three,
        PATCHES,
        &weight(&[D, E], &[D]),
        "stitch linear: tokens is 3, but encoder clip-resnet gives 5 tokens of width 6",
    );
    refused(SINGLE, PATCHES, &[("weight", &[D, E])], "has no tensor \"bias\" beside weight [4, 6]");
    refused(SINGLE, PATCHES, &weight(&[D, E], &[3]), "bias has shape [3], weight [4, 6] needs [4]");
    refused(
        SINGLE,
        PATCHES,
        &[("0.weight", &[D, E]), ("2.weight", &[D, D])],
        "no tensor \"weight\"; it has: 0.weight, 2.weight",
    );
    refused(SINGLE, PATCHES, &[("weight", &[D])], "weight has shape [4], expected [rows, columns]; encoder");
    let norm = ProjectorSettings { layer_norm: true, ..SINGLE };
    refused(norm, PATCHES, &weight(&[D, E], &[D]), "no tensor \"ln.weight\"");
    let with = |shape| [("weight", &[D, E][..]), ("bias", &[D]), ("ln.weight", shape), ("ln.bias", &[D])];
    refused(SINGLE, PATCHES, &with(&[D]), "layer_norm is off");
    refused(norm, PATCHES, &with(&[3]), "\"ln.weight\" has shape [3], decoder gptj takes 4");
}

#[test]
fn refusals_of_several_layers_name_both_sides() {
    let check = |first: &[usize], last: &[usize], settings: ProjectorSettings, features, expected: &str| {
        let bias = [first[0], last[0]];
        let tensors = [("0.weight", first), ("0.bias", &bias[..1]), ("2.weight", last), ("2.bias", &bias[1..])];
        refused(settings, features, &tensors, expected);
    };
    check(
        &[7, 8],
        &[D, 7],
        SEQUENTIAL,
        PATCHES,
        "stitch checkpoint proj.ckpt maps width 8 to 4 (weights [[7, 8], [4, 7]]); encoder clip-resnet gives 5 x 6 and decoder gptj takes 4",
    );
    check(&[7, E], &[5, 7], SEQUENTIAL, PATCHES, "maps width 6 to 5");
    check(&[7, E], &[5, 7], SEQUENTIAL, POOLED, "maps width 6 to 5");
    check(&[7, E], &[D, 8], SEQUENTIAL, PATCHES, "2.weight [4, 8] does not follow a layer of width 7");
    let three = ProjectorSettings { tokens: Some(3), ..SEQUENTIAL };
    check(&[7, E], &[8, 7], three, POOLED, "makes 2 prefix tokens of width 4; the settings say tokens 3");
    check(&[7, E], &[D, 7], three, PATCHES, "stitch mlp: tokens is 3, but encoder clip-resnet gives 5");
    let layers = ProjectorSettings { layers: Some(3), ..SEQUENTIAL };
    check(&[7, E], &[D, 7], layers, PATCHES, "by 2 layers; the settings say layers 3");
    let hidden = ProjectorSettings { hidden: Some(9), ..SEQUENTIAL };
    check(&[7, E], &[D, 7], hidden, PATCHES, "the settings say width 9");
    refused(SEQUENTIAL, PATCHES, &[("weight", &[D, E])], "no tensor \"0.weight\"; it has: weight");
    refused(SEQUENTIAL, PATCHES, &[("0.weight", &[D, E])], "no tensor \"0.bias\" beside 0.weight [4, 6]");
    let bias = [("0.weight", &[D, E][..]), ("0.bias", &[3])];
    refused(SEQUENTIAL, PATCHES, &bias, "0.bias has shape [3], 0.weight [4, 6] needs [4]");
    refused(SEQUENTIAL, PATCHES, &[("0.weight", &[D])], "0.weight has shape [4]");
}

#[test]
fn values_that_are_not_finite_are_refused() {
    for (settings, weight, bias) in [(SINGLE, "weight", "bias"), (SEQUENTIAL, "0.weight", "0.bias")] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut source = Memory::new(&[(weight, &[D, E]), (bias, &[D])]);
            source.0.insert(bias.into(), FrozenData::from_f32(vec![0.0, bad, 0.0, 0.0], &[D]));
            let message = build(&settings, Arc::new(source), PATCHES).err().unwrap().to_string();
            assert!(message.contains("proj.ckpt") && message.contains("not finite"), "{message}");
        }
    }
}

#[test]
fn features_of_another_shape_are_an_error() {
    let check = |stitch: Projector, shapes: &[&[usize]], expected: &str| {
        for shape in shapes {
            let x = Tensor::zeros(*shape, DType::F32, &Device::Cpu).unwrap();
            let message = stitch.project(&x, Mode::Inference, gelu_erf).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    };
    let shapes = [&[2, N, E + 1][..], &[N, E], &[2, 0, E], &[0, N, E]];
    check(random(&SINGLE, PATCHES), &shapes, "expected [B, N, 6]");
    check(random(&SINGLE, POOLED), &[&[2, 2, E], &[2, 1, E + 1]], "expected [B, 1, 6]");
}

#[test]
fn values_are_those_of_layers_with_an_activation_between_them() {
    let settings = ProjectorSettings { layers: Some(2), hidden: Some(7), tokens: Some(3), ..SEQUENTIAL };
    let projector = random(&settings, POOLED);
    let variables = projector.variables();
    let layer = |index: usize, x: &Tensor| {
        let [weight, bias] = ["weight", "bias"].map(|tensor| variables[&settings.names.of(index, tensor)].as_tensor());
        x.matmul(&weight.t().unwrap()).unwrap().broadcast_add(bias).unwrap()
    };
    let x = noise(&[2, 1, E], 3);
    let hidden = layer(0, &x.reshape((2, E)).unwrap()).tanh().unwrap();
    // K tokens one after the other, each of D values.
    let expected = layer(1, &hidden).reshape((2, 3, D)).unwrap();
    let found = projector.project(&x, Mode::Inference, Tensor::tanh).unwrap();
    let apart = (found - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    // The same sums in the same order.
    assert!(apart.to_scalar::<f32>().unwrap() < 1e-6);
}

#[test]
fn dropout_is_off_at_inference_and_unbiased_in_training() {
    let stitch = random(&ProjectorSettings { dropout: 0.25, ..SINGLE }, PATCHES);
    let x = noise(&[1, N, E], 3);
    let plain: Vec<f32> =
        stitch.project(&x, Mode::Inference, gelu_erf).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let train = |seed| -> Vec<f32> {
        stitch.project(&x, Mode::Training { seed }, gelu_erf).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    assert_eq!(train(1), train(1));
    assert_ne!(train(1), train(2));
    let runs = 4000;
    let (mut zeros, mut sum) = (0, vec![0f64; plain.len()]);
    for seed in 0..runs {
        for ((value, plain), sum) in train(seed).iter().zip(&plain).zip(&mut sum) {
            zeros += usize::from(*value == 0.0);
            *sum += f64::from(*value) / f64::from(*plain);
            assert!(*value == 0.0 || (value / plain - 1.0 / 0.75).abs() < 1e-5);
        }
    }
    // Five standard errors: sqrt(p (1 - p) / n) of the share of zeros, sqrt(p / (1 - p) / n) of the mean.
    let share = zeros as f64 / (runs as usize * plain.len()) as f64;
    assert!((share - 0.25).abs() < 5.0 * (0.1875 / 80_000f64).sqrt(), "{share}");
    for mean in sum.iter().map(|s| s / f64::from(runs as u32)) {
        assert!((mean - 1.0).abs() < 5.0 * (1.0 / 3.0 / f64::from(runs as u32)).sqrt(), "{mean}");
    }
}

#[test]
fn gradients_equal_finite_differences() {
    let three = ProjectorSettings { layers: Some(3), hidden: Some(9), ..SEQUENTIAL };
    let pooled = |settings| ProjectorSettings { tokens: Some(3), layer_norm: true, ..settings };
    // Not relu: its kink has no derivative to measure.
    type Activation = fn(&Tensor) -> Result<Tensor>;
    let cases: [(_, _, Activation); 6] = [
        (SINGLE, PATCHES, gelu_erf),
        (pooled(SINGLE), POOLED, gelu_erf),
        (three, PATCHES, gelu_erf),
        (three, PATCHES, gelu_tanh),
        (three, PATCHES, Tensor::silu),
        (pooled(three), POOLED, Tensor::tanh),
    ];
    for (settings, features, activation) in cases {
        let stitch = random(&settings, features);
        let n = features.tokens;
        let x = Var::from_tensor(&noise(&[2, n, E], 4)).unwrap();
        let k = stitch.prefix_spec(n).tokens;
        let direction = noise(&[2, k, D], 5);
        // The dropout of one seed is a fixed mask, so training mode has a gradient like any other function.
        for mode in [Mode::Inference, Mode::Training { seed: 9 }] {
            let loss = || stitch.project(&x, mode, activation).unwrap().mul(&direction).unwrap().sum_all().unwrap();
            let grads = loss().backward().unwrap();
            let mut all = stitch.variables();
            all.insert("input".into(), x.clone());
            for (name, variable) in all {
                let grad = grads.get(&variable).unwrap_or_else(|| panic!("no gradient for {name}"));
                let step = noise(variable.dims(), 6);
                let slope = grad.mul(&step).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                let start = variable.copy().unwrap();
                let at = |h: f64| {
                    variable.set(&(&start + (&step * h).unwrap()).unwrap()).unwrap();
                    f64::from(loss().to_scalar::<f32>().unwrap())
                };
                let central = |h: f64| (at(h) - at(-h)) / (2.0 * h);
                // Two central differences cancel the third derivative, which a layer norm over 4 elements has plenty of.
                let measured = (4.0 * central(2e-3) - central(4e-3)) / 3.0;
                variable.set(&start).unwrap();
                // f32 rounding of a sum near 10, a few 1e-6, over 4e-3 is 1e-3.
                assert!(
                    (measured - f64::from(slope)).abs() < 2e-3 * (1.0 + measured.abs()),
                    "{name}: {measured} {slope}"
                );
            }
        }
    }
}

#[test]
fn settings_out_of_range() {
    let check = |settings: ProjectorSettings, expected: &str| {
        let message = settings.check().unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    };
    for dropout in [-0.1, 1.0, f64::NAN] {
        check(ProjectorSettings { dropout, ..SINGLE }, "linear: dropout");
        check(ProjectorSettings { dropout, ..SEQUENTIAL }, "mlp: dropout");
    }
    check(ProjectorSettings { tokens: Some(0), ..SINGLE }, "linear: tokens 0 is not allowed, expected at least 1");
    check(ProjectorSettings { layers: Some(0), ..SEQUENTIAL }, "layers 0");
    check(ProjectorSettings { hidden: Some(0), ..SEQUENTIAL }, "width 0");
}
