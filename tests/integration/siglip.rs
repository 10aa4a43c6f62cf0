//! SigLIP against transformers: `tests/golden/siglip`, through candle-transformers' model and core's blocks.

use super::encoders::{prepared, settings_refused, weights_refused};
use super::golden::{Shapes, check_draws, encoder, folder, lists, relative, source, tensors};
use candle_core::{Device, Tensor};
use limber::core::{Encoder, FeatureKind, ImageSpec, ResizeFilter, ResizeRule, WeightType, Weights};
use serde_json::{Value, json};

/// Three blocks in f32, summed in another order, candle's variance as a difference of two means.
const CLOSE: f32 = 1e-5;

#[test]
fn every_form_gives_transformers_tokens() {
    let expected = tensors("siglip");
    let sizes = json!({"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 3,
        "image_size": 28, "patch_size": 8, "layer_norm_eps": 1e-3});
    let check = |form: &str, settings: Value, wanted: &Tensor| {
        let tower = encoder("siglip", &format!("siglip/{form}"), settings.clone());
        let spec = tower.feature_spec();
        assert_eq!([spec.tokens, spec.width], wanted.dims()[1..], "{form} {settings}");
        assert_eq!(spec.kind, if spec.tokens == 1 { FeatureKind::Pooled } else { FeatureKind::Patches }, "{settings}");
        let side = tower.input_spec().image().unwrap().side;
        let far = relative(&tower.encode(&expected[&format!("image.{side}")]).unwrap(), wanted);
        assert!(far < CLOSE, "{form} {settings}: {far}");
    };
    let pooled = |name: &str| expected[name].unsqueeze(1).unwrap();
    check("both", json!({}), &expected["both.28.last"]);
    check("both", json!({"pool": true}), &pooled("both.28.pooled"));
    check("both/model.safetensors", sizes, &expected["both.28.last"]);
    check("headless", json!({}), &expected["headless.28.last"]);
    // Another side, for which positions are resized.
    check("both", json!({"image_size": 40}), &expected["both.40.last"]);
    check("both", json!({"image_size": 40, "pool": true}), &pooled("both.40.pooled"));
    check("headless", json!({"image_size": 40}), &expected["headless.40.last"]);
    for form in ["both", "headless"] {
        let state = |index: usize| &expected[&format!("{form}.28.hidden.{index}")];
        for (layer, index) in [(0, 0), (1, 1), (-2, 2), (-4, 0)] {
            check(form, json!({"layer": layer}), state(index));
        }
        check(form, json!({"layer": -1}), &expected[&format!("{form}.28.last")]);
        check(form, json!({"layer": 3, "post_norm": false}), state(3));
        check(form, json!({"layer": 2, "post_norm": true}), &expected[&format!("{form}.28.normed.2")]);
    }
}

#[test]
fn matrices_are_rounded_to_the_type_that_is_wanted() {
    let expected = tensors("siglip");
    let registry = limber::built_in::registry().unwrap();
    let encode = |settings: Value, dtype: WeightType| {
        let source = source(&registry, "encoder", "siglip", "siglip/both");
        let prepared = registry.encoder("siglip", settings, source.as_ref()).unwrap();
        let tower: Box<dyn Encoder> = prepared.build(&Weights::new(source, Device::Cpu, Some(dtype))).unwrap();
        tower.encode(&expected["image.28"]).unwrap()
    };
    // Matrices of 8 bits change what comes out by about 2^-9 each, through four dozen of them.
    let far = relative(&encode(json!({}), WeightType::Bf16), &expected["both.28.last"]);
    assert!((1e-4..3e-2).contains(&far), "{far}");
    // Both ways through the same rounded matrices: candle-transformers' copies, and core's own products.
    let (copied, mapped) = (json!({"layer": 0, "post_norm": true}), json!({"layer": 0}));
    let normed = encode(copied, WeightType::Bf16);
    let raw = encode(mapped, WeightType::Bf16);
    let norm = {
        let file =
            candle_core::safetensors::load(folder("siglip/both").join("model.safetensors"), &Device::Cpu).unwrap();
        let tensor = |name: &str| file[&format!("vision_model.post_layernorm.{name}")].clone();
        limber::core::ops::LayerNorm::new(tensor("weight"), tensor("bias"), 1e-3).unwrap()
    };
    assert!(relative(&normed, &norm.forward(&raw).unwrap()) < CLOSE);
}

