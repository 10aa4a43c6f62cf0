//! Golden data: tensors and lists that the reference libraries wrote under `tests/golden/<case>/`.

use candle_core::{DType, Device, Tensor};
use limber::core::{Decoder, Encoder, Registry, WeightSource, Weights};
use limber::weights;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The folder of a case.
pub fn folder(case: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(case)
}

/// `expected.safetensors` of a case.
pub fn tensors(case: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder(case).join("expected.safetensors"), &Device::Cpu).unwrap()
}

/// `expected.json` of a case.
pub fn lists(case: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder(case).join("expected.json")).unwrap()).unwrap()
}

/// The weights at `path` under a case, as a part of `role` and `kind` reads them.
pub fn source(registry: &Registry, role: &str, kind: &str, path: &str) -> Arc<dyn WeightSource> {
    let entry = registry.get(role, kind).unwrap();
    let files: Vec<&str> = entry.files.iter().map(String::as_str).collect();
    weights::open(&path.parse().unwrap(), &files, &folder("")).unwrap()
}

/// A decoder from a golden folder.
pub fn decoder(kind: &str, path: &str) -> Box<dyn Decoder> {
    let registry = limber::parts::registry().unwrap();
    let source = source(&registry, "decoder", kind, path);
    let prepared = registry.decoder(kind, json!({}), source.as_ref()).unwrap();
    prepared.build(&Weights::new(source, Device::Cpu, None)).unwrap()
}

/// An encoder from a golden file or folder.
pub fn encoder(kind: &str, path: &str, settings: Value) -> Box<dyn Encoder> {
    let registry = limber::parts::registry().unwrap();
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
