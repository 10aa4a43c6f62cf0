//! The stitches against torch: `tests/golden/proj`.

use crate::golden::{lists, relative, source, tensors};
use anyhow::Result;
use candle_core::{Device, Tensor, Var};
use limber::core::{FeatureKind, FeatureSpec, Mode, Stitch, StitchContext, WeightSource, Weights};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

const E: usize = 12;
const D: usize = 16;

/// f32 sums of a dozen products in another order than torch's.
const ROUNDING: f32 = 1e-6;

fn build(kind: &str, source: Arc<dyn WeightSource>, pooled: bool, settings: Value) -> Result<Box<dyn Stitch>> {
    let features = match pooled {
        true => FeatureSpec { tokens: 1, width: E, kind: FeatureKind::Pooled },
        false => FeatureSpec { tokens: 5, width: E, kind: FeatureKind::Patches },
    };
    let context = StitchContext { features, encoder: "features", width: D, decoder: "gptj", source: source.as_ref() };
    let prepared = limber::built_in::registry()?.stitch(kind, settings, &context)?;
    prepared.build(&Weights::new(source, Device::Cpu, None))
}

fn golden(kind: &str, name: &str, settings: Value) -> Result<Box<dyn Stitch>> {
    let registry = limber::built_in::registry()?;
    build(kind, source(&registry, "stitch", kind, &format!("proj/{name}.ckpt")), name == "pooled", settings)
}

fn names(lists: &Value) -> Vec<String> {
    serde_json::from_value(lists.clone()).unwrap()
}

fn check(stitch: &dyn Stitch, input: &Tensor, expected: &Tensor, what: &str) {
    let apart = relative(&stitch.project(input, Mode::Inference).unwrap(), expected);
    assert!(apart < ROUNDING, "{what}: {apart:e}");
}

#[test]
fn projections_are_those_of_torch() {
    let (tensors, lists) = (tensors("proj"), lists("proj"));
    let input = &tensors["patch.input"];
    for name in names(&lists["loads"]["as f32"]) {
        check(golden("linear", &name, json!({})).unwrap().as_ref(), input, &tensors["patch.f32"], &name);
    }
    for name in names(&lists["loads"]["rounded"]) {
        let expected = &tensors[&name.replace("proj_", "patch.")];
        check(golden("linear", &name, json!({})).unwrap().as_ref(), input, expected, &name);
    }
    for name in names(&lists["loads or is refused clearly"]) {
        if let Ok(stitch) = golden("linear", &name, json!({})) {
            check(stitch.as_ref(), input, &tensors["patch.f32"], &name);
        }
    }
    let pooled = golden("linear", "pooled", json!({})).unwrap();
    check(pooled.as_ref(), &tensors["pooled.input"], &tensors["pooled.output"], "pooled");
}

#[test]
fn the_layer_norm_is_torchs() {
    let tensors = tensors("proj");
    let folder = tempfile::tempdir().unwrap();
    for (case, pooled) in [("patch", false), ("pooled", true)] {
        let pick = |name: &str, from: &str| (name.to_string(), tensors[from].clone());
        let (weight, bias) = (format!("{case}.weight"), format!("{case}.bias"));
        let saved: HashMap<String, Tensor> =
            [pick("weight", &weight), pick("bias", &bias), pick("ln.weight", "ln.weight"), pick("ln.bias", "ln.bias")]
                .into();
        let path = folder.path().join(format!("{case}.safetensors"));
        candle_core::safetensors::save(&saved, &path).unwrap();
        let source = limber::weights::open(&path.to_str().unwrap().parse().unwrap(), &[], folder.path()).unwrap();
        let stitch = build("linear", source, pooled, json!({"layer_norm": true})).unwrap();
        check(stitch.as_ref(), &tensors[&format!("{case}.input")], &tensors[&format!("{case}.ln")], case);
    }
}

