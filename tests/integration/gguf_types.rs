//! GGUF's types of tensors, scalings, biases and parts: `tests/golden/gguf_types`.

use super::decoders::all;
use super::golden::{folder, largest, lists, tensors};
use super::program::{limber, stdout};
use candle_core::{Device, Tensor};
use limber::core::weights::Request;
use limber::core::{Decoder, Init, WeightSource, WeightType, Weights};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// f32 arithmetic in another order than torch's, on logits of some units.
const CLOSE: f32 = 1e-4;

fn file(name: &str) -> PathBuf {
    folder("gguf_types").join(format!("{name}.gguf"))
}

fn open(path: &Path) -> Arc<dyn WeightSource> {
    limber::weights::open(&path.to_str().unwrap().parse().unwrap(), &["model.safetensors"], Path::new(".")).unwrap()
}

fn decoder(source: &Arc<dyn WeightSource>) -> Box<dyn Decoder> {
    let registry = limber::built_in::registry().unwrap();
    let kind = registry.detect("decoder", source.as_ref()).unwrap().kind.clone();
    let prepared = registry.decoder(&kind, json!({}), source.as_ref()).unwrap();
    prepared.build(&Weights::new(source.clone(), Device::Cpu, None)).unwrap()
}

fn far(source: &Arc<dyn WeightSource>, name: &str) -> f32 {
    let expected = tensors("gguf_types");
    let of = |what: &str| -> &Tensor { &expected[&format!("{name}.{what}")] };
    largest(&all(decoder(source).as_ref(), of("ids")), of("logits"))
}

/// FNV-1a of the words of all numbers of a tensor, and the type it is held in.
fn fingerprint(source: &dyn WeightSource, name: &str) -> (String, WeightType) {
    let shape = source.tensors().unwrap()[name].clone();
    let request = Request { name, shape: &shape, init: Init::normal(1.0), dtype: WeightType::F32 };
    let data = source.read(&request).unwrap();
    let words = data.to_f32(0..data.elements()).into_iter().map(|x| u64::from(x.to_bits()));
    let print = words.fold(0xcbf2_9ce4_8422_2325_u64, |print, word| (print ^ word).wrapping_mul(0x100_0000_01b3));
    (format!("{print:016x}"), data.dtype())
}

#[test]
fn every_type_of_blocks_is_held_as_it_lies_and_gives_the_packages_numbers() {
    let types = lists("gguf_types")["types"].as_object().unwrap().clone();
    assert_eq!(types.len(), 22);
    let place = tempfile::tempdir().unwrap();
    for (name, prints) in types {
        let source = open(&file(&name));
        let path = place.path().join(format!("{name}.safetensors"));
        let (input, out) = (file(&name), path.to_str().unwrap());
        // Blocks, and the numbers that they stand for.
        stdout(&["convert", input.to_str().unwrap(), "--out", out]);
        let kept = open(&path);
        stdout(&["convert", input.to_str().unwrap(), "--dtype", "f32", "--out", out]);
        let wide = open(&path);
        for (tensor, print) in prints.as_object().unwrap() {
            let is_coded = tensor.contains("q_proj");
            let coded = WeightType::stored_as(&name).unwrap();
            for (source, held) in [(&source, coded), (&kept, coded), (&wide, WeightType::F32)] {
                let (found, dtype) = fingerprint(source.as_ref(), tensor);
                assert_eq!(found, *print, "{name} {tensor}");
                assert!(!is_coded || dtype == held, "{name} {tensor} is held in {dtype}");
            }
        }
        // The kernels of q4_k and q8_0 code activations of few rows; these rows are many.
        let far = far(&source, &name);
        assert!(far < CLOSE, "{name}: {far}");
    }
}

#[test]
fn blocks_are_written_to_gguf_as_they_lie() {
    let place = tempfile::tempdir().unwrap();
    for name in ["q4_1", "q6_k", "iq2_s"] {
        let path = place.path().join("m.gguf");
        stdout(&["convert", file(name).to_str().unwrap(), "--out", path.to_str().unwrap()]);
        let source = open(&path);
        for (tensor, print) in lists("gguf_types")["types"][name].as_object().unwrap() {
            assert_eq!(fingerprint(source.as_ref(), tensor).0, *print, "{name} {tensor}");
        }
        assert!(far(&source, name) < CLOSE, "{name}");
        // Other types are made of the exact numbers.
        stdout(&["convert", file(name).to_str().unwrap(), "--dtype", "bf16", "--out", path.to_str().unwrap()]);
        assert_eq!(fingerprint(open(&path).as_ref(), "model.layers.0.self_attn.q_proj.weight").1, WeightType::Bf16);
    }
    // Nothing is coded in them.
    let refused = limber(&["convert", file("q8_0").to_str().unwrap(), "--dtype", "q6_k", "--out", "x.gguf"]);
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains("invalid value 'q6_k'") && message.contains("f32, f16, bf16, q8_0, q4_k"), "{message}");
}

#[test]
fn biases_scalings_and_tied_heads_are_read() {
    let names = lists("gguf_types")["others"].as_array().unwrap().clone();
    assert_eq!(names.len(), 9);
    for name in names.iter().filter_map(Value::as_str).filter(|name| *name != "split") {
        let source = open(&file(name));
        let far = far(&source, name);
        assert!(far < CLOSE, "{name}: {far}");
        // And written again, where GGUF can say it to the last bit.
        if name == "factors" {
            continue;
        }
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("m.gguf");
        stdout(&["convert", file(name).to_str().unwrap(), "--out", path.to_str().unwrap()]);
        let again = self::far(&open(&path), name);
        assert!(again < CLOSE, "{name} written: {again}");
    }
}

#[test]
fn a_model_in_several_files_opens_by_any_of_them() {
    for part in 1..=3 {
        let source = open(&file(&format!("split-0000{part}-of-00003")));
        let far = far(&source, "split");
        assert!(far < CLOSE, "{part}: {far}");
    }
    let place = tempfile::tempdir().unwrap();
    let copy = |from: usize, to: &str| {
        let path = place.path().join(to);
        std::fs::copy(file(&format!("split-0000{from}-of-00003")), &path).unwrap();
        path
    };
    let message = |path: &Path| {
        let spec = path.to_str().unwrap().parse().unwrap();
        limber::weights::open(&spec, &[], Path::new(".")).err().unwrap().to_string()
    };
    let renamed = message(&copy(1, "other.gguf"));
    assert!(renamed.contains("file 1 of 3 of a split GGUF") && renamed.contains("-00001-of-00003.gguf"), "{renamed}");
    let alone = message(&copy(1, "a-00001-of-00003.gguf"));
    assert!(alone.contains("a-00002-of-00003.gguf: no such file"), "{alone}");
    copy(2, "a-00003-of-00003.gguf");
    let swapped = message(&copy(3, "a-00002-of-00003.gguf"));
    assert!(swapped.contains("file 3 of 3 of a split GGUF"), "{swapped}");
}
