//! GGUF files of the decoder families against the `gguf` package and transformers: `tests/golden/gguf_families`, what is
//! written of them, and what a file or a config asks for that the other side does not know.

use super::decoders::{CLOSE, change};
use super::gguf::logits;
use super::golden::{folder, largest, lists, tensors};
use super::program::{fails, stdout};
use candle_core::Device;
use limber_core::registry::DEFAULT_FILES;
use serde_json::json;
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    folder("gguf_families").join(format!("{name}.gguf"))
}

/// Cases, with their kinds.
fn cases() -> Vec<(String, String)> {
    let models = lists("gguf_families")["models"].as_object().unwrap().clone();
    assert_eq!(models.len(), 16);
    models.into_iter().map(|(name, model)| (name, model["kind"].as_str().unwrap().to_string())).collect()
}

#[test]
fn files_of_the_gguf_package_give_transformers_logits() {
    let expected = tensors("gguf_families");
    for (name, kind) in cases() {
        let far = largest(
            &logits(&kind, &file(&name), &expected[&format!("{name}.ids")]),
            &expected[&format!("{name}.logits")],
        );
        assert!(far < CLOSE, "{name}: {far}");
    }
}

#[test]
fn what_is_written_gives_the_same_logits() {
    let (expected, place) = (tensors("gguf_families"), tempfile::tempdir().unwrap());
    for (name, kind) in cases() {
        let (input, out) = (file(&name), place.path().join(format!("{name}.gguf")));
        stdout(&["convert", input.to_str().unwrap(), "--out", out.to_str().unwrap()]);
        let ids = &expected[&format!("{name}.ids")];
        assert_eq!(largest(&logits(&kind, &out, ids), &logits(&kind, &input, ids)), 0.0, "{name}");
    }
}

#[test]
fn what_llama_cpp_would_compute_otherwise_is_not_written() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("m.gguf");
    for (from, expected) in [
        ("gemma/untied", "attention_bias is true; a GGUF file of gemma can say false"),
        ("gemma3/tied", "query_pre_attn_scalar is 20; a GGUF file of gemma3 can say 12"),
        ("olmo2/tied", "a GGUF file of olmo2 can say false"),
        ("smollm3/tied", "no_rope_layers is [1,0,1], which a GGUF file of smollm3 cannot say"),
        ("granite/untied", "attention_bias is true"),
        ("starcoder2/tied", "sliding_window is 6, which a GGUF file of starcoder2 cannot say"),
        ("falcon/alibi", "alibi is true; a GGUF file of falcon can say false"),
        ("gpt_neo/tied", "no architecture in GGUF"),
    ] {
        let input = folder(&format!("decoder_families/{from}"));
        fails(&["convert", input.to_str().unwrap(), "--out", out.to_str().unwrap()], &[expected]);
        assert!(!out.exists());
    }
}

#[test]
fn what_a_file_asks_for_and_no_decoder_does_is_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("m.gguf");
    for (name, from, to, expected) in [
        (
            "mpt-f16",
            "mpt.attention.max_alibi_bias",
            "mpt.attention.max_alibi_none",
            "metadata entry mpt.attention.max_alibi_bias is missing, supported is 8",
        ),
        (
            "granite-q8_0",
            "granite.logit_scale",
            "granite.logit_scald",
            "metadata entry granite.logit_scale is missing or no number",
        ),
        (
            "phi3-f16",
            "blk.0.ffn_up.weight",
            "blk.0.ffn_gate.bias",
            "tensor \"blk.0.ffn_gate.bias\" is none that phi3 has",
        ),
        ("qwen3-f16", "blk.0.attn_q_norm.weight", "blk.0.attn_q_nurm.weight", "is none that qwen3 has"),
        ("phi3-longrope", "rope_factors_long.weight", "rope_factors_lung.weight", "is none that phi3 has"),
    ] {
        let mut bytes = std::fs::read(file(name)).unwrap();
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&path, bytes).unwrap();
        let opened = limber::weights::open(&path.to_str().unwrap().parse().unwrap(), &[], Path::new("."));
        let message = opened.err().unwrap().to_string();
        assert!(message.contains(expected), "{name}: {message}");
    }
}

/// A folder whose head is the word embeddings, without a tensor of its own.
fn tie(folder: &Path) {
    change(&folder.join("config.json"), &json!({"tie_word_embeddings": true}));
    let file = folder.join("model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    tensors.remove("lm_head.weight");
    std::fs::remove_file(&file).unwrap();
    candle_core::safetensors::save(&tensors, &file).unwrap();
}

#[test]
fn a_tied_head_is_written_where_llama_cpp_reads_no_other() {
    let (ids, place) = (tensors("gguf_families"), tempfile::tempdir().unwrap());
    // Names of tensors.
    let names = |path: &Path| {
        let source =
            limber::weights::open(&path.to_str().unwrap().parse().unwrap(), DEFAULT_FILES, Path::new(".")).unwrap();
        source.tensors().unwrap().into_keys().collect::<Vec<_>>()
    };
    let convert = |from: &Path, to: &Path, dtype: &str| {
        stdout(&["convert", from.to_str().unwrap(), "--out", to.to_str().unwrap(), "--dtype", dtype])
    };
    for (name, kind, written) in [
        ("olmo2-f16", "olmo2", true),
        ("stablelm-f16", "stablelm", true),
        ("qwen3-f16", "qwen3", false),
        ("starcoder2-f16", "starcoder2", false),
    ] {
        let tied = place.path().join(name);
        convert(&file(name), &tied.join(""), "f32");
        tie(&tied);
        for dtype in ["f32", "q8_0"] {
            let out = place.path().join(format!("{name}-{dtype}.gguf"));
            convert(&tied, &out, dtype);
            let bytes = std::fs::read(&out).unwrap();
            // Behind its length: other names end like it.
            let head = [&13u64.to_le_bytes()[..], b"output.weight"].concat();
            assert_eq!(bytes.windows(head.len()).any(|part| part == head), written, "{name} in {dtype}");
            // Read again, it is tied.
            assert_eq!(names(&out), names(&tied), "{name} in {dtype}");
        }
        let back = place.path().join(format!("{name}-back"));
        convert(&place.path().join(format!("{name}-f32.gguf")), &back.join(""), "f32");
        let ids = &ids[&format!("{name}.ids")];
        assert_eq!(largest(&logits(kind, &back, ids), &logits(kind, &tied, ids)), 0.0, "{name}");
    }
    // Another head stays another head.
    let untied = place.path().join("untied");
    convert(&file("olmo2-f16"), &untied.join(""), "f32");
    assert!(names(&untied).contains(&"lm_head.weight".to_string()));
}
