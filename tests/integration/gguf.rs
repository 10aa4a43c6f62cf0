//! GGUF against the `gguf` package and transformers: `tests/golden/gguf`, and what is written read again.

use super::decoders::{CLOSE, all};
use super::golden::{folder, largest, lists, source, tensors};
use super::program::{fails, lines, stdout};
use candle_core::{Device, Tensor};
use limber::core::{Decoder, WeightSource, WeightType, Weights};
use limber::text::Tokenizer;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn open(kind: &str, path: &Path) -> (Arc<dyn WeightSource>, Box<dyn Decoder>) {
    let registry = limber::built_in::registry().unwrap();
    let source = source(&registry, "decoder", kind, path.to_str().unwrap());
    // The file itself says whose it is.
    assert_eq!(registry.detect("decoder", source.as_ref()).unwrap().kind, kind);
    let prepared = registry.decoder(kind, json!({}), source.as_ref()).unwrap();
    let decoder = prepared.build(&Weights::new(source.clone(), Device::Cpu, None)).unwrap();
    (source, decoder)
}

/// Logits of the decoder at `path` under `tests/golden` or anywhere.
pub(crate) fn logits(kind: &str, path: &Path, ids: &Tensor) -> Tensor {
    all(open(kind, path).1.as_ref(), ids)
}

#[test]
fn files_of_the_gguf_package_give_transformers_logits() {
    let expected = tensors("gguf");
    let models = lists("gguf")["models"].as_object().unwrap().clone();
    assert_eq!(models.len(), 9);
    for (name, model) in models {
        let kind = match model["kind"].as_str().unwrap() {
            "qwen2" => "llama",
            kind => kind,
        };
        let found = logits(kind, &folder("gguf").join(format!("{name}.gguf")), &expected[&format!("{name}.ids")]);
        let expected = &expected[&format!("{name}.logits")];
        // Four times as many terms where rows have 256 numbers, none of them around 0; the numbers are the package's own.
        let close = if ["llama-q4_k", "llama-q6_k"].contains(&name.as_str()) { 4.0 * CLOSE } else { CLOSE };
        let far = largest(&found, expected);
        assert!(far < close, "{name}: {far}");
    }
}

#[test]
fn a_byte_level_tokenizer_is_that_of_the_folder_it_was_made_of() {
    let (source, _) = open("gpt2", &folder("gguf").join("bpe.gguf"));
    let ours = Tokenizer::from_source(source.as_ref()).unwrap();
    let theirs = Tokenizer::from_folder(folder("tokenizer/bpe")).unwrap();
    for text in ["A picture of a red circle", "naïve café 😀\n  two  spaces", "x<|endoftext|>y", ""] {
        let ids = ours.encode(text).unwrap();
        assert_eq!(ids, theirs.encode(text).unwrap(), "{text:?}");
        assert_eq!(ours.decode(&ids, false).unwrap(), text);
    }
    // One token more, which is special; rows that fill up are none.
    assert_eq!(ours.encode("a<|image|>b").unwrap().len(), 3);
    assert_eq!((ours.limit(), theirs.limit()), (422, 421));
}

/// A golden folder written as a GGUF file, with flags; the file and what the program said.
fn written(from: &str, flags: &[&str]) -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("m.gguf");
    let input = folder(from);
    stdout(&[&["convert", input.to_str().unwrap(), "--out", out.to_str().unwrap()], flags].concat());
    (temp, out)
}

#[test]
fn what_is_written_gives_the_folders_own_logits() {
    // f32 is kept to the bit, so the logits are the same numbers.
    for (kind, case, form, ids) in [
        ("gptj", "gptj", "f32", "ids"),
        ("gptj", "gptj", "bf16", "ids"),
        ("gpt2", "gpt2", "f32", "ids"),
        ("gpt2", "gpt2", "hub", "ids"),
        ("gpt2", "gpt2", "untied", "ids"),
        ("gpt-neox", "gpt_neox", "pythia", "pythia.ids"),
        ("gpt-neox", "gpt_neox", "serial", "serial.ids"),
    ] {
        let ids = &tensors(case)[ids];
        let from = format!("{case}/{form}");
        let (_temp, out) = written(&from, &[]);
        let far = largest(&logits(kind, &out, ids), &logits(kind, &folder(&from), ids));
        assert_eq!(far, 0.0, "{from}");
    }
}

