//! DINOv2 against transformers: `tests/golden/dinov2`, every form a checkpoint comes in.

use super::encoders::{prepared, settings_refused, weights_refused};
use super::golden::{Shapes, check_draws, encoder, lists, relative, source, tensors};
use candle_core::Tensor;
use limber::core::positions::Bicubic;
use limber::core::spec::Augment;
use limber::core::{FeatureKind, ImageSpec, ResizeFilter, ResizeRule};
use serde_json::{Value, json};

/// Two blocks in f32, summed in another order.
const CLOSE: f32 = 1e-5;

/// The tokens of a golden state that are patches.
fn patches(state: &Tensor, side: usize) -> Tensor {
    let n = (side / 7).pow(2);
    state.narrow(1, state.dim(1).unwrap() - n, n).unwrap()
}

fn with(settings: &Value, key: &str, value: Value) -> Value {
    let mut settings = settings.clone();
    settings[key] = value;
    settings
}

#[test]
fn every_form_gives_transformers_patch_tokens() {
    let expected = tensors("dinov2");
    // What a `.pth` file cannot say.
    let sizes = json!({"num_attention_heads": 3, "mlp_ratio": 2, "layer_norm_eps": 1e-3});
    let forms = [
        ("plain", "plain", json!({})),
        ("plain.pth", "plain", sizes.clone()),
        ("gated", "gated", json!({})),
        ("gated_new.safetensors", "gated", sizes.clone()),
        ("registers", "registers", json!({})),
        ("registers.pth", "registers", sizes),
    ];
    for (form, name, settings) in forms {
        for side in [21, 35, 45] {
            let tower = encoder("dinov2", &format!("dinov2/{form}"), with(&settings, "image_size", json!(side)));
            let spec = tower.feature_spec();
            assert_eq!(
                (spec.tokens, spec.width, spec.kind),
                ((side / 7usize).pow(2), 24, FeatureKind::Patches),
                "{form}"
            );
            let features = tower.encode(&expected[&format!("image.{side}")]).unwrap();
            let far = relative(&features, &patches(&expected[&format!("{name}.{side}.last")], side));
            assert!(far < CLOSE, "{form} at {side}: {far}");
        }
    }
}

#[test]
fn any_hidden_state_and_any_tokens_can_be_had() {
    let expected = tensors("dinov2");
    let check = |form: &str, settings: Value, wanted: &Tensor| {
        let tower = encoder("dinov2", &format!("dinov2/{form}"), with(&settings, "image_size", json!(21)));
        let spec = tower.feature_spec();
        assert_eq!([spec.tokens, spec.width], wanted.dims()[1..], "{settings}");
        assert_eq!(spec.kind, if spec.tokens == 1 { FeatureKind::Pooled } else { FeatureKind::Patches }, "{settings}");
        let far = relative(&tower.encode(&expected["image.21"]).unwrap(), wanted);
        assert!(far < CLOSE, "{form} {settings}: {far}");
    };
    for form in ["plain", "registers"] {
        let state = |index: usize| &expected[&format!("{form}.21.hidden.{index}")];
        let last = &expected[&format!("{form}.21.last")];
        for (layer, index) in [(0, 0), (1, 1), (-2, 1), (-3, 0)] {
            check(form, json!({"layer": layer}), &patches(state(index), 21));
        }
        for layer in [2, -1] {
            check(form, json!({"layer": layer}), &patches(last, 21));
            check(form, json!({"layer": layer, "post_norm": false}), &patches(state(2), 21));
        }
        let class = |state: &Tensor| state.narrow(1, 0, 1).unwrap();
        check(form, json!({"pool": true}), &class(last));
        check(form, json!({"pool": true, "layer": 1}), &class(state(1)));
        let all = Tensor::cat(&[class(last), patches(last, 21)], 1).unwrap();
        check(form, json!({"class_token": true}), &all);
    }
    check(
        "plain.pth",
        json!({"num_attention_heads": 3, "mlp_ratio": 2, "layer_norm_eps": 1e-3, "interpolate_offset": 0.1}),
        &patches(&expected["plain.21.offset"], 21),
    );
}

#[test]
fn positions_are_resized_as_pytorch_does_it() {
    let expected = tensors("dinov2");
    for (from, to) in [(37, 16), (5, 3), (3, 8)] {
        for (offset, antialias, name) in
            [(0.0, false, "0.0.False"), (0.0, true, "0.0.True"), (0.1, false, "0.1.False"), (0.1, true, "0.1.True")]
        {
            let resized = Bicubic { antialias, offset }.resize(&expected[&format!("positions.{from}")], to).unwrap();
            let far = relative(&resized, &expected[&format!("positions.{from}.{to}.{name}")]);
            // Both work in f32; coordinates up to 37 leave 4e-6 of a cell to rounding.
            assert!(far < 1e-5, "{from} -> {to}, {name}: {far}");
        }
    }
}

