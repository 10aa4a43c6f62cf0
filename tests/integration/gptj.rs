//! GPT-J against transformers: `tests/golden/gptj`, every form a checkpoint comes in.

use super::golden::{decoder, largest, lists, relative, source, tensors};
use candle_core::{Device, Tensor, Var};
use limber::core::{CacheType, Decoder, LogitPositions, Run};
use limber::generation::{Request, Sampling, generate};
use serde_json::{Value, json};

/// Logits spread over several units; sums of some hundred f32 terms over three layers stay this close.
const CLOSE: f32 = 1e-4;

fn all(decoder: &dyn Decoder, ids: &Tensor) -> Tensor {
    decoder.forward(&decoder.embed(ids).unwrap(), &mut Run::new()).unwrap()
}

#[test]
fn every_form_gives_transformers_logits() {
    let expected = tensors("gptj");
    for form in ["f32", "sharded", "bin", "bin-sharded", "bare"] {
        let model = decoder("gptj", &format!("gptj/{form}"));
        assert!(largest(&model.embed(&expected["ids"]).unwrap(), &expected["embeds"]) == 0.0, "{form}");
        let far = largest(&all(model.as_ref(), &expected["ids"]), &expected["logits"]);
        assert!(far < CLOSE, "{form}: {far}");
    }
    for form in ["f16", "bf16"] {
        let model = decoder("gptj", &format!("gptj/{form}"));
        let far = largest(&all(model.as_ref(), &expected["ids"]), &expected[&format!("{form}.logits")]);
        assert!(far < CLOSE, "{form}: {far}");
    }
}