#[test]
fn grouped_queries_biases_and_scaled_frequencies_are_written() {
    let ids = &tensors("llama")["llama3.ids"];
    // The golden models' windows and bounds are none that the format can say.
    for (form, change) in [
        ("bare", json!({})),
        ("mistral", json!({"sliding_window": null})),
        ("qwen2", json!({"use_sliding_window": false, "layer_types": null})),
        ("llama3", json!({"rope_parameters": null, "rope_scaling": {"type": "linear", "factor": 2.5}})),
        (
            "llama3",
            json!({"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}),
        ),
    ] {
        let temp = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(folder("llama").join(form)).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), temp.path().join(file.file_name())).unwrap();
        }
        let path = temp.path().join("config.json");
        let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for (key, value) in change.as_object().unwrap() {
            config[key] = value.clone();
        }
        std::fs::write(&path, config.to_string()).unwrap();
        let out = temp.path().join("m.gguf");
        stdout(&["convert", temp.path().to_str().unwrap(), "--out", out.to_str().unwrap()]);
        let far = largest(&logits("llama", &out, ids), &logits("llama", temp.path(), ids));
        assert_eq!(far, 0.0, "{form} {change}");
    }
}

#[test]
fn quantised_files_of_both_formats_hold_the_same_numbers() {
    // GPT-2's matrices are transposed before they are coded; a width of 64 and 256 fills blocks.
    for (name, kind, dtype) in
        [("gpt2-q8_0", "gpt2", "q8_0"), ("llama-q4_k", "llama", "q4_k"), ("gptj-f32", "gptj", "q8_0")]
    {
        let ids = &tensors("gguf")[&format!("{name}.ids")];
        let plain = tempfile::tempdir().unwrap();
        let input = folder("gguf").join(format!("{name}.gguf"));
        let wide = plain.path().join("wide.gguf");
        stdout(&["convert", input.to_str().unwrap(), "--dtype", "f32", "--out", wide.to_str().unwrap()]);
        let narrow = plain.path().join("narrow.gguf");
        stdout(&["convert", wide.to_str().unwrap(), "--dtype", dtype, "--out", narrow.to_str().unwrap()]);
        let tensors = plain.path().join("model.safetensors");
        let flags = ["--to", "safetensors", "--dtype", dtype, "--out", tensors.to_str().unwrap()];
        stdout(&[&["convert", wide.to_str().unwrap()], &flags[..]].concat());
        let config = open(kind, &wide).0.document("config.json").unwrap().unwrap();
        std::fs::write(plain.path().join("config.json"), config).unwrap();
        let (a, b) = (logits(kind, &narrow, ids), logits(kind, plain.path(), ids));
        assert_eq!(largest(&a, &b), 0.0, "{name}");
        // And they are rounded: the same only where they were such numbers before, near where there are eight bits.
        let far = largest(&a, &logits(kind, &wide, ids));
        assert!((far > 0.0) == (name != "gpt2-q8_0") && (far < 0.5 || dtype == "q4_k"), "{name}: {far}");
        // Held as they lie, not copied.
        let (source, _) = open(kind, &narrow);
        let weights = Weights::new(source.clone(), Device::Cpu, None);
        let name = source
            .tensors()
            .unwrap()
            .into_keys()
            .find(|n| n.contains("fc") && n.contains("weight") || n.contains("up_proj"));
        let name = name.unwrap();
        let shape = source.tensors().unwrap()[&name].clone();
        let data = weights.frozen(&name, &shape, limber::core::Init::normal(1.0)).unwrap();
        assert_eq!(data.dtype(), WeightType::named(dtype).unwrap(), "{name}");
    }
}

#[test]
fn gpt2_is_quantised_along_the_rows_that_are_read() {
    // From a folder of transformers to a safetensors file that is mapped again.
    let temp = tempfile::tempdir().unwrap();
    let wide = temp.path().join("wide.gguf");
    let input = folder("gguf").join("gpt2-q8_0.gguf");
    stdout(&["convert", input.to_str().unwrap(), "--dtype", "f32", "--out", wide.to_str().unwrap()]);
    let ids = &tensors("gguf")["gpt2-q8_0.ids"];
    let out = temp.path().join("model.safetensors");
    stdout(&[
        "convert",
        wide.to_str().unwrap(),
        "--dtype",
        "q8_0",
        "--to",
        "safetensors",
        "--out",
        out.to_str().unwrap(),
    ]);
    std::fs::write(temp.path().join("config.json"), open("gpt2", &wide).0.document("config.json").unwrap().unwrap())
        .unwrap();
    let expected = &tensors("gguf")["gpt2-q8_0.logits"];
    // The numbers were q8_0 once, so they are again.
    assert!(largest(&logits("gpt2", temp.path(), ids), expected) < 10.0 * CLOSE);
    let from = folder("gpt2/f32");
    let transposed = temp.path().join("turned.safetensors");
    stdout(&["convert", from.to_str().unwrap(), "--dtype", "q8_0", "--out", transposed.to_str().unwrap()]);
    let source = limber::weights::open(&transposed.to_str().unwrap().parse().unwrap(), &[], Path::new(".")).unwrap();
    let names = source.tensors().unwrap();
    assert!(names.keys().any(|n| n.ends_with("attn.c_attn.weight.turned")), "{names:?}");
    assert!(!names.keys().any(|n| n.ends_with("attn.c_attn.weight")));
}

