//! BEiT against transformers: `tests/golden/beit`, every form a checkpoint comes in.

use super::encoders::{prepared, settings_refused, weights_refused};
use super::golden::{check_draws, encoder, folder, lists, relative, source, tensors};
use candle_core::{Device, Tensor};
use limber::core::{Encoder, ResizeFilter, ResizeRule};
use limber::images::{PassOrder, preprocess};
use serde_json::{Value, json};

/// Three layers of width 16 in f32, summed in another order.
const CLOSE: f32 = 1e-5;

/// Case, side S, tokens N, side of another image, its tokens.
const CASES: [(&str, usize, usize, usize, usize); 4] =
    [("layers", 32, 16, 40, 25), ("shared", 32, 16, 24, 9), ("absolute", 30, 9, 47, 25), ("both", 30, 9, 52, 36)];

/// transformers' tokens without the class token.
fn patches(states: &Tensor) -> Tensor {
    states.narrow(1, 1, states.dim(1).unwrap() - 1).unwrap()
}

/// The tower of a case gives the patches of `states` for `image`.
fn gives(model: &dyn Encoder, case: &str, image: &str, states: &str) {
    let expected = tensors("beit");
    let found = model.encode(&expected[&format!("{case}.{image}")]).unwrap();
    let far = relative(&found, &patches(&expected[&format!("{case}.{states}")]));
    assert!(far < CLOSE, "{case}, {states}: {far}");
}

#[test]
fn every_form_gives_transformers_last_hidden_state() {
    for (case, side, tokens, ..) in CASES {
        let model = encoder("beit", &format!("beit/{case}"), json!({}));
        let (image, features) = (model.input_spec().image().unwrap(), model.feature_spec());
        assert_eq!((image.side, features.tokens, features.width), (side, tokens, 16), "{case}");
        gives(model.as_ref(), case, "image", "last");
    }
}

#[test]
fn any_layer_is_transformers_hidden_state() {
    for (case, ..) in CASES {
        for layer in -4..=3i64 {
            let model = encoder("beit", &format!("beit/{case}"), json!({"layer": layer}));
            gives(model.as_ref(), case, "image", &format!("hidden.{}", layer.rem_euclid(4)));
        }
        if case == "absolute" || case == "both" {
            let model = encoder("beit", &format!("beit/{case}"), json!({"layer": -1, "post_norm": true}));
            gives(model.as_ref(), case, "image", "last");
        }
    }
}

#[test]
fn position_tables_are_resized_for_another_image_size() {
    for (case, _, _, side, tokens) in CASES {
        let model = encoder("beit", &format!("beit/{case}"), json!({"image_size": side}));
        assert_eq!(model.feature_spec().tokens, tokens, "{case}");
        gives(model.as_ref(), case, "other.image", "other.last");
    }
}

/// A folder with the weights of a case and these documents.
fn with_documents(case: &str, documents: &[(&str, &Value)]) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["model.safetensors", "pytorch_model.bin"] {
        let weights = folder(&format!("beit/{case}")).join(name);
        if weights.exists() {
            std::fs::copy(weights, copy.path().join(name)).unwrap();
        }
    }
    for (name, document) in documents {
        std::fs::write(copy.path().join(name), document.to_string()).unwrap();
    }
    copy
}

