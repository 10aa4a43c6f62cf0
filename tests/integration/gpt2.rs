//! GPT-2 against transformers: `tests/golden/gpt2`, every form a checkpoint comes in.

use super::decoders::{CLOSE, GPT2, all, build, edited, model_refused_beside, resolved, settings_refused};
use super::golden::{largest, source, tensors};
use candle_core::{DType, Device, Tensor};
use limber::core::{WeightType, Weights};
use serde_json::{Value, json};

#[test]
fn every_setting_that_changes_the_arithmetic() {
    GPT2.variants_give_their_logits(8);
}

#[test]
fn reordered_and_upcast_attention_is_the_same_in_f32() {
    let expected = tensors("gpt2");
    let changed = GPT2.changed(&json!({"reorder_and_upcast_attn": true}));
    let model = build("gpt2", changed.path()).unwrap();
    assert!(largest(&all(model.as_ref(), &expected["ids"]), &expected["logits"]) < CLOSE);
}

#[test]
fn a_type_asked_for_rounds_the_transposed_matrices() {
    let registry = limber::built_in::registry().unwrap();
    let expected = tensors("gpt2");
    let with = |dtype| {
        let source = source(&registry, "decoder", "gpt2", "gpt2/f32");
        let prepared = registry.decoder("gpt2", json!({}), source.as_ref()).unwrap();
        prepared.build(&Weights::new(source, Device::Cpu, Some(dtype))).unwrap()
    };
    // Matrices are rounded, norms and biases are not.
    let rounded = edited(&GPT2, |tensors| {
        for tensor in tensors.values_mut().filter(|tensor| tensor.rank() == 2) {
            *tensor = tensor.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        }
    });
    let rounded = build("gpt2", rounded.path()).unwrap();
    let ours = all(with(WeightType::Bf16).as_ref(), &expected["ids"]);
    let far = largest(&ours, &all(rounded.as_ref(), &expected["ids"]));
    assert!(far < CLOSE && largest(&ours, &expected["logits"]) > 0.01, "{far}");
    // No row of 24 or 60 is whole blocks, so q8_0 falls back to f32.
    let far = largest(&all(with(WeightType::Q8_0).as_ref(), &expected["ids"]), &expected["logits"]);
    assert!(far < CLOSE, "{far}");
}

