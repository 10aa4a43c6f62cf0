//! The settings of `linear` and the names of its tensors; the projector itself is tested in `limber-core`.

use super::*;
use candle_core::Device;
use limber_core::random::RandomSource;
use limber_core::{FeatureKind, FeatureSpec};

#[test]
fn one_layer_has_plain_names() {
    let features = FeatureSpec { tokens: 5, width: 6, kind: FeatureKind::Patches };
    let source = RandomSource::new(1);
    let context = StitchContext { features, encoder: "clip-resnet", width: 4, decoder: "gptj", source: &source };
    let config = Linear::tiny();
    let stitch = Linear::new(&config, &context, &Weights::random(1)).unwrap();
    assert_eq!(stitch.prefix_spec(5), Linear::specs(&config, &context).unwrap());
    assert_eq!(stitch.variables().into_keys().collect::<Vec<_>>(), ["bias", "ln.bias", "ln.weight", "weight"]);
    let prefix =
        stitch.project(&Tensor::ones((2, 5, 6), candle_core::DType::F32, &Device::Cpu).unwrap(), Mode::Inference);
    assert_eq!(prefix.unwrap().dims(), [2, 5, 4]);
}

#[test]
fn settings_are_checked_before_any_weight_is_read() {
    let config = Config { dropout: 1.0, ..Config::default() };
    let message = Linear::resolve(config, &RandomSource::new(0)).unwrap_err().to_string();
    assert!(message.contains("linear: dropout"), "{message}");
}
