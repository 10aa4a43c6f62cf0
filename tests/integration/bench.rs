//! `limber bench` on the demo model: what it prints holds together. No time is asserted.

use super::program::{fails, limber, lines, stdout};
use serde_json::Value;

/// A small run.
const SMALL: [&str; 6] = ["--tokens", "2", "--repeats", "1", "--batch", "1,3"];

fn bench(more: &[&str]) -> Vec<Value> {
    lines(&[&["bench", "--json"], &SMALL[..], more].concat())
}

fn of<'a>(all: &'a [Value], stage: &str, dtype: &str) -> Vec<&'a Value> {
    all.iter().filter(|line| line["stage"] == stage && line["dtype"] == dtype).collect()
}

fn number(line: &Value, key: &str) -> f64 {
    line[key].as_f64().unwrap_or_else(|| panic!("{key} of {line}"))
}

#[test]
fn every_stage_of_every_type_has_a_line_whose_numbers_agree() {
    let all = bench(&[]);
    let stages: Vec<&str> = all.iter().map(|line| line["stage"].as_str().unwrap()).collect();
    assert_eq!(stages[..6], ["read", "gemm", "image", "pixels", "encode", "stitch"]);
    for types in stages[6..].chunks(4) {
        assert_eq!(types, ["load", "prefill", "decode", "decode"]);
    }
    assert_eq!(all.len(), 6 + 5 * 4);
    assert!(number(&all[0], "gb_s") > 0.0 && number(&all[1], "gflop_s") > 0.0);
    let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
    for line in &all {
        let seconds = number(line, "seconds");
        assert!(seconds > 0.0, "{line}");
        assert!(!cfg!(target_os = "linux") || number(line, "peak_bytes") > 1e6, "{line}");
        if line["share"].is_null() || line["stage"] == "read" || line["stage"] == "gemm" {
            continue;
        }
        let (bytes, flops) = (number(line, "bytes"), number(line, "flops"));
        assert!(near(number(line, "gb_s"), bytes / seconds / 1e9), "{line}");
        assert!(near(number(line, "gflop_s"), flops / seconds / 1e9), "{line}");
        // The limits around each run are its own, so the share is bounded by what any machine does.
        assert!((1e-6..100.0).contains(&number(line, "share")), "{line}");
        assert!(["read", "gemm"].contains(&line["limit"].as_str().unwrap()), "{line}");
    }
    // The same work in every type, over fewer bytes; prompts are the demo's 16 prefix positions and three words.
    let work = |stage: &str, dtype: &str| {
        of(&all, stage, dtype).iter().map(|l| (number(l, "bytes"), number(l, "flops"))).collect::<Vec<_>>()
    };
    let (wide, narrow) = (work("prefill", "f32")[0], work("prefill", "bf16")[0]);
    assert_eq!((wide.0, wide.1), (2.0 * narrow.0, narrow.1));
    // GPT-J: 12 D² a layer and the head, D = 160, V = 762, L = 4; attention sees 1 + 2 + ... + 19 positions.
    let (matrices, head) = (4.0 * 12.0 * 160.0 * 160.0, 762.0 * 160.0);
    assert_eq!(wide.0, 4.0 * (matrices + head));
    // What follows the keys and values of the last block, 9 of its 12 squares, is for the last position alone.
    let once = 9.0 * 160.0 * 160.0;
    let every = matrices - once;
    assert_eq!(wide.1, 2.0 * every * 19.0 + 2.0 * (once + head) + 4.0 * 4.0 * 160.0 * 190.0);
    for dtype in ["f32", "f16", "bf16", "q8_0", "q4_k"] {
        assert_eq!(of(&all, "prefill", dtype)[0]["positions"], 19);
        let [one, three] = of(&all, "decode", dtype)[..] else { panic!("{dtype}") };
        assert_eq!((&one["batch"], &three["batch"]), (&Value::from(1), &Value::from(3)));
        assert_eq!(number(three, "flops"), 3.0 * number(one, "flops"));
        assert!(near(number(three, "tokens_per_s"), 3.0 / number(three, "seconds")));
        // Rows share the weights and have keys and values of their own: 2 L D numbers of f32 a position.
        let cached = 2.0 * 4.0 * 160.0 * 4.0 * number(one, "positions");
        assert_eq!(number(three, "bytes") - number(one, "bytes"), 2.0 * cached, "{dtype}");
    }
    let loaded = |dtype: &str| number(of(&all, "load", dtype)[0], "bytes");
    assert!(loaded("q8_0") < 0.6 * loaded("bf16") && loaded("q4_k") <= loaded("q8_0"));
}

