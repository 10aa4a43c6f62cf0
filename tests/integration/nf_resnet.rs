//! NF-ResNet against timm: `tests/golden/nf_resnet`, every form a checkpoint comes in, and how timm initialises it.

use super::golden::{check_draws, encoder, folder, lists, relative, source, tensors};
use candle_core::{DType, Device, Tensor};
use limber::Preprocessor;
use limber::config;
use limber::core::weights::FrozenData;
use limber::core::{FeatureKind, ImageSpec, ResizeFilter};
use limber::images::{self, Draw, PassOrder, RgbImage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Some twenty convolutions in f32, summed in another order and with alpha and beta folded in.
const CLOSE: f32 = 1e-5;

#[test]
fn every_form_gives_timms_features() {
    let expected = tensors("nf_resnet");
    for (form, name) in [("timm", ""), ("timm/model.safetensors", ""), ("bare_f16.pth", "f16."), ("wrapper", "")] {
        for (pool, tokens, kind) in [(false, 9, FeatureKind::Patches), (true, 1, FeatureKind::Pooled)] {
            let settings = json!({"image_size": 72, "pool": pool});
            let tower = encoder("nf-resnet", &format!("nf_resnet/{form}"), settings);
            let spec = tower.feature_spec();
            assert_eq!((spec.tokens, spec.width, spec.kind), (tokens, 96, kind), "{form}");
            let features = tower.encode(&expected["pixels"]).unwrap();
            let far = relative(&features, &expected[&format!("{name}{}", if pool { "pooled" } else { "tokens" })]);
            assert!(far < CLOSE, "{form}, pool {pool}: {far}");
        }
    }
}

#[test]
fn every_side_has_a_map_of_halves_rounded_up() {
    for side in [1usize, 2, 31, 32, 33, 65, 97] {
        let tower = encoder("nf-resnet", "nf_resnet/timm", json!({"image_size": side, "pool": false}));
        let pixels = Tensor::ones((1, 3, side, side), DType::F32, &Device::Cpu).unwrap();
        let n = side.div_ceil(32).pow(2);
        assert_eq!(
            (tower.feature_spec().tokens, tower.encode(&pixels).unwrap().dims()),
            (n, &[1, n, 96][..]),
            "{side}"
        );
    }
}

#[test]
fn presets_have_the_sizes_of_timm_and_the_paper() {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "encoder", "nf-resnet", "random:1");
    let check = |settings: Value, side: usize, tokens: usize, kind: FeatureKind| {
        let prepared = registry.encoder("nf-resnet", settings.clone(), source.as_ref()).unwrap();
        let (image, features) = (prepared.spec.input.image().unwrap(), prepared.spec.features);
        assert_eq!((image.side, features.tokens, features.width), (side, tokens, 2048), "{settings}");
        assert_eq!((features.kind, image.mean, image.std), (kind, [0.0; 3], [1.0; 3]), "{settings}");
    };
    let (pooled, patches) = (FeatureKind::Pooled, FeatureKind::Patches);
    check(json!({"model": "nf_resnet50", "image_size": 384, "pool": true}), 384, 1, pooled);
    check(json!({"model": "nf_resnet50", "image_size": 384, "pool": false}), 384, 144, patches);
    check(json!({"model": "nf_resnet50.ra2_in1k"}), 256, 1, pooled);
    check(json!({"model": "nf_resnet26", "pool": false}), 224, 49, patches);
    check(json!({"model": "nf_resnet101", "image_size": 33, "pool": false}), 33, 4, patches);
    let depths = |model: &str| {
        registry.encoder("nf-resnet", json!({"model": model}), source.as_ref()).unwrap().settings["depths"].clone()
    };
    assert_eq!(depths("nf_resnet26"), json!([2, 2, 2, 2]));
    assert_eq!(depths("nf_resnet50"), json!([3, 4, 6, 3]));
    assert_eq!(depths("nf_resnet101"), json!([3, 4, 23, 3]));
}