#[test]
fn pixels_are_those_of_the_file_or_of_the_paper() {
    let spec = |path: &str, settings: Value| prepared("dinov2", path, settings).0.input.image().unwrap();
    let image = |side, resize_to| ImageSpec {
        side,
        resize: ResizeRule::ShorterSideCrop,
        resize_to,
        filter: ResizeFilter::Bicubic,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        augment: Augment::None,
    };
    let base = json!({"model": "dinov2-base"});
    assert_eq!(spec("random:1", base.clone()), image(224, Some(256)));
    // Another side sees as much of the image: 518 * 256 / 224.
    assert_eq!(spec("random:1", with(&base, "image_size", json!(518))), image(518, Some(592)));
    assert_eq!(spec("random:1", with(&base, "resize_to", json!(224))), image(224, None));
    // The file is transformers', and so is the crop.
    let of_file = |side, to| ImageSpec { resize: ResizeRule::ShorterSideCropFloor, ..image(side, Some(to)) };
    assert_eq!(spec("dinov2/plain", json!({})), of_file(21, 24));
    assert_eq!(spec("dinov2/plain", json!({"image_size": 35})), of_file(35, 40));
    // Without a file of its own.
    assert_eq!(spec("dinov2/registers", json!({})), image(224, Some(256)));
}

#[test]
fn presets_are_metas_models_and_their_files_tell_the_same() {
    let registry = limber::built_in::registry().unwrap();
    let random = source(&registry, "encoder", "dinov2", "random:1");
    let check = |size: &str, width: usize, layers: usize| {
        let preset = |model: String| registry.encoder("dinov2", json!({"model": model}), random.as_ref()).unwrap();
        let plain = preset(format!("dinov2-{size}"));
        let spec = plain.spec.features;
        assert_eq!((spec.tokens, spec.width, plain.spec.input.image().unwrap().side), (256, width, 224), "{size}");
        let registers = preset(format!("facebook/dinov2-with-registers-{size}"));
        assert_eq!(registers.spec, plain.spec);
        assert_eq!(
            (&registers.settings["num_register_tokens"], &registers.settings["interpolate_antialias"]),
            (&json!(4), &json!(true))
        );
        for (prepared, registers) in [(plain, 0), (registers, 4)] {
            // The shapes of Meta's own files.
            let source = Shapes::new(meta(width, layers, size == "giant", registers));
            let read = registry.encoder("dinov2", json!({}), &source).unwrap();
            assert_eq!(read.settings, prepared.settings, "{size} with {registers} registers");
            assert_eq!(registry.detect("encoder", &source).unwrap().kind, "dinov2");
        }
    };
    check("small", 384, 12);
    check("base", 768, 12);
    check("large", 1024, 24);
    check("giant", 1536, 40);
}

/// Names and shapes of a `.pth` file of Meta's.
fn meta(width: usize, layers: usize, gated: bool, registers: usize) -> Vec<(String, Vec<usize>)> {
    let e = width;
    let mut all = vec![
        ("cls_token".to_string(), vec![1, 1, e]),
        ("mask_token".to_string(), vec![1, e]),
        ("pos_embed".to_string(), vec![1, 1370, e]),
        ("patch_embed.proj.weight".to_string(), vec![e, 3, 14, 14]),
        ("patch_embed.proj.bias".to_string(), vec![e]),
        ("norm.weight".to_string(), vec![e]),
        ("norm.bias".to_string(), vec![e]),
    ];
    if registers > 0 {
        all.push(("register_tokens".to_string(), vec![1, registers, e]));
    }
    let mlp = match gated {
        true => [("w12", 2 * 8 * e / 3, e), ("w3", e, 8 * e / 3)],
        false => [("fc1", 4 * e, e), ("fc2", e, 4 * e)],
    };
    for i in 0..layers {
        for name in ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"] {
            all.push((format!("blocks.{i}.{name}"), vec![e]));
        }
        let linear = [("attn.qkv".to_string(), 3 * e, e), ("attn.proj".to_string(), e, e)];
        let mlp = mlp.map(|(name, n_out, n_in)| (format!("mlp.{name}"), n_out, n_in));
        for (name, n_out, n_in) in linear.into_iter().chain(mlp) {
            all.push((format!("blocks.{i}.{name}.weight"), vec![n_out, n_in]));
            all.push((format!("blocks.{i}.{name}.bias"), vec![n_out]));
        }
    }
    all
}