#[test]
fn the_demo_speaks_from_a_gguf_file() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("demo.gguf");
    let summary = &lines(&["convert", "assets/demo/gptj", "--json", "--out", out.to_str().unwrap()])[0];
    assert!(summary["tensors"].as_u64().unwrap() > 40);
    let set = format!("decoder.weights={}", out.display());
    let scene = super::program::scene(0);
    let ours = &lines(&["caption", "--json", "--set", &set, &scene])[0];
    let own = &lines(&["caption", "--json", &scene])[0];
    assert_eq!((&ours["text"], &ours["tokens"]), (&own["text"], &own["tokens"]));
    let auto = stdout(&["caption", "--set", &set, "--set", "decoder.kind=auto", &scene]);
    assert_eq!(auto.trim(), own["text"]);
    // The third of these tokens as the end of a turn, under whatever name: decoding stops there.
    let bytes = std::fs::read(&out).unwrap();
    let key = b"tokenizer.ggml.eos_token_id";
    let at = bytes.windows(key.len()).position(|w| w == key).unwrap();
    let tokens = own["tokens"].as_array().unwrap();
    let third = tokens[2].as_u64().unwrap() as u32;
    for name in [b"eot", b"eom"] {
        let mut bytes = bytes.clone();
        bytes[at + 15..at + 18].copy_from_slice(name);
        bytes[at + 31..at + 35].copy_from_slice(&third.to_le_bytes());
        std::fs::write(&out, bytes).unwrap();
        let line = &lines(&["caption", "--json", "--set", &set, &scene])[0];
        let until = tokens.iter().position(|id| *id == json!(third)).unwrap();
        assert_eq!((&line["finish"], line["tokens"].as_array().unwrap().as_slice()), (&json!("eos"), &tokens[..until]));
    }
}

#[test]
fn what_gguf_cannot_say_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let out = temp.path().join("m.gguf");
    let out = out.to_str().unwrap();
    let convert = |from: &str, expected: &[&str]| {
        let input = folder(from);
        fails(&["convert", input.to_str().unwrap(), "--out", out], expected);
        assert!(!Path::new(out).exists());
    };
    convert("opt/f32", &["opt", "no architecture in GGUF", "gptj, gpt2, gptneox, llama, qwen2"]);
    convert("llama/mistral", &["sliding_window is 7", "cannot say"]);
    convert("llama/llama3", &["rope_scaling is", "\"low_freq_factor\":0.3", "cannot say"]);
    // Nothing beside it says whose weights these are.
    let bare = temp.path().join("model.safetensors");
    std::fs::copy(folder("gptj/f32/model.safetensors"), &bare).unwrap();
    fails(&["convert", bare.to_str().unwrap(), "--out", out], &["nothing beside the weights tells the decoder's kind"]);
}

#[test]
fn files_that_are_none_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("m.gguf");
    let good = std::fs::read(folder("gguf/gptj-f32.gguf")).unwrap();
    let message = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        limber::weights::open(&path.to_str().unwrap().parse().unwrap(), &[], Path::new(".")).err().unwrap().to_string()
    };
    let replaced = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|w| w == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    let check = |bytes: &[u8], part: &str| {
        let message = message(bytes);
        assert!(message.contains("m.gguf") && message.contains(part), "{part}: {message}");
    };
    check(&good[..good.len() - 64], "cut short");
    check(&replaced(b"gptj", b"bert"), "architecture \"bert\"; known are gptj, gpt2, gptneox, llama, qwen2");
    check(&replaced(b"general.architecture", b"general.architectura"), "without general.architecture");
    check(&replaced(b"gptj.block_count", b"gptj.block_coumt"), "gptj.block_count is missing");
    check(&replaced(b"blk.0.attn_q.weight", b"blk.0.attn_Q.weight"), "\"blk.0.attn_Q.weight\" is none that gptj has");
    check(&replaced(b"token_embd.weight", b"token_Embd.weight"), "without token_embd.weight");
}
