//! Shapes, gradients by finite differences, dropout, and every refusal of `linear`; numbers against torch's goldens
//! are in the root package's tests.

use super::*;
use candle_core::{DType, Device};
use limber_core::FeatureSpec;
use limber_core::random::RandomSource;
use limber_core::weights::{FrozenData, Request, WeightError};
use std::sync::Arc;

const N: usize = 5;
const E: usize = 6;
const D: usize = 4;

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

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        Ok(self.0[request.name].clone())
    }
}

fn features(kind: FeatureKind, tokens: usize) -> FeatureSpec {
    FeatureSpec { tokens, width: E, kind }
}

fn context<'a>(source: &'a dyn WeightSource, features: FeatureSpec) -> PartContext<'a> {
    PartContext { features, encoder: "clip-resnet", width: D, decoder: "gptj", source }
}

fn build(config: &Config, source: Arc<dyn WeightSource>, features: FeatureSpec) -> Result<Linear> {
    let weights = Weights::new(source.clone(), Device::Cpu, None);
    Linear::new(&Linear::resolve(config.clone(), source.as_ref())?, &context(source.as_ref(), features), &weights)
}

fn random(config: &Config, features: FeatureSpec) -> Linear {
    build(config, Arc::new(RandomSource::new(1)), features).unwrap()
}

fn noise(shape: &[usize], seed: u64) -> Tensor {
    let weights = Weights::random(seed);
    weights.tensor("noise", shape, Init::normal(1.0)).unwrap()
}

#[test]
fn shapes_of_patches_and_pooled() {
    let check = |kind, n: usize, tokens: Option<usize>, k: usize| {
        let config = Config { tokens, ..Config::default() };
        let source = RandomSource::new(1);
        let spec = Linear::specs(&config, &context(&source, features(kind, n))).unwrap();
        assert_eq!(spec, PrefixSpec { tokens: k, width: D });
        let stitch = random(&config, features(kind, n));
        assert_eq!(stitch.prefix_spec(n), spec);
        let prefix = stitch.project(&noise(&[2, n, E], 2), Mode::Inference).unwrap();
        assert_eq!(prefix.dims(), [2, k, D]);
    };
    check(FeatureKind::Patches, N, None, N);
    check(FeatureKind::Patches, N, Some(N), N);
    check(FeatureKind::Patches, 1, None, 1);
    check(FeatureKind::Pooled, 1, None, 1);
    check(FeatureKind::Pooled, 1, Some(3), 3);
    check(FeatureKind::Pooled, 2, None, 2);
}

#[test]
fn k_is_read_off_the_checkpoint() {
    let source = Memory::new(&[("weight", &[3 * D, E]), ("bias", &[3 * D])]);
    let context = context(&source, features(FeatureKind::Pooled, 1));
    assert_eq!(Linear::specs(&Config::default(), &context).unwrap().tokens, 3);
}

#[test]
fn every_prefix_of_a_trainer_is_found() {
    for (prefix, norm) in PREFIXES {
        let [weight, bias] = ["weight", "bias"].map(|name| join(prefix, name));
        let [gain, shift] = ["weight", "bias"].map(|name| join(norm, name));
        let source = Memory::new(&[(&weight, &[D, E]), (&bias, &[D]), (&gain, &[D]), (&shift, &[D])]);
        let config = Config { layer_norm: true, ..Config::default() };
        let stitch = build(&config, Arc::new(source), features(FeatureKind::Patches, N)).unwrap();
        let names: Vec<String> = stitch.variables().into_keys().collect();
        assert_eq!(names, ["bias", "ln.bias", "ln.weight", "weight"]);
    }
}