#[test]
fn the_whole_context_and_not_one_more() {
    let expected = tensors("gptj");
    let model = decoder("gptj", "gptj/f32");
    let far = largest(&all(model.as_ref(), &expected["full.ids"]), &expected["full.logits"]);
    assert!(far < CLOSE, "{far}");
    let context = model.spec().context;
    let embeds = Tensor::zeros((1, context + 1, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    let message = model.forward(&embeds, &mut Run::new()).unwrap_err().to_string();
    assert!(message.contains("65 positions") && message.contains("allows 64"), "{message}");
}

#[test]
fn a_prefix_of_embeddings() {
    let expected = tensors("gptj");
    let model = decoder("gptj", "gptj/f32");
    let text = model.embed(&expected["prefix.ids"]).unwrap();
    let both = Tensor::cat(&[&expected["prefix.embeds"], &text], 1).unwrap();
    let far = largest(&model.forward(&both, &mut Run::new()).unwrap(), &expected["prefix.logits"]);
    assert!(far < CLOSE, "{far}");
}

#[test]
fn step_by_step_over_a_cache() {
    let expected = tensors("gptj");
    let model = decoder("gptj", "gptj/f32");
    let ids = expected["ids"].narrow(0, 0, 1).unwrap();
    let mut cache = model.new_cache(1, 20).unwrap();
    for at in 0..20 {
        let step = model.embed(&ids.narrow(1, at, 1).unwrap()).unwrap();
        let logits = model.forward(&step, &mut Run::cached(&mut cache)).unwrap();
        let far = largest(&logits, &expected["cached.logits"].narrow(1, at, 1).unwrap().squeeze(1).unwrap());
        assert!(far < CLOSE, "position {at}: {far}");
    }
    let step = model.embed(&ids.narrow(1, 0, 1).unwrap()).unwrap();
    let message = model.forward(&step, &mut Run::cached(&mut cache)).unwrap_err().to_string();
    assert!(message.contains("21 positions are more than the cache holds, which is 20"), "{message}");
}

fn request(max_tokens: usize, batch: usize) -> Request {
    let sampling = Sampling::default();
    Request { max_tokens, sampling, seed: 0, limit: 300, eos: vec![], batch, cache: CacheType::F32 }
}

#[test]
fn rows_of_different_lengths_in_one_batch() {
    let (expected, lists) = (tensors("gptj"), lists("gptj"));
    let model = decoder("gptj", "gptj/f32");
    let rows: Vec<Vec<u32>> = serde_json::from_value(lists["batch"]["ids"].clone()).unwrap();
    let prompts: Vec<Tensor> = rows
        .iter()
        .map(|row| model.embed(&Tensor::new(row.as_slice(), &Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap())
        .collect();
    let request = request(8, 3);
    let batch = generate(model.as_ref(), &prompts, &request, &mut |_, _| Ok(())).unwrap();
    let greedy: Vec<Vec<u32>> = serde_json::from_value(lists["batch"]["greedy"].clone()).unwrap();
    for (row, tokens) in greedy.iter().enumerate() {
        assert_eq!(&batch[row].tokens, tokens, "row {row}");
        let alone = generate(model.as_ref(), &prompts[row..=row], &request, &mut |_, _| Ok(())).unwrap();
        assert_eq!(&alone[0].tokens, tokens);
        for (at, (id, logprob)) in tokens.iter().zip(&batch[row].logprobs).enumerate() {
            let logits = expected["batch.greedy_logits"].get(row).unwrap().get(at).unwrap().to_vec1::<f32>().unwrap();
            assert!((limber::generation::log_softmax(&logits, *id) - logprob).abs() < 1e-3, "row {row}, token {at}");
        }
    }
    // A row that meets its end of sequence leaves the batch; the others go on as before.
    let eos = greedy[1][2];
    let stopped = Request { eos: vec![eos], ..request };
    let batch = generate(model.as_ref(), &prompts, &stopped, &mut |_, _| Ok(())).unwrap();
    for (row, tokens) in greedy.iter().enumerate() {
        let until = tokens.iter().position(|id| *id == eos).unwrap_or(tokens.len());
        assert_eq!(batch[row].tokens, tokens[..until], "row {row}");
    }
}

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
            .map(|p| generate(model.as_ref(), std::slice::from_ref(p), &request(9, 1), &mut |_, _| Ok(())).unwrap())
            .map(|mut rows| rows.remove(0))
            .collect();
        // An id that ends some rows early and others not at all, so that places fall free at different steps.
        let eos = alone[0].tokens[3];
        for batch in [1, 2, 3, 7, 20] {
            for cache in [CacheType::F32, CacheType::F16, CacheType::Bf16] {
                let request = Request { eos: vec![eos], cache, ..request(9, batch) };
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
        generate(&model, &prompts, &request(1, batch), &mut |_, _| Ok(())).unwrap();
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
fn hidden_states_and_attention() {
    let expected = tensors("gptj");
    let model = decoder("gptj", "gptj/f32");
    let mut run = Run::new();
    run.taps.want_hidden = true;
    run.taps.want_attention = true;
    let ids = expected["ids"].narrow(0, 0, 1).unwrap();
    model.forward(&model.embed(&ids).unwrap(), &mut run).unwrap();
    assert_eq!((run.taps.hidden.len(), run.taps.attention.len()), (4, 3));
    for (layer, name) in ["hidden.0", "hidden.1", "hidden.2", "hidden.ln_f"].iter().enumerate() {
        let far = relative(&run.taps.hidden[layer], &expected[*name]);
        assert!(far < 1e-5, "{name}: {far}");
    }
    for layer in 0..3 {
        let far = largest(&run.taps.attention[layer], &expected[&format!("attention.{layer}")]);
        assert!(far < 1e-5, "attention {layer}: {far}");
    }
}

#[test]
fn the_gradient_of_a_training_step() {
    let expected = tensors("gptj");
    let model = decoder("gptj", "gptj/f32");
    let input = Var::from_tensor(&expected["grad.embeds"]).unwrap();
    let targets = expected["grad.targets"].to_vec2::<i64>().unwrap();
    let mut run = Run::new();
    let mut labels = Vec::new();
    let mut at = Vec::new();
    for (row, line) in targets.iter().enumerate() {
        for (position, id) in line.iter().enumerate().filter(|(_, id)| **id >= 0) {
            at.push((row, position));
            labels.push(*id as u32);
        }
    }
    run.logits = LogitPositions::At(at);
    let logits = model.forward(input.as_tensor(), &mut run).unwrap();
    let labels = Tensor::new(labels, &Device::Cpu).unwrap();
    let loss = candle_nn::loss::cross_entropy(&logits, &labels).unwrap();
    let far = (loss.to_scalar::<f32>().unwrap() - expected["grad.loss"].to_vec1::<f32>().unwrap()[0]).abs();
    assert!(far < 1e-5, "{far}");
    let gradient = loss.backward().unwrap().remove(input.as_tensor()).unwrap();
    // candle's own cross-entropy sums in f32, over 300 rows.
    let far = relative(&gradient, &expected["grad.input"]);
    assert!(far < 1e-4, "{far}");
}

#[test]
fn what_config_json_asks_for_and_gptj_cannot_do_is_refused_by_name() {
    let registry = limber::parts::registry().unwrap();
    let text = std::fs::read_to_string(super::golden::folder("gptj/f32/config.json")).unwrap();
    let base: Value = serde_json::from_str(&text).unwrap();
    let check = |key: &str, value: Value, expected: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = base.clone();
        config[key] = value;
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let weights = super::golden::folder("gptj/f32/model.safetensors");
        std::fs::copy(weights, folder.path().join("model.safetensors")).unwrap();
        let source = source(&registry, "decoder", "gptj", folder.path().to_str().unwrap());
        let message = format!("{:#}", registry.decoder("gptj", json!({}), source.as_ref()).err().unwrap());
        for part in expected.iter().chain([&"config.json"]) {
            assert!(message.contains(part), "{key}: {message}");
        }
    };
    check("model_type", json!("gpt_neox"), &["model_type is \"gpt_neox\"", "takes \"gptj\""]);
    check("activation_function", json!("relu"), &["activation_function is \"relu\"", "gelu_new"]);
    check("rotary_dim", json!(null), &["rotary_dim is null"]);
    check("quantization_config", json!({"bits": 4}), &["quantization_config"]);
    check("n_layer", json!("three"), &["n_layer is \"three\"", "whole number"]);
}

#[test]
fn settings_that_do_not_fit_each_other() {
    let registry = limber::parts::registry().unwrap();
    let source = source(&registry, "decoder", "gptj", "random:1");
    let check = |settings: Value, expected: &str| {
        let message = format!("{:#}", registry.decoder("gptj", settings, source.as_ref()).err().unwrap());
        assert!(message.contains(expected), "{message}");
    };
    check(json!({"n_embd": 10, "n_head": 3}), "n_embd 10 is not a multiple of n_head 3");
    check(json!({"n_layer": 0}), "n_layer is 0, allowed is 1 and above");
    check(json!({"rotary_dim": 7}), "rotary_dim 7 is not allowed");
    check(json!({"rotary_dim": 512}), "at most a head's width 256");
    check(json!({"layers": 3}), "unknown key \"layers\"");
}

#[test]
fn the_kind_auto_is_told_by_what_lies_beside_the_weights() {
    let registry = limber::parts::registry().unwrap();
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
