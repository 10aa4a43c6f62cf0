//! The settings and activations of `mlp`; the projector itself is tested in `limber-core`.

use super::*;
use candle_core::Device;
use limber_core::random::RandomSource;
use limber_core::weights::{FrozenData, Request, WeightError};
use limber_core::{FeatureKind, FeatureSpec};

/// Three layers, as a checkpoint would list them.
struct Three;

impl WeightSource for Three {
    fn label(&self) -> String {
        "proj.ckpt".into()
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        let widths = [6, 9, 9, 4];
        let layer = |i: usize| {
            let (n_in, n_out) = (widths[i], widths[i + 1]);
            [(format!("{}.weight", 2 * i), vec![n_out, n_in]), (format!("{}.bias", 2 * i), vec![n_out])]
        };
        Some((0..3).flat_map(layer).collect())
    }

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        RandomSource::new(1).read(request)
    }
}

#[test]
fn the_number_of_layers_is_that_of_the_settings_the_checkpoint_or_two() {
    let resolved = |layers, source: &dyn WeightSource| {
        Mlp::resolve(Config { layers, ..Config::default() }, source).unwrap().layers
    };
    assert_eq!(resolved(None, &Three), Some(3));
    assert_eq!(resolved(Some(2), &Three), Some(2));
    assert_eq!(resolved(None, &RandomSource::new(0)), Some(2));
    let features = FeatureSpec { tokens: 5, width: 6, kind: FeatureKind::Patches };
    let context = StitchContext { features, encoder: "clip-resnet", width: 4, decoder: "gptj", source: &Three };
    assert_eq!(Mlp::specs(&Config::default(), &context).unwrap(), PrefixSpec { tokens: 5, width: 4 });
    let two = Mlp::specs(&Config { layers: Some(2), ..Config::default() }, &context).unwrap_err().to_string();
    assert!(two.contains("by 3 layers; the settings say layers 2"), "{two}");
    let ten = Mlp::specs(&Config { width: Some(10), ..Config::default() }, &context).unwrap_err().to_string();
    assert!(ten.contains("the settings say width 10"), "{ten}");
}

#[test]
fn every_activation_is_the_one_that_it_is_called() {
    let x = Tensor::new(&[-1f32, 1.0], &Device::Cpu).unwrap();
    // The values at -1 and 1, to six digits.
    for (activation, expected) in [
        (Activation::Gelu, [-0.158655, 0.841345]),
        (Activation::GeluTanh, [-0.158808, 0.841192]),
        (Activation::Relu, [0.0, 1.0]),
        (Activation::Silu, [-0.268941, 0.731059]),
        (Activation::Tanh, [-0.761594, 0.761594]),
    ] {
        let found = activation.forward(&x).unwrap().to_vec1::<f32>().unwrap();
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-6), "{activation:?}: {found:?}");
    }
}

#[test]
fn the_activation_stands_between_layers_alone() {
    let features = FeatureSpec { tokens: 1, width: 6, kind: FeatureKind::Patches };
    let source = RandomSource::new(1);
    let context = StitchContext { features, encoder: "clip-resnet", width: 4, decoder: "gptj", source: &source };
    let x = Tensor::new(&[[[0.5f32, -1.0, 2.0, 0.3, -0.7, 1.1]]], &Device::Cpu).unwrap();
    let prefix = |layers, activation| {
        let config = Config { layers: Some(layers), activation, ..Config::default() };
        let stitch = Mlp::new(&config, &context, &Weights::random(1)).unwrap();
        stitch.project(&x, Mode::Inference).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(prefix(1, Activation::Relu), prefix(1, Activation::Tanh));
    assert_ne!(prefix(2, Activation::Relu), prefix(2, Activation::Tanh));
}

#[test]
fn settings_are_checked_before_any_weight_is_read() {
    for (config, expected) in [
        (Config { dropout: 1.0, ..Config::default() }, "mlp: dropout"),
        (Config { layers: Some(0), ..Config::default() }, "layers 0"),
        (Config { width: Some(0), ..Config::default() }, "width 0"),
    ] {
        let message = Mlp::resolve(config, &RandomSource::new(0)).unwrap_err().to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
}
