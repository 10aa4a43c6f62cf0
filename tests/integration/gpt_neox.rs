//! GPT-NeoX against transformers: `tests/golden/gpt_neox`, blocks side by side and in series, old and new spellings.

use super::decoders::{CLOSE, Case, PYTHIA, all, settings_refused};
use super::golden::{decoder, largest, lists, source, tensors};
use limber::core::registry::PreparedDecoder;
use serde_json::{Value, json};

fn prepared(settings: Value, weights: &str) -> anyhow::Result<PreparedDecoder> {
    let registry = limber::built_in::registry().unwrap();
    registry.decoder("gpt-neox", settings, source(&registry, "decoder", "gpt-neox", weights).as_ref())
}

#[test]
fn parts_of_heads_and_scaled_frequencies() {
    let expected = tensors("gpt_neox");
    let variants = lists("gpt_neox")["variants"].clone();
    for (name, config) in variants.as_object().unwrap() {
        let folder = Case { form: "bin", ..PYTHIA }.changed(config);
        let model = decoder("gpt-neox", folder.path().to_str().unwrap());
        let far = largest(&all(model.as_ref(), &expected["pythia.ids"]), &expected[&format!("pythia.{name}.logits")]);
        assert!(far < CLOSE, "{name}: {far}");
        // Frequencies that grow with the length forbid that beginnings are computed once.
        assert_eq!(
            (model.supports_prefix_reuse(12), model.supports_prefix_reuse(13)),
            (true, name != "dynamic"),
            "{name}"
        );
    }
    assert_eq!(variants.as_object().unwrap().len(), 3);
}

#[test]
fn what_config_json_asks_for_and_gpt_neox_cannot_do_is_refused_by_name() {
    let case = PYTHIA;
    case.refuses("model_type", json!("gpt_neox_japanese"), &["model_type is \"gpt_neox_japanese\"", "\"gpt_neox\""]);
    case.refuses("hidden_act", json!("mish"), &["hidden_act is \"mish\"", "supported is gelu, ", "gelu_new"]);
    case.refuses("quantization_config", json!({"bits": 4}), &["quantization_config", "gpt-neox does not support"]);
    case.refuses("num_hidden_layers", json!(2.5), &["num_hidden_layers is 2.5", "whole number"]);
    case.refuses(
        "rope_scaling",
        json!({"type": "proportional"}),
        &["rope_scaling: type is \"proportional\"", "supported is"],
    );
    // What the rope section says and what the old keys say.
    case.refuses("rotary_pct", json!(0.5), &["rotary_pct is 0.5", "partial_rotary_factor is 0.25"]);
    case.refuses("rotary_emb_base", json!(500), &["rotary_emb_base is 500", "rope_theta is 10000"]);
    case.refuses("hidden_size", json!(33), &["hidden_size 33 is not a multiple of num_attention_heads 4"]);
}

#[test]
fn settings_that_do_not_fit_each_other() {
    let check = |changes: Value, expected: &str| {
        let mut settings = json!({"model": "pythia-70m"});
        settings.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        settings_refused("gpt-neox", settings, expected);
    };
    check(json!({"hidden_size": 10}), "hidden_size 10 is not a multiple of num_attention_heads 8");
    check(json!({"vocab_size": 0}), "key \"vocab_size\": value 0 is not allowed, expected a whole number, at least 1");
    check(json!({"rotary_pct": 0.01}), "rotary_pct 0.01 of a head's 64 elements is not allowed");
    check(json!({"rotary_pct": 1.5}), "it turns from 2 to 64 of them");
    check(json!({"rotary_emb_base": 1.0}), "rotary_emb_base is 1, expected a number above 1");
    check(json!({"rope_scaling": {"rope_type": "linear", "factor": -1.0}}), "rope_scaling: factor is -1");
    check(json!({"rope_scaling": {"rope_type": "proportional"}}), "proportional");
    check(json!({"layers": 3}), "key \"layers\": unknown key");
    check(json!({"model": "pythia-3b"}), "unknown gpt-neox model \"pythia-3b\"; known models: pythia-14m, pythia-31m");
    settings_refused("gpt-neox", json!({}), "hidden_size is not set, and no config.json lies beside the weights");
}

#[test]
fn models_by_name() {
    // Parameters of the suite's table, in millions: embeddings, head and all (arXiv 2304.01373, table 1).
    let sizes = [
        ("pythia-70m", 70.426_624),
        ("pythia-160m", 162.322_944),
        ("pythia-410m", 405.334_016),
        ("pythia-1b", 1_011.781_632),
        ("pythia-1.4b", 1_414.647_808),
        ("pythia-2.8b", 2_775.208_960),
        ("pythia-6.9b", 6_857.302_016),
        ("pythia-12b", 11_846.072_320),
        ("gpt-neox-20b", 20_554.567_680),
    ];
    for (name, millions) in sizes {
        let prepared = prepared(json!({"model": name}), "random:1").unwrap();
        let size = |key: &str| prepared.settings[key].as_u64().unwrap() as usize;
        let (d, inner, layers) = (size("hidden_size"), size("intermediate_size"), size("num_hidden_layers"));
        let block = 3 * d * d + 3 * d + d * d + d + 2 * d * inner + inner + d + 4 * d;
        let all = 2 * size("vocab_size") * d + layers * block + 2 * d;
        assert_eq!(all as f64 / 1e6, millions, "{name}");
        assert_eq!(prepared.spec.eos, [0]);
    }
    let resolved = prepared(json!({"model": "GPT-NeoX-20B"}), "random:1").unwrap();
    assert_eq!(resolved.settings["hidden_act"], "gelu_new");
    assert_eq!((resolved.spec.head_dim, resolved.spec.context), (96, 2048));
}

#[test]
fn a_model_by_name_must_be_the_folders() {
    let message = format!("{:#}", prepared(json!({"model": "pythia-70m"}), "gpt_neox/pythia").err().unwrap());
    assert!(message.contains("config.json: vocab_size is 80, but 50304 in the model \"pythia-70m\""), "{message}");
}