#[test]
fn settings_that_cannot_be() {
    let registry = limber::built_in::registry().unwrap();
    let check = |weights: &str, settings: Value, expected: &[&str]| {
        let source = source(&registry, "encoder", "nf-resnet", weights);
        let message = format!("{:#}", registry.encoder("nf-resnet", settings, source.as_ref()).err().unwrap());
        for part in expected {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    check(
        "random:1",
        json!({"model": "nf_resnet52"}),
        &["unknown nf-resnet model \"nf_resnet52\"; known models: nf_resnet26, nf_resnet50, nf_resnet101"],
    );
    check("random:1", json!({}), &["no model is set", "cannot be read off random:1", "nf_resnet50"]);
    check("random:1", json!({"model": "nf_resnet50", "image_size": 0}), &["key \"image_size\": value 0", "at least 1"]);
    check("random:1", json!({"model": "nf_resnet50", "depths": [1, 0, 1, 1]}), &["[1, 0, 1, 1]", "at least 1"]);
    check("random:1", json!({"model": "nf_resnet50", "std": [1, 0, 1]}), &["std [1.0, 0.0, 1.0]", "above 0"]);
    check("random:1", json!({"model": "nf_resnet50", "deep": 3}), &["key \"deep\": unknown key", "stem_width"]);
    check("random:1", json!({"model": "nf_resnet50", "filter": "nearest"}), &["filter", "nearest", "bicubic"]);
    // A tower with fewer blocks than the weights have would find all of its tensors.
    for form in ["timm", "bare_f16.pth"] {
        let settings = json!({"depths": [1, 1, 1, 1]});
        let there = "the weights have [1, 2, 1, 1] blocks a stage, the settings say [1, 1, 1, 1]";
        check(&format!("nf_resnet/{form}"), settings, &[form, there]);
    }
    check("nf_resnet/timm", json!({"model": "nf_resnet50"}), &["[1, 2, 1, 1]", "[3, 4, 6, 3]"]);
}

#[test]
fn a_description_of_another_network_is_refused_by_the_name_of_its_setting() {
    let registry = limber::built_in::registry().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let weights = temporary.path().join("model.safetensors");
    std::fs::copy(folder("nf_resnet/timm/model.safetensors"), &weights).unwrap();
    let original: Value =
        serde_json::from_slice(&std::fs::read(folder("nf_resnet/timm/config.json")).unwrap()).unwrap();
    let prepare = |change: &dyn Fn(&mut Value), settings: Value| {
        let mut config = original.clone();
        change(&mut config);
        std::fs::write(temporary.path().join("config.json"), config.to_string()).unwrap();
        let source = source(&registry, "encoder", "nf-resnet", temporary.path().to_str().unwrap());
        registry.encoder("nf-resnet", settings, source.as_ref()).map(|p| p.settings).map_err(|e| format!("{e:#}"))
    };
    let refused = |change: &dyn Fn(&mut Value), expected: &[&str]| {
        let message = prepare(change, json!({})).unwrap_err();
        for part in expected {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    };
    // The file's sizes count, its mean does not, and a setting lies over it.
    let settings = prepare(&|_| (), json!({})).unwrap();
    assert_eq!(
        (&settings["image_size"], &settings["stem_width"], settings.get("mean")),
        (&json!(224), &json!(16), None)
    );
    assert_eq!(prepare(&|_| (), json!({"image_size": 96})).unwrap()["image_size"], 96);
    refused(&|c| c["architecture"] = json!("nf_seresnet50"), &["architecture is \"nf_seresnet50\"", "nf_resnet50"]);
    refused(&|c| c["model_args"]["act_layer"] = json!("silu"), &["act_layer is \"silu\"", "does not support"]);
    refused(&|c| c["model_args"]["in_chans"] = json!(1), &["in_chans is 1"]);
    refused(&|c| c["model_args"]["depths"] = json!([1, 2]), &["depths is [1,2]", "four whole numbers from 1"]);
    refused(&|c| c["model_args"]["depths"] = json!([1, 2, 1.5, 1]), &["depths is [1,2,1.5,1]", "four whole numbers"]);
    refused(&|c| c["model_args"]["depths"] = json!([1, 3, 1, 1]), &["[1, 2, 1, 1] blocks", "[1, 3, 1, 1]"]);
    refused(&|c| c["pretrained_cfg"]["input_size"] = json!([3, 224, 192]), &["input_size is [3,224,192]", "[3, S, S]"]);
    // Where the settings name a model, a file about another is not asked, and the tensors have the last word.
    let other = |c: &mut Value| c["architecture"] = json!("nf_seresnet50");
    let message = prepare(&other, json!({"model": "nf_resnet26"})).unwrap_err();
    assert!(message.contains("the weights have [1, 2, 1, 1] blocks a stage"), "{message}");
    assert!(prepare(&other, json!({"model": "nf_resnet26", "depths": [1, 2, 1, 1]})).is_ok());
}

#[test]
fn tensors_of_timms_other_networks_are_refused_by_name() {
    let registry = limber::built_in::registry().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("other.safetensors");
    let (name, shape) = ("stages.0.0.attn_last.conv.weight", [1, 1, 3]);
    let zeros = |shape: &[usize]| FrozenData::from_f32(vec![0.0; shape.iter().product()], shape);
    let tensors = [("stem.conv.gain", vec![64, 1, 1, 1]), (name, shape.to_vec())];
    let tensors: BTreeMap<String, FrozenData> = tensors.iter().map(|(n, s)| (n.to_string(), zeros(s))).collect();
    limber::weights::save(&path, &tensors, &BTreeMap::new()).unwrap();
    let source = source(&registry, "encoder", "nf-resnet", path.to_str().unwrap());
    let message = registry.encoder("nf-resnet", json!({}), source.as_ref()).err().unwrap().to_string();
    assert!(message.contains(&format!("tensor {name:?} is none of an nf-resnet's")), "{message}");
    assert!(registry.detect("encoder", source.as_ref()).is_err());
}

#[test]
fn random_weights_are_drawn_as_timm_draws_them() {
    let expected = &lists("nf_resnet")["initialised"];
    // The stem's, three a block, and a shortcut's a stage.
    let random = check_draws("nf-resnet", json!({"model": expected["model"]}), &expected["tensors"]);
    assert_eq!(random, 1 + 3 * 16 + 4);
}

/// The pixels of a config, as far as they need no weights.
fn pixels(text: &str, sets: &[&str], image: &RgbImage) -> Vec<f32> {
    let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
    let loaded = config::load_text("test", text, Path::new("."), &sets).unwrap();
    let model = Preprocessor::load(&loaded.config, &limber::built_in::registry().unwrap()).unwrap();
    model.pixels(image).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn images_are_varied_at_random_only_where_the_original_is_asked_for() {
    let nf = "{encoder: {kind: nf-resnet, model: nf_resnet26, image_size: 96, weights: 'random:0'}, stitch: {kind: linear}, decoder: {kind: gptj}}";
    let clip = "{encoder: {kind: clip-resnet, weights: 'random:0', model: RN50, image_size: 96}, stitch: {kind: linear}, decoder: {kind: gptj}}";
    let image = RgbImage::from_fn(130, 110, |x, y| image::Rgb([(x * 7) as u8, (y * 5) as u8, (x * y) as u8]));
    let spec = ImageSpec { filter: ResizeFilter::Bilinear, mean: [0.0; 3], std: [1.0; 3], ..ImageSpec::clip(96) };
    let order = PassOrder::HorizontalFirst;
    // Bytes over 255 and nothing else.
    let square = images::fit(&image, &spec, PassOrder::default()).unwrap();
    let bytes = |image: &RgbImage| {
        let channel =
            |c: usize| image.as_raw().iter().skip(c).step_by(3).map(|b| f32::from(*b) / 255.0).collect::<Vec<_>>();
        [channel(0), channel(1), channel(2)].concat()
    };
    assert_eq!(pixels(nf, &[], &image), bytes(&square));
    assert_eq!(pixels(nf, &["generate.seed=5"], &image), bytes(&square));
    for seed in 0..4 {
        let drawn = images::augment(&image, &spec, &Draw::new(&image, 96, seed), order).unwrap();
        let ours = pixels(nf, &["compat=original", &format!("generate.seed={seed}")], &image);
        assert_eq!(ours, bytes(&drawn), "seed {seed}");
        assert_ne!(ours, bytes(&square));
    }
    let clips = images::preprocess(&image, &ImageSpec::clip(96), order).unwrap();
    assert_eq!(pixels(clip, &["compat=original"], &image), clips);
}

#[test]
fn the_papers_configs_have_one_vector_of_2048_at_384() {
    for name in ["nfrn50_4096_linear", "nfrn50_4096_random_linear"] {
        let path = format!("{}/configs/{name}.yaml", crate::ROOT);
        let loaded = config::load(Path::new(&path), &["encoder.weights=random:0".to_string()]).unwrap();
        let model = Preprocessor::load(&loaded.config, &limber::built_in::registry().unwrap()).unwrap();
        let (image, features) = (model.input_spec().image().unwrap(), model.feature_spec());
        assert_eq!((image.side, features.tokens, features.width), (384, 1, 2048), "{name}");
    }
}
