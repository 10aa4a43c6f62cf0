//! GGUF files whose metadata do not say what a model can be: one message that names the entry as the file does, before
//! anything is made of it. Each is a golden file with one entry changed.

use super::golden::folder;
use super::program::fails;
use candle_core::Device;
use limber::core::Weights;
use serde_json::json;
use std::path::Path;

const U32: u32 = 4;
const F32: u32 = 6;

/// `file` with the value of four bytes behind the entry `key` of a type changed.
fn changed(file: &[u8], key: &str, kind: u32, value: [u8; 4]) -> Vec<u8> {
    let mark = [key.as_bytes(), &kind.to_le_bytes()].concat();
    let at = file.windows(mark.len()).position(|window| window == mark).unwrap_or_else(|| panic!("no {key}"));
    let mut out = file.to_vec();
    out[at + mark.len()..at + mark.len() + 4].copy_from_slice(&value);
    out
}

/// `file` with an entry more in front of the others.
fn with_entry(file: &[u8], key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let count = u64::from_le_bytes(file[16..24].try_into().unwrap()) + 1;
    let entry = [&(key.len() as u64).to_le_bytes(), key.as_bytes(), &kind.to_le_bytes(), value].concat();
    // Data begin at a multiple of 32 behind the header: as many bytes of an entry of any name keep them in place.
    let pad = b"pad".as_slice();
    let filler = |n: usize| {
        let text = vec![b'x'; n];
        [&3u64.to_le_bytes(), pad, &8u32.to_le_bytes(), &(n as u64).to_le_bytes(), &text].concat()
    };
    let rest = (32 - (entry.len() + filler(0).len()) % 32) % 32;
    [&file[..16], &(count + 1).to_le_bytes(), &entry, &filler(rest), &file[24..]].concat()
}