#[test]
fn settings_that_cannot_be() {
    let check = |settings, expected| settings_refused("dinov2", settings, expected);
    check(
        json!({"model": "dinov2-huge"}),
        "unknown dinov2 model \"dinov2-huge\"; known models: dinov2-small, dinov2-base, dinov2-large, dinov2-giant, dinov2-with-registers-small",
    );
    check(json!({}), "no model is set and the sizes cannot be read off random:1; set model (dinov2-small,");
    let small = json!({"model": "dinov2-small"});
    check(
        with(&small, "image_size", json!(0)),
        "key \"image_size\": value 0 is not allowed, expected a whole number, at least 1",
    );
    check(with(&small, "image_size", json!(13)), "image_size 13 is smaller than a patch of 14");
    check(with(&small, "trained_size", json!(7)), "trained_size 7 is smaller than a patch of 14");
    check(with(&small, "resize_to", json!(200)), "resize_to 200 is not allowed, it is at least image_size 224");
    check(with(&small, "num_attention_heads", json!(5)), "hidden_size 384 is not a multiple of num_attention_heads 5");
    check(
        with(&small, "layer", json!(13)),
        "layer 13 is not allowed, the 12 blocks have hidden states 0 to 12, or -1 to -13",
    );
    check(with(&small, "layer", json!(-14)), "layer -14 is not allowed");
    check(
        with(&with(&small, "pool", json!(true)), "class_token", json!(true)),
        "pool and class_token exclude each other",
    );
    check(with(&small, "mlp_ratio", json!(0)), "mlp_ratio 0 is not allowed");
    check(with(&small, "interpolate_offset", json!(-0.1)), "interpolate_offset -0.1 is not allowed");
    check(
        json!({"model": "dinov2-giant", "hidden_act": "gelu"}),
        "hidden_act cannot be set where use_swiglu_ffn is true",
    );
    check(with(&small, "depth", json!(3)), "key \"depth\": unknown key");
}

#[test]
fn what_a_config_json_cannot_ask_for() {
    let registry = limber::built_in::registry().unwrap();
    let check = |config: Value, expected: &str| {
        let source = Shapes::new(vec![]).with("config.json", config);
        let message = format!("{:#}", registry.encoder("dinov2", json!({}), &source).err().unwrap());
        assert_eq!(message, format!("shapes: config.json: {expected}"));
    };
    check(
        json!({"model_type": "dinov3_vit"}),
        "model_type is \"dinov3_vit\", the encoder dinov2 takes \"dinov2\", \"dinov2_with_registers\"",
    );
    check(json!({"model_type": "dinov2", "num_channels": 4}), "num_channels is 4, supported is 3");
    check(
        json!({"model_type": "dinov2", "hidden_act": "mish"}),
        "hidden_act is \"mish\", supported is gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, quick_gelu, relu, silu, swish",
    );
    check(
        json!({"model_type": "dinov2", "patch_size": [14, 14]}),
        "patch_size is [14,14], expected a whole number, at least 0",
    );
    check(
        json!({"model_type": "dinov2", "num_register_tokens": 4}),
        "num_register_tokens is 4, which a model of type dinov2 does not support",
    );
    check(json!({"model_type": "dinov2", "head_dim": 32}), "head_dim is 32, which the encoder dinov2 does not support");
    check(
        json!({"model_type": "dinov2", "quantization_config": {"bits": 4}}),
        "quantization_config is {\"bits\":4}, which the encoder dinov2 does not support",
    );
}

#[test]
fn a_wrong_size_names_the_tensor_and_both_shapes() {
    let expected = ["plain", "embeddings.position_embeddings", "[1, 26, 24]", "[1, 17, 24]"];
    weights_refused("dinov2", "dinov2/plain", json!({"trained_size": 28}), &expected);
}

#[test]
fn random_weights_are_drawn_as_transformers_draws_them() {
    let expected = lists("dinov2");
    let sizes = &expected["sizes"];
    let mut settings = json!({"image_size": 28, "trained_size": sizes["image_size"]});
    for key in [
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "patch_size",
        "layerscale_value",
        "initializer_range",
    ] {
        settings[key] = sizes[key].clone();
    }
    // Patches, positions, class token, and a block's four matrices of attention and two of its MLP.
    assert_eq!(check_draws("dinov2", settings.clone(), &expected["drawn"]["dinov2"]), 9);
    settings["use_swiglu_ffn"] = json!(true);
    settings["num_register_tokens"] = json!(4);
    assert_eq!(check_draws("dinov2", settings, &expected["drawn"]["dinov2_with_registers"]), 9);
}