#[test]
fn fewer_layers_in_one_type_as_a_table() {
    let small = [&["bench", "--layers", "1", "--dtype", "bf16,stored"], &SMALL[..]].concat();
    let text = stdout(&small);
    let first: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let one = ["load", "prefill", "decode", "decode"];
    let limits = ["stage", "read", "gemm", "image", "pixels", "encode", "stitch"];
    assert_eq!(first, [&limits[..], &one, &one].concat());
    let one = bench(&["--layers", "1", "--dtype", "f32"]);
    let two = bench(&["--layers", "2", "--dtype", "f32"]);
    let bytes = |all: &[Value]| number(of(all, "prefill", "f32")[0], "bytes");
    assert_eq!(bytes(&two) - bytes(&one), 4.0 * 12.0 * 160.0 * 160.0);
}

#[test]
fn an_image_of_ones_own_and_features_in_place_of_images() {
    let image = format!("{}/assets/demo/scene-1.png", crate::ROOT);
    let all = bench(&["--dtype", "f16", "--image", &image]);
    let size = std::fs::metadata(&image).unwrap().len();
    assert_eq!(all[2]["bytes"].as_u64().unwrap(), size);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.yaml");
    let text = "encoder: {kind: features, tokens: 3, width: 8}\nstitch: {kind: linear, weights: 'random:0'}\ndecoder: {kind: gptj}\n";
    std::fs::write(&config, text).unwrap();
    let output =
        limber(&[&["bench", "--json", "--dtype", "f16", "--config", config.to_str().unwrap()], &SMALL[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the encoder takes features"));
    let text = String::from_utf8(output.stdout).unwrap();
    let stages: Vec<Value> = text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["stage"].clone()).collect();
    assert_eq!(stages, ["read", "gemm", "stitch", "load", "prefill", "decode", "decode"]);
}

#[test]
fn quality_is_exact_for_the_stored_type_and_falls_with_the_bits() {
    // The demo's weights are stored as f16, so that f16 is f32 arithmetic on the same numbers.
    let all = lines(&["bench", "--quality", "--json", "--tokens", "12"]);
    let types: Vec<&str> = all.iter().map(|line| line["dtype"].as_str().unwrap()).collect();
    assert_eq!(types, ["f16", "bf16", "q8_0", "q4_k"]);
    let kl: Vec<f64> = all.iter().map(|line| number(line, "kl")).collect();
    assert!(kl[0] < 1e-9 && kl[0] < kl[1] && kl[1] < 1e-4 && kl[2] < 1e-3, "{kl:?}");
    for line in &all {
        assert_eq!(line["stage"], "quality");
        assert!(number(line, "positions") >= 50.0 && number(line, "max_kl") >= number(line, "kl"), "{line}");
        assert!((0.9..=1.0).contains(&number(line, "top1")), "{line}");
    }
    // Rows of 256 numbers, of random layers: 4 bits tell.
    let sizes = ["--set", "decoder.weights=random:3", "--set", "decoder.n_embd=256", "--set", "decoder.n_head=4"];
    let small = ["--set", "decoder.n_layer=2", "--set", "decoder.vocab_size=512", "--set", "stitch.weights=random:1"];
    let all = lines(&[&["bench", "--quality", "--json", "--dtype", "q8_0,q4_k"], &sizes[..], &small].concat());
    assert!(number(&all[1], "kl") > 10.0 * number(&all[0], "kl") && number(&all[0], "kl") > 0.0, "{all:?}");
    let table = stdout(&["bench", "--quality", "--dtype", "q8_0", "--tokens", "2"]);
    assert_eq!(table.lines().count(), 2);
}

#[test]
fn wrong_flags_are_named() {
    let check = |flags: &[&str], expected: &[&str]| fails(&[&["bench"], flags].concat(), expected);
    check(&["--dtype", "f17"], &["--dtype: type \"f17\" is unknown, expected f32, f16, bf16, q8_0 or q4_k, or stored"]);
    check(&["--batch", "1,0"], &["batch 0 is not allowed, it is 1 or above"]);
    check(&["--tokens", "0"], &["tokens 0 is not allowed"]);
    check(&["--repeats", "0"], &["repeats 0 is not allowed"]);
    check(&["--layers", "0"], &["layers 0 is not allowed"]);
    check(&["--image", "no/such.png"], &["cannot read no/such.png"]);
    check(&["--image", "Cargo.toml", "--device", "cuda:0"], &["feature \"cuda\""]);
    assert_eq!(limber(&["bench", "--batch", "many"]).status.code(), Some(2));
    // The limits stand on stdout by then.
    let output = limber(&["bench", "--tokens", "600", "--repeats", "1", "--dtype", "f16"]);
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(message.contains("context length, which allows 512"), "{message}");
}