#[test]
fn refusals_name_both_sides() {
    let check = |tensors: &[(&str, &[usize])], config: Config, kind, n: usize, expected: &str| {
        let source = Memory::new(tensors);
        let message = Linear::specs(&config, &context(&source, features(kind, n))).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    };
    let plain = Config::default;
    let patches = FeatureKind::Patches;
    check(
        &[("weight", &[D, 7]), ("bias", &[D])],
        plain(),
        patches,
        N,
        "stitch checkpoint proj.ckpt maps width 7 to 4 (weight [4, 7]); encoder clip-resnet gives 5 x 6 and decoder gptj takes 4",
    );
    check(&[("weight", &[8, E]), ("bias", &[8])], plain(), patches, N, "maps width 6 to 8");
    check(&[("weight", &[7, E]), ("bias", &[7])], plain(), FeatureKind::Pooled, 1, "maps width 6 to 7");
    let three = Config { tokens: Some(3), ..plain() };
    check(
        &[("weight", &[8, E]), ("bias", &[8])],
        three.clone(),
        FeatureKind::Pooled,
        1,
        "makes 2 prefix tokens of width 4; the settings say tokens 3",
    );
    check(&[("weight", &[D, E]), ("bias", &[D])], three, patches, N, "tokens is 3, but encoder clip-resnet gives 5");
    check(&[("weight", &[D, E])], plain(), patches, N, "no tensor \"bias\"");
    check(&[("weight", &[D, E]), ("bias", &[3])], plain(), patches, N, "bias has shape [3]");
    check(&[("0.weight", &[D, E])], plain(), patches, N, "no tensor \"weight\"; it has: 0.weight");
    check(&[("weight", &[D])], plain(), patches, N, "weight has shape [4]");
    let norm = Config { layer_norm: true, ..plain() };
    check(&[("weight", &[D, E]), ("bias", &[D])], norm, patches, N, "no tensor \"ln.weight\"");
    check(
        &[("weight", &[D, E]), ("bias", &[D]), ("ln.weight", &[D]), ("ln.bias", &[D])],
        plain(),
        patches,
        N,
        "layer_norm is off",
    );
}

#[test]
fn settings_out_of_range() {
    let check = |config: Config, expected: &str| {
        let message = Linear::resolve(config, &RandomSource::new(0)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    };
    for dropout in [-0.1, 1.0, f64::NAN] {
        check(Config { dropout, ..Config::default() }, "dropout");
    }
    check(Config { tokens: Some(0), ..Config::default() }, "tokens 0");
}

#[test]
fn values_that_are_not_finite_are_refused() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut source = Memory::new(&[("weight", &[D, E]), ("bias", &[D])]);
        source.0.insert("bias".into(), FrozenData::from_f32(vec![0.0, bad, 0.0, 0.0], &[D]));
        let result = build(&Config::default(), Arc::new(source), features(FeatureKind::Patches, N));
        let message = result.err().unwrap().to_string();
        assert!(message.contains("proj.ckpt") && message.contains("not finite"), "{message}");
    }
}

#[test]
fn features_of_another_shape_are_an_error() {
    let stitch = random(&Config::default(), features(FeatureKind::Patches, N));
    for shape in [&[2, N, E + 1][..], &[N, E], &[2, 0, E], &[0, N, E]] {
        let x = Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let message = stitch.project(&x, Mode::Inference).unwrap_err().to_string();
        assert!(message.contains("allowed is [B, N, 6]"), "{message}");
    }
}

#[test]
fn dropout_is_off_at_inference_and_unbiased_in_training() {
    let config = Config { dropout: 0.25, ..Config::default() };
    let stitch = random(&config, features(FeatureKind::Patches, N));
    let x = noise(&[1, N, E], 3);
    let plain: Vec<f32> = stitch.project(&x, Mode::Inference).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let train = |seed| -> Vec<f32> {
        stitch.project(&x, Mode::Training { seed }).unwrap().flatten_all().unwrap().to_vec1().unwrap()
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
    let cases = [(FeatureKind::Patches, N, None, false), (FeatureKind::Pooled, 1, Some(3), true)];
    for (kind, n, tokens, layer_norm) in cases {
        let config = Config { tokens, layer_norm, ..Config::default() };
        let stitch = random(&config, features(kind, n));
        let x = Var::from_tensor(&noise(&[2, n, E], 4)).unwrap();
        let k = stitch.prefix_spec(n).tokens;
        let direction = noise(&[2, k, D], 5);
        // The dropout of one seed is a fixed mask, so training mode has a gradient like any other function.
        for mode in [Mode::Inference, Mode::Training { seed: 9 }] {
            let loss = || stitch.project(&x, mode).unwrap().mul(&direction).unwrap().sum_all().unwrap();
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