#[test]
fn perceptrons_are_those_of_torch() {
    let (tensors, lists) = (tensors("proj"), lists("proj"));
    for (name, activation) in [
        ("mlp2_gelu", "gelu"),
        ("mlp2_gelu_tanh", "gelu-tanh"),
        ("mlp2_relu", "relu"),
        ("mlp3_gelu", "gelu"),
        ("mlp3_relu", "relu"),
    ] {
        let stitch = golden("mlp", name, json!({"activation": activation})).unwrap();
        let keys: Vec<String> = stitch.variables().into_keys().collect();
        let mut expected = names(&lists[name]["keys"]);
        expected.sort();
        assert_eq!(keys, expected, "{name}");
        check(stitch.as_ref(), &tensors["patch.input"], &tensors[&format!("{name}.output")], name);
    }
}

#[test]
fn projectors_of_published_models_are_perceptrons() {
    let (tensors, lists, registry) = (tensors("proj"), lists("proj"), limber::built_in::registry().unwrap());
    for file in ["mm_projector.bin", "multi_modal_projector.safetensors"] {
        let stitch =
            build("mlp", source(&registry, "stitch", "mlp", &format!("proj/{file}")), false, json!({})).unwrap();
        // Saved again under its own names.
        let keys: BTreeSet<String> = stitch.variables().into_keys().collect();
        assert_eq!(keys, names(&lists["mlp2_gelu"]["keys"]).into_iter().collect());
        check(stitch.as_ref(), &tensors["patch.input"], &tensors["mlp2_gelu.output"], file);
    }
}

#[test]
fn gradients_are_those_of_torch() {
    let tensors = tensors("proj");
    let stitch = golden("linear", "proj_f32", json!({})).unwrap();
    let input = Var::from_tensor(&tensors["patch.input"]).unwrap();
    let output = stitch.project(&input, Mode::Inference).unwrap();
    let grads = output.mul(&tensors["grad.direction"]).unwrap().sum_all().unwrap().backward().unwrap();
    let mut variables = stitch.variables();
    variables.insert("input".into(), input);
    for (name, variable) in &variables {
        let apart = relative(grads.get(variable).unwrap(), &tensors[&format!("grad.{name}")]);
        assert!(apart < ROUNDING, "{name}: {apart:e}");
    }
}

#[test]
fn checkpoints_that_do_not_fit_are_refused() {
    let check = |kind: &str, name: &str, settings: Value, expected: &[&str]| {
        let message = match golden(kind, name, settings) {
            Ok(_) => panic!("{name} was accepted"),
            Err(e) => format!("{e:#}"),
        };
        for part in expected {
            assert!(message.contains(part), "{name}: {message:?} lacks {part:?}");
        }
    };
    check(
        "linear",
        "proj_narrow",
        json!({}),
        &[
            "proj_narrow.ckpt maps width 11 to 16 (weight [16, 11]); encoder features gives 5 x 12 and decoder gptj takes 16",
        ],
    );
    check("linear", "proj_no_bias", json!({}), &["proj_no_bias.ckpt", "no tensor \"bias\""]);
    check("linear", "proj_short_bias", json!({}), &["proj_short_bias.ckpt", "bias has shape [15]"]);
    check("linear", "proj_nan", json!({}), &["proj_nan.ckpt", "not finite"]);
    check("linear", "mlp2_relu", json!({}), &["mlp2_relu.ckpt", "no tensor \"weight\"", "0.weight"]);
    check("linear", "pooled", json!({"tokens": 4}), &["makes 3 prefix tokens", "tokens 4"]);
    check("mlp", "proj_f32", json!({}), &["proj_f32.ckpt", "no tensor \"0.weight\""]);
    check("mlp", "mlp3_relu", json!({"layers": 2}), &["by 3 layers", "layers 2"]);
    check("mlp", "mlp2_relu", json!({"width": 10}), &["[20, 12]", "width 10"]);
}
