//! Weights in two bytes and in blocks mean f32 arithmetic on the numbers that they stand for, in every decoder.

use super::decoders::all;
use super::golden::largest;
use candle_core::{Device, Tensor};
use limber::core::random::RandomSource;
use limber::core::weights::FrozenData;
use limber::core::{CacheOptions, Decoder, Run, WeightSource, WeightType, Weights};
use limber_kit::Drawn;
use serde_json::{Value, json};
use std::sync::Arc;

/// Every decoder kind.
const KINDS: [&str; 18] = [
    "gpt2",
    "gptj",
    "gpt-neox",
    "opt",
    "llama",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "olmo2",
    "smollm3",
    "stablelm",
    "granite",
    "starcoder2",
    "falcon",
    "mpt",
    "gpt-neo",
];

/// Random weights of a decoder whose matrices are rounded to a type and given out in f32.
fn rounded(kind: &'static str, dtype: WeightType) -> Arc<dyn WeightSource> {
    Arc::new(Drawn::new(1, move |random, request| {
        let data = random.read(request)?;
        if request.shape.len() != 2 {
            return Ok(data);
        }
        let rounded = |data: FrozenData| data.convert(dtype).convert(WeightType::F32);
        // GPT-2's layers lie transposed in its files; blocks run along the rows of what multiplies.
        let transposed = kind == "gpt2" && request.name.contains(".c_");
        let turn = |data: FrozenData| if transposed { data.transposed().unwrap() } else { data };
        Ok(turn(rounded(turn(data))))
    }))
}

/// A decoder of two layers, 256 wide.
fn settings(kind: &str) -> Value {
    let ours = json!({"n_embd": 256, "n_layer": 2, "n_head": 4, "vocab_size": 300, "n_positions": 64});
    let theirs = json!({
        "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300, "max_position_embeddings": 64,
    });
    let (mut settings, more) = match kind {
        "gpt2" => (ours, json!({})),
        "gptj" => (ours, json!({"rotary_dim": 32})),
        "opt" => (theirs, json!({"ffn_dim": 512, "word_embed_proj_dim": 256})),
        "falcon" => (theirs, json!({"ffn_hidden_size": 512})),
        "mpt" => {
            (json!({"d_model": 256, "n_layers": 2, "n_heads": 4, "vocab_size": 300, "max_seq_len": 64}), json!({}))
        }
        "gpt-neo" => {
            let sizes = json!({
                "hidden_size": 256, "num_layers": 2, "num_heads": 4, "vocab_size": 300, "max_position_embeddings": 64,
            });
            (sizes, json!({"intermediate_size": 512}))
        }
        _ => (theirs, json!({"intermediate_size": 512})),
    };
    // Logits spread over several units, as those of a trained model do.
    settings[if kind == "opt" { "init_std" } else { "initializer_range" }] = json!(0.08);
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    settings
}

fn decoder(kind: &str, source: Arc<dyn WeightSource>, dtype: Option<WeightType>) -> Box<dyn Decoder> {
    let registry = limber::built_in::registry().unwrap();
    let prepared = registry.decoder(kind, settings(kind), source.as_ref()).unwrap();
    prepared.build(&Weights::new(source, Device::Cpu, dtype)).unwrap()
}

/// Logits of a prompt, then of single positions over a cache, of `rows` rows.
fn logits(decoder: &dyn Decoder, rows: usize) -> Vec<Tensor> {
    let ids = |from: usize, n: usize| {
        let ids: Vec<u32> = (0..rows * n).map(|i| (7919 * (i % n + from) + 31 * (i / n)) as u32 % 300).collect();
        Tensor::from_vec(ids, (rows, n), &Device::Cpu).unwrap()
    };
    let mut out = vec![all(decoder, &ids(0, 40))];
    let mut cache = decoder.new_cache(&CacheOptions::new(rows, 8)).unwrap();
    for (from, n) in [(0, 3), (3, 1), (4, 1)] {
        let embeds = decoder.embed(&ids(from, n)).unwrap();
        out.push(decoder.forward(&embeds, &mut Run::cached(cache.as_mut())).unwrap());
    }
    out
}

#[test]
fn every_decoder_computes_as_f32_does_on_the_rounded_weights() {
    let spread = |t: &Tensor| largest(t, &t.zeros_like().unwrap());
    for kind in KINDS {
        let plain = decoder(kind, Arc::new(RandomSource::new(1)), None);
        let plain: Vec<_> = [1, 8].into_iter().flat_map(|rows| logits(plain.as_ref(), rows)).collect();
        for dtype in [WeightType::Bf16, WeightType::F16, WeightType::Q8_0, WeightType::Q4K] {
            // The kernels of q4_k for few rows code activations in 16 bits; all others are f32 arithmetic to its last bits.
            let allowed = if dtype == WeightType::Q4K { 1e-3 } else { 1e-4 };
            let stored = decoder(kind, Arc::new(RandomSource::new(1)), Some(dtype));
            let wide = decoder(kind, rounded(kind, dtype), None);
            let both = |decoder: &dyn Decoder| -> Vec<_> {
                [1, 8].into_iter().flat_map(|rows| logits(decoder, rows)).collect()
            };
            let (stored, wide) = (both(stored.as_ref()), both(wide.as_ref()));
            for (at, ((ours, exact), plain)) in stored.iter().zip(&wide).zip(&plain).enumerate() {
                let (far, size) = (largest(ours, exact), spread(exact));
                let rounding = largest(ours, plain);
                assert!(size > 1.0 && far < allowed, "{kind} {dtype}, call {at}: {far} of {size}");
                // The weights were rounded at all.
                assert!(rounding > 10.0 * far && rounding > 1e-3, "{kind} {dtype}, call {at}: {rounding}, {far}");
            }
        }
    }
}
