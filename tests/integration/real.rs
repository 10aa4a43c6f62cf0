//! Real weights: with `LIMBER_REAL=DIR`, a folder of published models, `tests/real/*.json` says what others make of them.
//!
//! Without the variable these tests say that they are skipped and pass.

use super::gguf_types::{decoder, open};
use candle_core::{Device, Tensor};
use limber::core::{Decoder, Run, Weights};
use limber::generation::{Request, generate, log_softmax};
use limber::text::Tokenizer;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The folder of real weights; None, and a line that says so, where there is none.
pub(super) fn real(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("LIMBER_REAL").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: {test} needs LIMBER_REAL, a folder of real weights");
    }
    folder
}

fn expected() -> Value {
    let path = Path::new(crate::ROOT).join("tests/real/smollm2.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn embedded(decoder: &dyn Decoder, ids: &[u32]) -> Tensor {
    decoder.embed(&Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap()
}

/// Log-probabilities of each id after those before it.
fn logprobs(decoder: &dyn Decoder, ids: &[u32]) -> Vec<f32> {
    let logits = decoder.forward(&embedded(decoder, &ids[..ids.len() - 1]), &mut Run::new()).unwrap();
    let rows = logits.squeeze(0).unwrap().to_vec2::<f32>().unwrap();
    rows.iter().zip(&ids[1..]).map(|(row, id)| log_softmax(row, *id).unwrap()).collect()
}

fn farthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn greedy(decoder: &dyn Decoder, prompt: &[u32], count: usize) -> Vec<u32> {
    let request = super::decoders::request(count, decoder.spec().vocab, 1);
    let request = Request { eos: decoder.spec().eos.clone(), ..request };
    let all = generate(decoder, &[embedded(decoder, prompt)], &request, &mut |_, _| Ok(())).unwrap();
    all[0].tokens.clone()
}

#[test]
fn a_real_gguf_file_gives_transformers_numbers_with_no_file_beside_it() {
    let Some(real) = real("the real GGUF file") else { return };
    let expected = expected();
    // Alone in its folder.
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("model.gguf");
    std::fs::copy(real.join("smollm2.gguf"), &path).unwrap();
    let source = open(&path);
    let model = decoder(&source);
    let wanted: Vec<f32> = serde_json::from_value(expected["logprobs"].clone()).unwrap();
    let found = logprobs(model.as_ref(), &ids(&expected["ids"]));
    let far = farthest(&found, &wanted);
    assert!(found.len() == 200 && far < 1e-3, "{far}");
    let prompt = ids(&expected["prompt_ids"]);
    assert_eq!(greedy(model.as_ref(), &prompt, 60), ids(&expected["greedy"]));
    assert_eq!(model.spec().eos[0], 2);
    // What is written of it says the same.
    let out = place.path().join("again.gguf");
    super::program::stdout(&["convert", path.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    let again = decoder(&open(&out));
    assert_eq!(farthest(&logprobs(again.as_ref(), &ids(&expected["ids"])), &found), 0.0);
}

#[test]
fn a_real_gguf_file_equals_its_hugging_face_form() {
    let Some(real) = real("the real Hugging Face folder") else { return };
    let expected = expected();
    let (file, saved) = (open(&real.join("smollm2.gguf")), open(&real.join("smollm2")));
    // The folder holds bf16 of the file's numbers: each number within 2^-9 of itself.
    let ids_of_text = ids(&expected["ids"]);
    let rounded = logprobs(decoder(&saved).as_ref(), &ids_of_text);
    let of_file = Weights::new(file.clone(), Device::Cpu, Some(limber::core::WeightType::Bf16));
    let registry = limber::built_in::registry().unwrap();
    let prepared = registry.decoder("llama", json!({}), file.as_ref()).unwrap();
    let found = logprobs(prepared.build(&of_file).unwrap().as_ref(), &ids_of_text);
    let far = farthest(&found, &rounded);
    assert!(far < 1e-4, "{far}");
}

#[test]
fn a_real_gguf_file_has_llama_cpps_tokens() {
    let Some(real) = real("the real tokenizers") else { return };
    let expected = expected();
    let of = |path: PathBuf| Tokenizer::from_source(open(&path).as_ref()).unwrap();
    let (file, saved) = (of(real.join("smollm2.gguf")), of(real.join("smollm2")));
    for (at, text) in expected["texts"].as_array().unwrap().iter().enumerate() {
        let text = text.as_str().unwrap();
        let found = file.encode(text).unwrap();
        assert_eq!(found, ids(&expected["llama.cpp"][at]), "{text:?}");
        assert_eq!(saved.encode(text).unwrap(), ids(&expected["tokenized"][at]), "{text:?}");
        assert_eq!(file.decode(&found, false).unwrap(), text);
    }
    assert_eq!((file.eos(), file.limit()), (saved.eos(), saved.limit()));
}