fn config_of(case: &str) -> Value {
    let text = std::fs::read_to_string(folder(&format!("beit/{case}/config.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn pixels_are_those_of_transformers_image_processor() {
    let (expected, lists) = (tensors("beit"), lists("beit"));
    let picture = picture(&expected["pixels.picture"]);
    for (name, processor) in lists["processors"].as_object().unwrap() {
        let found = processed(&picture, &[("preprocessor_config.json", processor)]);
        // The same bytes; transformers multiplies with 1/255 where torchvision divides, a rounding apart.
        let far = super::golden::largest(&found, &expected[&format!("pixels.{name}")]);
        assert!(far < 1e-6, "{name}: {far}");
    }
}

#[test]
fn files_that_transformers_4_and_5_save_give_its_pixels() {
    let (expected, lists) = (tensors("processors"), lists("processors"));
    let picture = picture(&expected["picture"]);
    let files = lists["files"].as_object().unwrap();
    assert_eq!(files.len(), 21);
    for (name, files) in files {
        let files: Vec<(&str, &Value)> = files.as_object().unwrap().iter().map(|(n, v)| (n.as_str(), v)).collect();
        let found = processed(&picture, &files);
        let wanted = &expected[&format!("pixels.{}", name.split(' ').next().unwrap())];
        // Relative to the largest value: pixels from 0 to 255 are divided and multiplied again where they are not rescaled.
        let largest = wanted.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let far = super::golden::largest(&found, wanted) / largest.max(1.0);
        assert!(far < 1e-6, "{name}: {far}");
    }
}

/// An image of `[h, w, 3]` numbers.
fn picture(numbers: &Tensor) -> image::RgbImage {
    let (h, w, _) = numbers.dims3().unwrap();
    let bytes: Vec<u8> = numbers.flatten_all().unwrap().to_vec1::<i64>().unwrap().iter().map(|b| *b as u8).collect();
    image::RgbImage::from_raw(w as u32, h as u32, bytes).unwrap()
}

/// What an encoder whose folder holds these files of a processor makes of an image.
fn processed(picture: &image::RgbImage, files: &[(&str, &Value)]) -> Tensor {
    let config = config_of("absolute");
    let copy = with_documents("absolute", &[&[("config.json", &config)], files].concat());
    let model = encoder("beit", copy.path().to_str().unwrap(), json!({}));
    let spec = model.input_spec().image().unwrap();
    // The pixels are of the processor's size, and the positions follow: 18 / 8 is 2.
    assert_eq!((spec.side, model.feature_spec().tokens), (18, 4), "{files:?}");
    let found = preprocess(picture, &spec, PassOrder::Pillow13).unwrap();
    Tensor::from_vec(found, (3, 18, 18), &Device::Cpu).unwrap()
}

#[test]
fn pixels_without_a_preprocessor() {
    let spec = |path: &str, settings: Value| prepared("beit", path, settings).0.input.image().unwrap();
    let of_file = spec("beit/absolute", json!({}));
    assert_eq!((of_file.side, of_file.resize, of_file.filter), (30, ResizeRule::Squash, ResizeFilter::Bicubic));
    assert_eq!((of_file.mean, of_file.std), ([0.5; 3], [0.5; 3]));
    let preset = spec("random:1", json!({"model": "beit-base-patch16-384"}));
    assert_eq!((preset.side, preset.resize, preset.filter), (384, ResizeRule::Squash, ResizeFilter::Bilinear));
    let own = json!({"model": "beit-base-patch16-384", "filter": "bicubic", "resize": "shorter-side-crop", "resize_to": 400, "mean": [0, 0.5, 1], "std": [1, 2, 3]});
    let own = spec("random:1", own);
    assert_eq!(
        (own.resize, own.resize_to, own.filter),
        (ResizeRule::ShorterSideCrop, Some(400), ResizeFilter::Bicubic)
    );
    assert_eq!((own.mean, own.std), ([0.0, 0.5, 1.0], [1.0, 2.0, 3.0]));
}

#[test]
fn random_weights_are_drawn_as_transformers_draws_them() {
    let random = &lists("beit")["random"];
    // The patches, and in each of two blocks four matrices of attention and two of the MLP.
    assert_eq!(check_draws("beit", random["settings"].clone(), &random["tensors"]), 13);
}

#[test]
fn presets_have_microsofts_sizes() {
    let check = |model: &str, side: usize, tokens: usize, width: usize, layers: usize, shared: bool| {
        let (spec, settings) = prepared("beit", "random:1", json!({"model": model}));
        assert_eq!((spec.input.image().unwrap().side, spec.features.tokens), (side, tokens), "{model}");
        assert_eq!((spec.features.width, &settings["num_hidden_layers"]), (width, &json!(layers)), "{model}");
        assert_eq!(settings["num_attention_heads"], json!(width / 64), "{model}");
        assert_eq!(settings["intermediate_size"], json!(4 * width), "{model}");
        assert_eq!(settings["use_shared_relative_position_bias"], json!(shared), "{model}");
        assert_eq!(settings["use_relative_position_bias"], json!(!shared), "{model}");
        assert_eq!(settings["use_mean_pooling"], json!(true), "{model}");
        assert_eq!(settings.get("model"), None);
    };
    check("beit-base-patch16-224-pt22k", 224, 196, 768, 12, true);
    check("beit-base-patch16-224-pt22k-ft22k", 224, 196, 768, 12, false);
    check("beit-base-patch16-224", 224, 196, 768, 12, false);
    check("beit-base-patch16-384", 384, 576, 768, 12, false);
    check("beit-large-patch16-224-pt22k", 224, 196, 1024, 24, true);
    check("microsoft/beit-large-patch16-224-pt22k-ft22k", 224, 196, 1024, 24, false);
    check("BEiT-large-patch16-224", 224, 196, 1024, 24, false);
    check("beit-large-patch16-384", 384, 576, 1024, 24, false);
    check("beit-large-patch16-512", 512, 1024, 1024, 24, false);
}

#[test]
fn what_config_json_asks_for_and_beit_cannot_do_is_refused_by_name() {
    let registry = limber::built_in::registry().unwrap();
    let check_with = |settings: Value, key: &str, value: Value, expected: &[&str]| {
        let mut config = config_of("absolute");
        config[key] = value;
        let copy = with_documents("absolute", &[("config.json", &config)]);
        let source = source(&registry, "encoder", "beit", copy.path().to_str().unwrap());
        let message = format!("{:#}", registry.encoder("beit", settings, source.as_ref()).err().unwrap());
        for part in expected.iter().chain([&"config.json"]) {
            assert!(message.contains(part), "{key}: {message}");
        }
    };
    let check = |key: &str, value: Value, expected: &[&str]| check_with(json!({}), key, value, expected);
    check("model_type", json!("data2vec-vision"), &["model_type is \"data2vec-vision\"", "takes \"beit\""]);
    check("hidden_act", json!("mish"), &["hidden_act is \"mish\"", "supported is gelu, "]);
    check("num_channels", json!(1), &["num_channels is 1", "supported is 3"]);
    check("image_size", json!([30, 60]), &["image_size is [30,60]", "an equal height and width"]);
    check("image_size", json!("large"), &["image_size is \"large\"", "whole number"]);
    check("patch_size", json!([8, 4]), &["patch_size is [8,4]"]);
    check("head_dim", json!(4), &["head_dim is 4", "hidden_size / num_attention_heads, 16 / 2"]);
    check("quantization_config", json!({"bits": 4}), &["quantization_config", "does not support"]);
    check("use_mean_pooling", json!("yes"), &["use_mean_pooling is \"yes\"", "true or false"]);
    let model = || json!({"model": "beit-large-patch16-224-pt22k"});
    let named = "in the model \"beit-large-patch16-224-pt22k\"";
    check_with(model(), "hidden_size", json!(1024), &["image_size is 30", "but 224", named]);
    check_with(model(), "image_size", json!(224), &["patch_size is 8", "but 16", named]);
}

#[test]
fn settings_that_do_not_fit_each_other() {
    let check = |mut settings: Value, expected: &str| {
        if settings.get("model").is_none() && settings.get("hidden_size").is_none() {
            settings["model"] = json!("beit-base-patch16-224");
        }
        settings_refused("beit", settings, expected);
    };
    check(
        json!({"model": "beit-huge"}),
        "unknown beit model \"beit-huge\"; known models: beit-base-patch16-224-pt22k, ",
    );
    check(
        json!({"hidden_size": 10, "num_attention_heads": 3}),
        "hidden_size 10 is not a multiple of num_attention_heads 3",
    );
    check(
        json!({"num_hidden_layers": 0}),
        "key \"num_hidden_layers\": value 0 is not allowed, expected a whole number, at least 1",
    );
    check(json!({"image_size": 12}), "image_size 12 is smaller than a patch of 16");
    check(json!({"trained_size": 12, "image_size": 224}), "trained_size 12 is smaller than a patch of 16");
    check(json!({"resize_to": 200}), "resize_to 200 is less than image_size 224");
    check(json!({"layer": 13}), "layer 13 is not allowed, the 12 blocks have hidden states 0 to 12, or -1 to -13");
    check(json!({"layer": -14}), "layer -14 is not allowed");
    check(json!({"initializer_range": -0.1}), "initializer_range -0.1 is not allowed");
    check(json!({"std": [1, 0, 1]}), "std [1.0, 0.0, 1.0] is not allowed");
    check(json!({"depth": 3}), "key \"depth\": unknown key");
    settings_refused("beit", json!({}), "no model is set and no config.json lies in random:1");
}

#[test]
fn weights_that_are_missing_or_of_another_shape_are_named() {
    let check = |case: &str, settings: Value, expected: &[&str]| {
        weights_refused("beit", &format!("beit/{case}"), settings, expected);
    };
    // A window of 5 patches has (2 * 5 - 1)² + 3 rows; the file's are for 4.
    check("layers", json!({"trained_size": 40}), &["relative_position_bias_table", "[52, 2]", "[84, 2]"]);
    check("layers", json!({"use_shared_relative_position_bias": true}), &["beit.encoder.relative_position_bias"]);
    check("layers", json!({"use_mean_pooling": false}), &["\"beit.layernorm.weight\""]);
    check("shared", json!({"use_relative_position_bias": true}), &["beit.encoder.layer.0.attention"]);
    check("absolute", json!({"layer_scale_init_value": 0.1}), &["\"encoder.layer.0.lambda_1\""]);
}