fn message(path: &Path, bytes: &[u8]) -> String {
    std::fs::write(path, bytes).unwrap();
    let spec = path.to_str().unwrap().parse().unwrap();
    match limber::weights::open(&spec, &[], Path::new(".")) {
        Ok(_) => panic!("it opens"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn numbers_that_no_model_has_are_refused_under_the_files_names() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("m.gguf");
    let golden = |name: &str| std::fs::read(folder("gguf").join(format!("{name}.gguf"))).unwrap();
    let llama = golden("llama-bf16");
    let float = |x: f32| (F32, x.to_le_bytes());
    let size = |n: u32| (U32, n.to_le_bytes());
    for (key, (kind, value), expected) in [
        ("llama.rope.freq_base", float(f32::NAN), "is NaN, expected a number above 1"),
        ("llama.rope.freq_base", float(0.0), "is 0, expected a number above 1"),
        ("llama.rope.freq_base", float(-500.0), "is -500, expected a number above 1"),
        ("llama.rope.freq_base", float(f32::INFINITY), "is inf, expected a number above 1"),
        ("llama.attention.layer_norm_rms_epsilon", float(f32::NAN), "is NaN, expected a number above 0"),
        ("llama.attention.layer_norm_rms_epsilon", float(-1e-5), "is -0.00001, expected a number above 0"),
        ("llama.attention.layer_norm_rms_epsilon", float(0.0), "is 0, expected a number above 0"),
        ("llama.block_count", size(1), "is 1, but the file has tensors of 2 blocks, the last of them 1"),
        ("llama.block_count", size(3), "is 3, but the file has tensors of 2 blocks"),
        ("llama.block_count", size(u32::MAX), "is 4294967295, but the file has tensors of 2 blocks"),
        ("llama.block_count", size(0), "is 0, expected a whole number, at least 1"),
        ("llama.context_length", size(0), "is 0, expected a whole number, at least 1"),
        ("llama.embedding_length", size(1 << 31), "is 2147483648, but the shape of token_embd.weight is [70, 64]"),
        ("llama.feed_forward_length", size(95), "is 95, but the shape of blk.0.ffn_up.weight is [96, 64]"),
        ("llama.attention.head_count", size(0), "is 0, expected a whole number, at least 1"),
        ("llama.attention.head_count", size(5), "is 5, expected a divisor of embedding_length, 64"),
        ("llama.attention.head_count_kv", size(3), "is 3, expected a divisor of attention.head_count, 4"),
        (
            "llama.attention.head_count_kv",
            size(u32::MAX),
            "is 4294967295, expected a divisor of attention.head_count, 4",
        ),
        (
            "llama.rope.dimension_count",
            size(u32::MAX - 1),
            "is 4294967294, expected an even number, at most a head's width, 16",
        ),
        ("tokenizer.ggml.eos_token_id", size(70), "is 70, expected one of the vocabulary's 70 ids"),
        ("tokenizer.ggml.eos_token_id", size(u32::MAX), "is 4294967295, expected one of the vocabulary's 70 ids"),
    ] {
        let said = message(&path, &changed(&llama, key, kind, value));
        assert!(said.contains("m.gguf") && said.contains(&format!("metadata entry {key} {expected}")), "{said}");
    }
    // The other architectures' own names.
    for (file, key, (kind, value)) in [
        ("gptj-f32", "gptj.attention.layer_norm_epsilon", float(f32::NAN)),
        ("gptj-f32", "gptj.rope.dimension_count", size(17)),
        ("gpt2-q8_0", "gpt2.attention.layer_norm_epsilon", float(-1.0)),
        ("gpt2-q8_0", "gpt2.context_length", size(1 << 30)),
        ("gptneox-f16", "gptneox.attention.layer_norm_epsilon", float(0.0)),
        ("gptneox-f16", "gptneox.rope.dimension_count", size(1 << 31)),
        ("qwen2-q8_0", "qwen2.block_count", size(u32::MAX)),
    ] {
        let said = message(&path, &changed(&golden(file), key, kind, value));
        assert!(said.contains(&format!("metadata entry {key} is ")), "{said}");
    }
}

#[test]
fn entries_that_few_files_have_are_held_to_their_bounds_too() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("m.gguf");
    let llama = std::fs::read(folder("gguf/llama-bf16.gguf")).unwrap();
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let nan = f32::NAN.to_le_bytes().to_vec();
    // Whole as it is with an entry that nobody asks for.
    std::fs::write(&path, with_entry(&llama, "llama.nobody", F32, &nan)).unwrap();
    limber::weights::open(&path.to_str().unwrap().parse().unwrap(), &[], Path::new(".")).unwrap();
    for (key, kind, value, expected) in [
        (
            "tokenizer.ggml.bos_token_id",
            U32,
            70u32.to_le_bytes().to_vec(),
            "is 70, expected one of the vocabulary's 70",
        ),
        (
            "tokenizer.ggml.bos_token_id",
            5,
            (-1i32).to_le_bytes().to_vec(),
            "is -1, expected one of the vocabulary's 70",
        ),
        ("tokenizer.ggml.eot_token_id", U32, u32::MAX.to_le_bytes().to_vec(), "is 4294967295, expected one of the"),
        ("llama.rope.scaling.factor", F32, nan.clone(), "is NaN, expected a number above 0"),
        ("llama.rope.scaling.factor", F32, (-2f32).to_le_bytes().to_vec(), "is -2, expected a number above 0"),
        ("llama.rope.scaling.type", 8, text("ntk"), "llama.rope.scaling.type is \"ntk\""),
        ("llama.rope.scaling.type", 8, text("yarn"), "llama.rope.scaling.type is \"yarn\" with a factor of 0"),
        ("llama.attention.key_length", U32, u32::MAX.to_le_bytes().to_vec(), "but the shape of blk.0.attn_q.weight"),
        ("llama.attention.value_length", U32, 8u32.to_le_bytes().to_vec(), "is 8, supported is that of keys, 16"),
    ] {
        let said = message(&path, &with_entry(&llama, key, kind, &value));
        let named =
            if expected.starts_with("is ") { format!("metadata entry {key} {expected}") } else { expected.into() };
        assert!(said.contains(&named), "{said}");
    }
}

#[test]
fn a_hostile_number_of_layers_costs_no_memory() {
    // Beside weights of Hugging Face's kind no tensor says how many there are before they are asked for.
    let place = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(folder("llama/bare")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), place.path().join(file.file_name())).unwrap();
    }
    let path = place.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let good: serde_json::Value = serde_json::from_str(&text).unwrap();
    let out = place.path().join("m.gguf");
    for (key, value, expected) in [
        ("num_hidden_layers", u64::from(u32::MAX), "num_hidden_layers is 4294967295, expected at most 10000"),
        ("head_dim", 1 << 40, "head_dim is 1099511627776, expected at most 65536"),
    ] {
        let mut config = good.clone();
        config[key] = value.into();
        std::fs::write(&path, config.to_string()).unwrap();
        fails(&["convert", place.path().to_str().unwrap(), "--out", out.to_str().unwrap()], &[expected]);
    }
    let mut config = good.clone();
    config["rms_norm_eps"] = (-1.0).into();
    std::fs::write(&path, config.to_string()).unwrap();
    let registry = limber::built_in::registry().unwrap();
    let spec = place.path().to_str().unwrap().parse().unwrap();
    let source = limber::weights::open(&spec, &["model.safetensors"], Path::new(".")).unwrap();
    let prepared = registry.decoder("llama", json!({}), source.as_ref()).unwrap();
    let said = prepared.build(&Weights::new(source, Device::Cpu, None)).err().unwrap().to_string();
    assert!(said.contains("the norms' epsilon is -1, expected a number, at least 0"), "{said}");
}
