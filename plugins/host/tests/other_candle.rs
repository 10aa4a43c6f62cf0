//! A plugin that links another version of candle and no SDK: the gradients of its twin.
//!
//! Ignored where nobody asks for it, because that version of candle is built first; `.ci/run` asks.
#![allow(clippy::unwrap_used)]

use candle_core::{Tensor, Var};
use limber_core::registry::StitchContext;
use limber_core::{FeatureKind, FeatureSpec, Init, Mode, Registry, Stitch, Weights};
use limber_stitch_linear as _;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds the library in a target folder of its own, beside this test's.
fn library() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/other-candle");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("other-candle");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let name = format!("{}limber_example_other_candle{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    target.join("release").join(name)
}

const FEATURES: FeatureSpec = FeatureSpec { tokens: 5, width: 6, kind: FeatureKind::Patches };

fn stitch(registry: &Registry, kind: &str, settings: serde_json::Value) -> Box<dyn Stitch> {
    let weights = Weights::random(3);
    let source = weights.source().as_ref();
    let context = StitchContext { features: FEATURES, encoder: "e", width: 8, decoder: "d", source };
    registry.stitch(kind, settings, &context).unwrap().build(&weights).unwrap()
}

fn noise(shape: &[usize], seed: u64) -> Tensor {
    Weights::random(seed).tensor("noise", shape, Init::normal(1.0)).unwrap()
}

/// Prefix, gradients of the variables, gradient of the features.
fn pass(stitch: &dyn Stitch) -> (Tensor, BTreeMap<String, Tensor>, Tensor) {
    // Tensors in between, so that ids of this candle run past those that the other one will give.
    let features = Var::from_tensor(&noise(&[2, 5, 6], 4)).unwrap();
    let input = (features.as_tensor() * 1.5).unwrap();
    let prefix = stitch.project(&input, Mode::Inference).unwrap();
    let loss = prefix.sqr().unwrap().mul(&noise(prefix.dims(), 5)).unwrap().sum_all().unwrap();
    let mut grads = loss.backward().unwrap();
    let of = |(name, variable): (String, Var)| (name, grads.get(variable.as_tensor()).unwrap().clone());
    let variables = stitch.variables().into_iter().map(of).collect();
    (prefix, variables, grads.remove(features.as_tensor()).unwrap())
}

fn apart(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let largest = values(a).iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(largest > 0.0);
    values(a).iter().zip(values(b)).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

#[test]
#[ignore = "builds another version of candle first, which takes minutes"]
fn another_candle_gives_the_gradients_of_the_twin() {
    let mut registry = Registry::from_inventory().unwrap();
    let library = limber_plugin_host::open(&library(), None).unwrap();
    assert!(library.built_with().contains("candle-core 0.9"), "{}", library.built_with());
    library.register(&mut registry).unwrap();
    let ours = stitch(&registry, "linear", json!({"dropout": 0.0}));
    let theirs = stitch(&registry, "linear-elsewhere", json!({}));
    let (ours, theirs) = (pass(ours.as_ref()), pass(theirs.as_ref()));
    assert!(apart(&ours.0, &theirs.0) <= 1e-6);
    assert!(apart(&ours.2, &theirs.2) <= 1e-6);
    assert_eq!(ours.1.keys().collect::<Vec<_>>(), ["bias", "weight"]);
    for (name, gradient) in &ours.1 {
        let far = apart(gradient, &theirs.1[name]);
        assert!(far <= 1e-6, "{name}: {far:.1e}");
    }
}