#[test]
fn pixels_are_those_of_the_file_or_of_the_class() {
    let spec = |path: &str, settings: Value| prepared("siglip", path, settings).0.input.image().unwrap();
    let image = |side| ImageSpec { resize: ResizeRule::Squash, mean: [0.5; 3], std: [0.5; 3], ..ImageSpec::clip(side) };
    assert_eq!(spec("siglip/both", json!({})), image(28));
    assert_eq!(spec("siglip/headless", json!({})), image(28));
    assert_eq!(
        spec("siglip/both", json!({"image_size": 40, "filter": "bilinear"})),
        ImageSpec { filter: ResizeFilter::Bilinear, ..image(40) }
    );
    assert_eq!(spec("random:1", json!({"model": "siglip-base-patch16-384"})), image(384));
}

#[test]
fn a_config_json_with_little_in_it_has_transformers_defaults() {
    // google/siglip-base-patch16-224 and google/siglip-so400m-patch14-384 say no more than this of their vision towers.
    let registry = limber::built_in::registry().unwrap();
    let read = |vision: Value| {
        let config = json!({"model_type": "siglip", "initializer_factor": 1.0, "text_config": {"model_type": "siglip_text_model"}, "vision_config": vision});
        let source = Shapes::new(vec![]).with("config.json", config);
        assert_eq!(registry.detect("encoder", &source).unwrap().kind, "siglip");
        registry.encoder("siglip", json!({}), &source).unwrap().settings
    };
    let random = source(&registry, "encoder", "siglip", "random:1");
    let preset = |model: &str| registry.encoder("siglip", json!({"model": model}), random.as_ref()).unwrap().settings;
    assert_eq!(read(json!({"model_type": "siglip_vision_model"})), preset("siglip-base-patch16-224"));
    let so400m = json!({"hidden_size": 1152, "image_size": 384, "intermediate_size": 4304, "model_type": "siglip_vision_model",
        "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14});
    assert_eq!(read(so400m), preset("siglip-so400m-patch14-384"));
}

#[test]
fn settings_that_cannot_be() {
    let check = |mut settings: Value, expected: &str| {
        if settings.get("model").is_none() && settings != json!({}) {
            settings["model"] = json!("siglip-base-patch16-224");
        }
        settings_refused("siglip", settings, expected);
    };
    check(
        json!({"model": "siglip-huge"}),
        "unknown siglip model \"siglip-huge\"; known models: siglip-base-patch16-224, siglip-base-patch16-256",
    );
    check(
        json!({}),
        "no model is set and there is no config.json beside random:1; set model (siglip-base-patch16-224,",
    );
    check(json!({"image_size": 8}), "image_size 8 is smaller than a patch of 16");
    check(
        json!({"trained_size": 0}),
        "key \"trained_size\": value 0 is not allowed, expected a whole number, at least 1",
    );
    check(json!({"num_attention_heads": 5}), "hidden_size 768 is not a multiple of num_attention_heads 5");
    check(json!({"layer": 13}), "layer 13 is not allowed, the 12 blocks have hidden states 0 to 12, or -1 to -13");
    check(json!({"pool": true, "layer": -2}), "pool takes the last hidden state after the layer norm");
    check(json!({"pool": true, "post_norm": false}), "pool takes the last hidden state after the layer norm");
    check(json!({"pool": true, "vision_use_head": false}), "pool is not possible, vision_use_head is false");
    check(
        json!({"hidden_act": "quick_gelu"}),
        "hidden_act QuickGelu is not allowed, it is gelu_new, gelu, relu or silu",
    );
    check(json!({"depth": 3}), "key \"depth\": unknown key");
}

#[test]
fn what_a_folder_cannot_ask_for() {
    let registry = limber::built_in::registry().unwrap();
    let check = |name: &str, document: Value, expected: &str| {
        let base = json!({"model_type": "siglip", "vision_config": {}});
        let source = Shapes::new(vec![]).with("config.json", base).with(name, document);
        let message = format!("{:#}", registry.encoder("siglip", json!({}), &source).err().unwrap());
        assert_eq!(message, format!("shapes: {name}{expected}"));
    };
    check(
        "config.json",
        json!({"model_type": "siglip2"}),
        ": model_type is \"siglip2\", which is NaFlex, of images of any aspect ratio; the encoder siglip takes \"siglip\" and \"siglip_vision_model\", among them SigLIP 2 at a fixed resolution",
    );
    check(
        "config.json",
        json!({"model_type": "clip"}),
        ": model_type is \"clip\", the encoder siglip takes \"siglip\", \"siglip_vision_model\"",
    );
    let vision = |key: &str, value: Value| json!({"model_type": "siglip", "vision_config": {key: value}});
    check(
        "config.json",
        vision("hidden_act", json!("quick_gelu")),
        ", vision_config: hidden_act is \"quick_gelu\", supported is gelu_pytorch_tanh, gelu_new, gelu_fast, gelu, relu, silu",
    );
    check("config.json", vision("num_channels", json!(1)), ", vision_config: num_channels is 1, supported is 3");
    check(
        "config.json",
        vision("model_type", json!("siglip2_vision_model")),
        ", vision_config: model_type is \"siglip2_vision_model\", the encoder siglip takes \"siglip\", \"siglip_vision_model\"",
    );
    check(
        "config.json",
        json!({"model_type": "siglip", "quantization_config": {"bits": 4}}),
        ": quantization_config is {\"bits\":4}, which the encoder siglip does not support",
    );
    check(
        "preprocessor_config.json",
        json!({"size": {"height": 256, "width": 256}, "do_center_crop": true, "crop_size": 224}),
        ": cuts 224 out of 256, siglip takes the whole image",
    );
}

#[test]
fn a_wrong_size_or_a_missing_head_names_the_tensor() {
    let check = |form: &str, settings: Value, expected: &[&str]| {
        weights_refused("siglip", &format!("siglip/{form}"), settings, expected);
    };
    let positions = ["both", "vision_model.embeddings.position_embedding.weight", "[9, 24]", "[25, 24]"];
    check("both", json!({"trained_size": 40}), &positions);
    check("both", json!({"trained_size": 40, "layer": -2}), &positions);
    let fc1 = ["both", "vision_model.encoder.layers.0.mlp.fc1.weight", "[40, 24]", "[48, 24]"];
    check("both", json!({"intermediate_size": 48}), &fc1);
    check("both", json!({"intermediate_size": 48, "layer": -2}), &fc1);
    check(
        "headless",
        json!({"vision_use_head": true, "pool": true}),
        &["headless", "no tensor \"head.", "head.mlp.fc1"],
    );
}

#[test]
fn random_weights_are_drawn_as_transformers_draws_them() {
    let expected = lists("siglip");
    let mut settings = expected["sizes"].clone();
    settings["pool"] = json!(true);
    let theirs: serde_json::Map<String, Value> = expected["drawn"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (format!("vision_model.{name}"), value.clone()))
        .collect();
    // Patches, positions; a block's four matrices, two of its MLP and their biases; the head's probe, its two matrices,
    // its MLP's two and their biases.
    assert_eq!(check_draws("siglip", settings, &Value::Object(theirs)), 2 + 8 + 7);
    // Both ways draw the same.
    let mut settings = expected["sizes"].clone();
    settings["layer"] = json!(1);
    let registry = limber::built_in::registry().unwrap();
    let weights = || Weights::random(3);
    let mut encode = |post_norm: bool| {
        settings["post_norm"] = json!(post_norm);
        let prepared = registry.encoder("siglip", settings.clone(), weights().source().as_ref()).unwrap();
        let pixels = Tensor::arange(0f32, 3.0 * 64.0 * 64.0, &Device::Cpu).unwrap().affine(1e-4, -0.6).unwrap();
        prepared.build(&weights()).unwrap().encode(&pixels.reshape((1, 3, 64, 64)).unwrap()).unwrap()
    };
    let (normed, raw) = (encode(true), encode(false));
    let plain = |value: f32| Tensor::full(value, 128, &Device::Cpu).unwrap();
    let norm = limber::core::ops::LayerNorm::new(plain(1.0), plain(0.0), 1e-6).unwrap();
    assert!(relative(&normed, &norm.forward(&raw).unwrap()) < CLOSE);
}
