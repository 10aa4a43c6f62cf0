//! GPT-J against transformers: `tests/golden/gptj`, every form a checkpoint comes in.

use super::decoders::{GPTJ, request, settings_refused};
use super::golden::{decoder, source};
use candle_core::{Device, Tensor};
use limber::core::{CacheType, Decoder, Run};
use limber::generation::{Request, generate};
use serde_json::json;

/// Prompts of these ids, each behind the same 20 positions where `shared` says so.
fn prompts(model: &dyn Decoder, tails: &[&[u32]], shared: bool) -> Vec<Tensor> {
    let head: Vec<u32> = if shared { (0..20).map(|i| 3 * i + 1).collect() } else { vec![] };
    let embed = |tail: &&[u32]| {
        let ids = [head.as_slice(), tail].concat();
        model.embed(&Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap()
    };
    tails.iter().map(embed).collect()
}

#[test]
fn rows_enter_and_leave_and_each_gives_what_it_gives_alone() {
    let model = decoder("gptj", "gptj/f32");
    let tails: [&[u32]; 7] = [&[5, 9, 2], &[7], &[11, 3, 8, 1, 40], &[100, 2], &[250, 17, 4], &[9, 9, 9, 9], &[33]];
    for shared in [false, true] {
        let prompts = prompts(model.as_ref(), &tails, shared);
        let alone: Vec<_> = prompts
            .iter()
            .map(|p| {
                generate(model.as_ref(), std::slice::from_ref(p), &request(9, 300, 1), &mut |_, _| Ok(())).unwrap()
            })
            .map(|mut rows| rows.remove(0))
            .collect();
        // An id that ends some rows early and others not at all, so that slots fall free at different steps.
        let eos = alone[0].tokens[3];
        for batch in [1, 2, 3, 7, 20] {
            for cache in [CacheType::F32, CacheType::F16, CacheType::Bf16] {
                let request = Request { eos: vec![eos], cache, ..request(9, 300, batch) };
                let mut heard = vec![Vec::new(); prompts.len()];
                let rows = generate(model.as_ref(), &prompts, &request, &mut |row, id| {
                    heard[row].push(id);
                    Ok(())
                });
                for (row, (got, want)) in rows.unwrap().iter().zip(&alone).enumerate() {
                    assert_eq!(got.tokens, heard[row]);
                    let until = want.tokens.iter().position(|id| *id == eos).unwrap_or(want.tokens.len());
                    // Rounded keys may tip a close choice, so tokens are compared where they are kept in f32.
                    if cache == CacheType::F32 {
                        assert_eq!(got.tokens, want.tokens[..until], "row {row} of {batch}, shared {shared}");
                    }
                    let close = if cache == CacheType::F32 { 1e-4 } else { 0.1 };
                    let far = (got.logprobs[0] - want.logprobs[0]).abs();
                    assert!(until == 0 || far < close, "row {row} of {batch}, {cache:?}: {far}");
                }
            }
        }
    }
}

/// A decoder that counts the positions it is given.
struct Counting(Box<dyn Decoder>, std::sync::atomic::AtomicUsize);

impl Decoder for Counting {
    fn spec(&self) -> limber::core::DecoderSpec {
        self.0.spec()
    }
    fn embed(&self, ids: &Tensor) -> candle_core::Result<Tensor> {
        self.0.embed(ids)
    }
    fn forward(&self, embeds: &Tensor, run: &mut Run) -> candle_core::Result<Tensor> {
        let (b, t, _) = embeds.dims3()?;
        self.1.fetch_add(b * t, std::sync::atomic::Ordering::Relaxed);
        self.0.forward(embeds, run)
    }
}

#[test]
fn a_beginning_that_prompts_share_is_computed_once() {
    let tails: [&[u32]; 4] = [&[5, 9], &[7, 1], &[11, 3], &[8, 2]];
    let positions = |batch: usize, shared: bool| {
        let model = Counting(decoder("gptj", "gptj/f32"), Default::default());
        let prompts = prompts(&model, &tails, shared);
        generate(&model, &prompts, &request(1, 300, batch), &mut |_, _| Ok(())).unwrap();
        model.1.into_inner()
    };
    // Four tails of 2 and the 20 before them once.
    assert_eq!(positions(4, true), 20 + 4 * 2);
    assert_eq!(positions(4, false), 4 * 2);
    // One at a time: the second prompt shows what is shared, the others find it.
    assert_eq!(positions(1, true), 22 + 22 + 2 + 2);
    assert_eq!(positions(2, true), 20 + 2 * 2 + 2 * 2);
}

#[test]
fn what_config_json_asks_for_and_gptj_cannot_do_is_refused_by_name() {
    let case = GPTJ;
    case.refuses("model_type", json!("gpt_neox"), &["model_type is \"gpt_neox\"", "takes \"gptj\""]);
    case.refuses("activation_function", json!("relu"), &["activation_function is \"relu\"", "gelu_new"]);
    case.refuses("rotary_dim", json!(null), &["rotary_dim is null"]);
    case.refuses("quantization_config", json!({"bits": 4}), &["quantization_config"]);
    case.refuses("n_layer", json!("three"), &["n_layer is \"three\"", "whole number"]);
}

#[test]
fn settings_that_do_not_fit_each_other() {
    let check = |settings, expected| settings_refused("gptj", settings, expected);
    check(json!({"n_embd": 10, "n_head": 3}), "n_embd 10 is not a multiple of n_head 3");
    check(json!({"n_layer": 0}), "key \"n_layer\": value 0 is not allowed, expected a whole number, at least 1");
    check(json!({"rotary_dim": 7}), "rotary_dim 7 is not allowed");
    check(json!({"rotary_dim": 512}), "at most a head's width 256");
    check(json!({"layers": 3}), "key \"layers\": unknown key");
}

#[test]
fn the_kind_auto_is_told_by_what_lies_beside_the_weights() {
    let registry = limber::built_in::registry().unwrap();
    let kind = |role: &str, path: &str| {
        let source = source(&registry, role, if role == "decoder" { "gptj" } else { "clip-resnet" }, path);
        registry.detect(role, source.as_ref()).map(|entry| entry.kind.clone())
    };
    assert_eq!(kind("decoder", "gptj/bin").unwrap(), "gptj");
    assert_eq!(kind("encoder", "clip_resnet/visual.pt").unwrap(), "clip-resnet");
    let message = kind("decoder", "random:1").unwrap_err().to_string();
    assert!(
        message.contains("random:1") && message.contains("set kind to one of") && message.contains("gptj"),
        "{message}"
    );
    assert!(kind("encoder", "gptj/f32/model.safetensors").is_err());
}