#[test]
fn transposed_matrices_are_quantised_along_their_own_rows() {
    let registry = limber::built_in::registry().unwrap();
    let settings =
        json!({"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 90, "n_positions": 32, "initializer_range": 0.1});
    let logits = |dtype| {
        let source = source(&registry, "decoder", "gpt2", "random:1");
        let prepared = registry.decoder("gpt2", settings.clone(), source.as_ref()).unwrap();
        let model = prepared.build(&Weights::new(source, Device::Cpu, dtype)).unwrap();
        all(model.as_ref(), &Tensor::new(&[[1u32, 7, 50, 3, 89]], &Device::Cpu).unwrap())
    };
    let (plain, blocks) = (logits(None), logits(Some(WeightType::Q8_0)));
    let far = super::golden::relative(&blocks, &plain);
    // A number of q8_0 is off by half of 1/127 of its block's largest; blocks of the wrong rows would be off by all.
    assert!(far < 0.02 && far > 0.0, "{far}");
}

#[test]
fn the_word_table_may_stand_under_the_heads_name_alone_or_twice() {
    let expected = tensors("gpt2");
    let alone = edited(&GPT2, |tensors| {
        let table = tensors.remove("transformer.wte.weight").unwrap();
        tensors.insert("lm_head.weight".into(), table);
    });
    let twice = edited(&GPT2, |tensors| {
        let table = tensors["transformer.wte.weight"].clone();
        tensors.insert("lm_head.weight".into(), table);
    });
    for folder in [alone, twice] {
        let model = build("gpt2", folder.path()).unwrap();
        assert!(largest(&all(model.as_ref(), &expected["ids"]), &expected["logits"]) < CLOSE);
    }
    let other = edited(&GPT2, |tensors| {
        let table = (&tensors["transformer.wte.weight"] * 2.0).unwrap();
        tensors.insert("lm_head.weight".into(), table);
    });
    let message = build("gpt2", other.path()).err().unwrap().to_string();
    for part in ["tie_word_embeddings is true", "lm_head.weight", "transformer.wte.weight"] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn what_config_json_asks_for_and_gpt2_cannot_do_is_refused_by_name() {
    let case = GPT2;
    case.refuses("model_type", json!("gptj"), &["model_type is \"gptj\"", "the decoder gpt2 takes \"gpt2\""]);
    case.refuses("add_cross_attention", json!(true), &["add_cross_attention is true", "does not support"]);
    case.refuses("activation_function", json!("mish"), &["activation_function is \"mish\"", "gelu_new", "relu"]);
    case.refuses("quantization_config", json!({"bits": 4}), &["quantization_config"]);
    case.refuses("pruned_heads", json!({"0": [1]}), &["pruned_heads"]);
    case.refuses("n_layer", json!("three"), &["n_layer is \"three\"", "whole number"]);
    case.refuses("eos_token_id", json!("end"), &["eos_token_id is \"end\"", "a token id or a list of them"]);
}

#[test]
fn ends_of_text() {
    let eos = |changes: Value| {
        let changed = GPT2.changed(&changes);
        build("gpt2", changed.path()).unwrap().spec().eos
    };
    assert_eq!(eos(json!({})), [98]);
    assert_eq!(eos(json!({"eos_token_id": [3, 4]})), [3, 4]);
    assert!(eos(json!({"eos_token_id": null})).is_empty());
}

#[test]
fn models_by_name() {
    let sizes = |model: &str| {
        let s = resolved("gpt2", json!({ "model": model }));
        assert_eq!(
            (&s["vocab_size"], &s["n_positions"], &s["eos_token_id"]),
            (&json!(50_257), &json!(1024), &json!(50_256))
        );
        (s["n_embd"].as_u64().unwrap(), s["n_layer"].as_u64().unwrap(), s["n_head"].as_u64().unwrap())
    };
    assert_eq!(sizes("gpt2"), (768, 12, 12));
    assert_eq!(sizes("gpt2-medium"), (1024, 24, 16));
    assert_eq!(sizes("gpt2-large"), (1280, 36, 20));
    assert_eq!(sizes("gpt2-xl"), (1600, 48, 25));
    assert_eq!(sizes("distilgpt2"), (768, 6, 12));
    assert_eq!(resolved("gpt2", json!({})), resolved("gpt2", json!({"model": "gpt2"})));
    assert_eq!(resolved("gpt2", json!({"model": "gpt2-xl", "n_layer": 2}))["n_layer"], 2);
    settings_refused("gpt2", json!({"model": "gpt3"}), "unknown gpt2 model \"gpt3\"; known models: gpt2, gpt2-medium");
    model_refused_beside("gpt2", "gpt2/f32", "gpt2-xl", "is 24, but 1600 in the model \"gpt2-xl\"");
}

#[test]
fn settings_that_do_not_fit_each_other() {
    let check = |settings, expected| settings_refused("gpt2", settings, expected);
    check(json!({"n_embd": 10, "n_head": 3}), "n_embd 10 is not a multiple of n_head 3");
    check(json!({"n_layer": 0}), "key \"n_layer\": value 0 is not allowed, expected a whole number, at least 1");
    check(json!({"n_inner": 0}), "key \"n_inner\": value 0 is not allowed, expected a whole number, at least 1");
    check(json!({"activation_function": "gelo"}), "value \"gelo\" is not allowed (did you mean \"gelu");
    check(json!({"layers": 3}), "key \"layers\": unknown key");
}

#[test]
fn the_width_of_the_mlp_follows_the_width_that_is_run() {
    let registry = limber::built_in::registry().unwrap();
    let width = 48;
    for (kind, path) in [("gpt2", "gpt2/untied"), ("gptj", "gptj/f32")] {
        let source = source(&registry, "decoder", kind, path);
        let settings = registry.decoder(kind, json!({"n_embd": width}), source.as_ref()).unwrap().settings;
        assert_eq!((&settings["n_embd"], &settings["n_inner"]), (&json!(width), &json!(4 * width)), "{kind}");
    }
}
