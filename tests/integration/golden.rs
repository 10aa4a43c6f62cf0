//! Golden data: tensors and lists that the reference libraries wrote under `tests/golden/<case>/`.

use candle_core::{DType, Device, Tensor};
use limber::core::weights::{FrozenData, Request, WeightError};
use limber::core::{Decoder, Encoder, Init, Registry, WeightSource, Weights};
use limber::weights;
use limber_kit::Drawn;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// The folder of a case.
pub fn folder(case: &str) -> PathBuf {
    PathBuf::from(crate::ROOT).join("tests/golden").join(case)
}

/// `expected.safetensors` of a case.
pub fn tensors(case: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder(case).join("expected.safetensors"), &Device::Cpu).unwrap()
}

/// `expected.json` of a case.
pub fn lists(case: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder(case).join("expected.json")).unwrap()).unwrap()
}

/// The weights at `path` under a case, as a component of `role` and `kind` reads them.
pub fn source(registry: &Registry, role: &str, kind: &str, path: &str) -> Arc<dyn WeightSource> {
    let entry = registry.get(role, kind).unwrap();
    let files: Vec<&str> = entry.files.iter().map(String::as_str).collect();
    weights::open(&path.parse().unwrap(), &files, &folder("")).unwrap()
}

/// A decoder from a golden folder.
pub fn decoder(kind: &str, path: &str) -> Box<dyn Decoder> {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "decoder", kind, path);
    let prepared = registry.decoder(kind, json!({}), source.as_ref()).unwrap();
    prepared.build(&Weights::new(source, Device::Cpu, None)).unwrap()
}

/// An encoder from a golden file or folder.
pub fn encoder(kind: &str, path: &str, settings: Value) -> Box<dyn Encoder> {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "encoder", kind, path);
    let prepared = registry.encoder(kind, settings, source.as_ref()).unwrap();
    prepared.build(&Weights::new(source, Device::Cpu, None)).unwrap()
}

/// The largest difference of two tensors of one shape.
pub fn largest(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (a.to_dtype(DType::F32).unwrap(), b.to_dtype(DType::F32).unwrap());
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// Norm of the difference over norm of `b`.
pub fn relative(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap();
    norm(&(a - b).unwrap()) / norm(b)
}

/// Names and shapes without values, and documents beside them: what a component is prepared from.
pub struct Shapes(BTreeMap<String, Vec<usize>>, BTreeMap<String, String>);

impl Shapes {
    /// A source of these tensors.
    pub fn new(tensors: Vec<(String, Vec<usize>)>) -> Self {
        Self(tensors.into_iter().collect(), BTreeMap::new())
    }

    /// With a document beside them.
    pub fn with(mut self, name: &str, document: Value) -> Self {
        self.1.insert(name.to_string(), document.to_string());
        self
    }
}

impl WeightSource for Shapes {
    fn label(&self) -> String {
        "shapes".into()
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        Some(self.0.clone())
    }

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        panic!("{} was read before it was known to fit", request.name)
    }

    fn document(&self, name: &str) -> Result<Option<String>, WeightError> {
        Ok(self.1.get(name).cloned())
    }
}

/// What was drawn, by name: how, and the numbers.
pub type Drawings = Arc<Mutex<BTreeMap<String, (Init, FrozenData)>>>;

/// Random weights of `seed`, and what has been drawn of them once they are read.
pub fn drawings(seed: u64) -> (Arc<dyn WeightSource>, Drawings) {
    let kept = Drawings::default();
    let keep = kept.clone();
    let source = Drawn::new(seed, move |random, request| {
        let data = random.read(request)?;
        keep.lock().unwrap().insert(request.name.to_string(), (request.init, data.clone()));
        Ok(data)
    });
    (Arc::new(source), kept)
}

/// Mean, deviation and kurtosis.
fn moments(data: &FrozenData) -> [f64; 3] {
    let values: Vec<f64> = data.to_f32(0..data.elements()).into_iter().map(f64::from).collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let about = |power: i32| values.iter().map(|x| (x - mean).powi(power)).sum::<f64>() / n;
    let variance = about(2);
    [mean, variance.sqrt(), if variance > 0.0 { about(4) / variance.powi(2) } else { 0.0 }]
}

/// Draws an encoder and compares every tensor's shape and moments with `theirs`, which `moments` of
/// `tests/golden/writer.py` wrote: how many of them are random rather than constant.
pub fn check_draws(kind: &str, settings: Value, theirs: &Value) -> usize {
    let registry = limber::built_in::registry().unwrap();
    let (source, drawn) = drawings(11);
    let prepared = registry.encoder(kind, settings, source.as_ref()).unwrap();
    prepared.build(&Weights::new(source, Device::Cpu, None)).unwrap();
    let drawn = drawn.lock().unwrap();
    let theirs: BTreeMap<&String, &Value> = theirs.as_object().unwrap().iter().collect();
    assert_eq!(drawn.keys().collect::<Vec<_>>(), theirs.keys().copied().collect::<Vec<_>>());
    let mut random = 0;
    for (name, theirs) in theirs {
        let (_, ours) = &drawn[name];
        assert_eq!(json!(ours.shape()), theirs["shape"], "{name}");
        let names = ["mean", "std", "kurtosis"];
        let (found, mean) = (moments(ours), theirs["mean"].as_f64().unwrap());
        if theirs["std"] == 0.0 {
            // Constants are the same f32, so the means differ by the rounding of a sum in f64.
            assert!(found[1] < 1e-12 && (found[0] - mean).abs() < 1e-9, "{name}: {found:?}, theirs {mean}");
            continue;
        }
        let wanted = names.map(|key| theirs[key].as_f64().unwrap());
        random += 1;
        // Two samples of n: five standard errors of the difference of mean, deviation and kurtosis of normal numbers.
        let errors = 5.0 * f64::sqrt(2.0 / ours.elements() as f64);
        let allowed = [errors * wanted[1], errors * wanted[1] * f64::sqrt(0.5), errors * f64::sqrt(24.0)];
        for i in 0..3 {
            let (what, ours, theirs, allowed) = (names[i], found[i], wanted[i], allowed[i]);
            assert!((ours - theirs).abs() < allowed, "{name}: {what} {ours}, theirs {theirs}, allowed {allowed}");
        }
    }
    random
}
