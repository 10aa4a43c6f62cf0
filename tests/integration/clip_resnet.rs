//! CLIP's ResNet against open_clip: `tests/golden/clip_resnet`, every form a checkpoint comes in.

use super::encoders::{settings_refused, weights_refused};
use super::golden::{encoder, relative, tensors};
use serde_json::json;

/// Some twenty convolutions in f32, summed in another order.
const CLOSE: f32 = 1e-5;

#[test]
fn every_form_gives_open_clips_features() {
    let expected = tensors("clip_resnet");
    let forms = [
        ("open_clip", "features"),
        ("open_clip/open_clip_model.safetensors", "features"),
        ("visual.pt", "features"),
        ("openai_f16.pt", "f16.features"),
        ("all_f16.pt", "all_f16.features"),
        ("torchscript.pt", "f16.features"),
    ];
    for (form, name) in forms {
        let tower = encoder("clip-resnet", &format!("clip_resnet/{form}"), json!({}));
        assert_eq!(
            (tower.input_spec().image().unwrap().side, tower.feature_spec().tokens, tower.feature_spec().width),
            (96, 9, 128)
        );
        let features = tower.encode(&expected["image"]).unwrap();
        let far = relative(&features, &expected[name]);
        assert!(far < CLOSE, "{form}: {far}");
    }
}

#[test]
fn settings_that_cannot_be() {
    let check = |settings, expected| settings_refused("clip-resnet", settings, expected);
    check(
        json!({"model": "RN50x8"}),
        "unknown clip-resnet model \"RN50x8\"; known models: RN50, RN101, RN50x4, RN50x16, RN50x64",
    );
    check(json!({}), "no model is set and the sizes cannot be read off random:1");
    check(json!({"model": "RN50", "image_size": 16}), "image_size 16 is too small");
    check(json!({"model": "RN50", "width": 7}), "width 7 is not allowed");
    check(json!({"model": "RN50", "layers": [1, 0, 1, 1]}), "each stage needs at least 1");
    check(json!({"model": "RN50", "depth": 3}), "key \"depth\": unknown key");
}

#[test]
fn a_wrong_size_names_the_tensor_and_both_shapes() {
    let expected = ["visual.pt", "conv1.weight", "[2, 3, 3, 3]", "[4, 3, 3, 3]"];
    weights_refused("clip-resnet", "clip_resnet/visual.pt", json!({"width": 8}), &expected);
}

#[test]
fn random_weights_are_drawn_as_open_clip_draws_them() {
    let text = std::fs::read_to_string(super::golden::folder("clip_resnet/drawn.json")).unwrap();
    let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
    let settings = serde_json::json!({"layers": [1, 2, 1, 1], "width": 32, "image_size": 64});
    // Filters alone are random: 3 of the stem, 3 of each of 5 blocks, 4 shortcuts.
    assert_eq!(super::golden::check_draws("clip-resnet", settings, &theirs), 22);
}
