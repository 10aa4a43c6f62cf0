//! What every encoder is held to: messages name what is wrong, batches are their images, folders tell their kind.

use super::golden::{encoder, relative, source, tensors};
use candle_core::Device;
use limber::core::Weights;
use limber::core::registry::EncoderSpecs;
use serde_json::{Value, json};

/// Settings over random weights that an encoder refuses, with a part of the message.
pub fn settings_refused(kind: &str, settings: Value, expected: &str) {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "encoder", kind, "random:1");
    let message = format!("{:#}", registry.encoder(kind, settings, source.as_ref()).err().unwrap());
    assert!(message.contains(expected), "{message}");
}

/// Weights at `path` that do not fit `settings`: the message has these parts.
pub fn weights_refused(kind: &str, path: &str, settings: Value, expected: &[&str]) {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "encoder", kind, path);
    let prepared = registry.encoder(kind, settings, source.as_ref()).unwrap();
    let message = format!("{:#}", prepared.build(&Weights::new(source, Device::Cpu, None)).err().unwrap());
    for part in expected {
        assert!(message.contains(part), "{message}");
    }
}

/// The specs of an encoder of `settings` and its resolved settings, before any weight is read.
pub fn prepared(kind: &str, path: &str, settings: Value) -> (EncoderSpecs, Value) {
    let registry = limber::built_in::registry().unwrap();
    let prepared = registry.encoder(kind, settings, source(&registry, "encoder", kind, path).as_ref()).unwrap();
    (prepared.spec, prepared.settings)
}

/// Over random weights, `settings` give an image of this side, and this many tokens of this width.
fn preset_gives(kind: &str, settings: Value, expected: [usize; 3]) {
    let (spec, _) = prepared(kind, "random:1", settings.clone());
    let found = [spec.input.image().unwrap().side, spec.features.tokens, spec.features.width];
    assert_eq!(found, expected, "{settings}");
}

#[test]
fn the_kind_auto_is_told_by_what_lies_beside_the_weights() {
    let registry = limber::built_in::registry().unwrap();
    let kinds: [(&str, &str, &[&str]); 6] = [
        ("beit", "beit", &["layers", "shared", "absolute", "both"]),
        ("clip-resnet", "clip_resnet", &["open_clip", "visual.pt"]),
        (
            "clip-vit",
            "clip_vit",
            &[
                "open_clip",
                "variant",
                "visual.pt",
                "openai.pt",
                "torchscript.pt",
                "hugging_face",
                "tower",
                "bare_tower",
            ],
        ),
        ("dinov2", "dinov2", &["plain", "gated", "registers", "plain.pth", "registers.pth"]),
        ("nf-resnet", "nf_resnet", &["timm", "bare_f16.pth", "wrapper"]),
        ("siglip", "siglip", &["both", "headless"]),
    ];
    for (kind, folder, forms) in kinds {
        for form in forms {
            let source = source(&registry, "encoder", kind, &format!("{folder}/{form}"));
            assert_eq!(registry.detect("encoder", source.as_ref()).unwrap().kind, kind, "{form}");
        }
    }
}

#[test]
fn presets_have_the_sizes_of_the_paper() {
    for (model, sizes) in [
        ("RN50", [224, 49, 2048]),
        ("RN101", [224, 49, 2048]),
        ("RN50x4", [288, 81, 2560]),
        ("RN50x16", [384, 144, 3072]),
        ("RN50x64", [448, 196, 4096]),
    ] {
        preset_gives("clip-resnet", json!({"model": model}), sizes);
    }
}

#[test]
fn presets_are_googles_models() {
    for (model, [side, tokens, width]) in [
        ("siglip-base-patch16-224", [224, 196, 768]),
        ("google/siglip-base-patch16-384", [384, 576, 768]),
        ("siglip-large-patch16-256", [256, 256, 1024]),
        ("siglip-large-patch16-384", [384, 576, 1024]),
        // 27 patches of 14 pixels a side; six pixels are left over.
        ("siglip-so400m-patch14-384", [384, 729, 1152]),
        ("siglip2-base-patch32-256", [256, 64, 768]),
        ("siglip2-giant-opt-patch16-384", [384, 576, 1536]),
    ] {
        preset_gives("siglip", json!({"model": model}), [side, tokens, width]);
        preset_gives("siglip", json!({"model": model, "pool": true}), [side, 1, width]);
    }
}

#[test]
fn a_batch_is_its_images() {
    for (kind, form, side, settings) in [
        ("dinov2", "plain", 35, json!({"image_size": 35})),
        ("dinov2", "registers", 35, json!({"image_size": 35})),
        ("siglip", "both", 28, json!({})),
        ("siglip", "both", 28, json!({"pool": true})),
        ("siglip", "both", 28, json!({"layer": -2})),
    ] {
        let tower = encoder(kind, &format!("{kind}/{form}"), settings.clone());
        let images = &tensors(kind)[&format!("image.{side}")];
        let batch = tower.encode(images).unwrap();
        for row in 0..2 {
            let single = tower.encode(&images.narrow(0, row, 1).unwrap()).unwrap();
            // The order of a row's sums may hang on how many rows a product has: 1e-6 is a few units in the last place.
            let far = relative(&batch.narrow(0, row, 1).unwrap(), &single);
            assert!(far < 1e-6, "{kind} {form} {settings}, image {row}: {far}");
        }
    }
}
