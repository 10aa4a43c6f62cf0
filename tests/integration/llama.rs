//! Llama, Mistral and Qwen2 against transformers: `tests/golden/llama`.

use super::decoders::{
    CLOSE, Case, LLAMA, MISTRAL, QWEN2, all, change, resolved, settings_refused, steps_behind_a_prompt,
};
use super::golden::{decoder, folder, largest, lists, source};
use candle_core::{Device, Tensor};
use limber::core::Decoder;
use limber::core::registry::PreparedDecoder;
use limber::generation::generate;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;

fn prepared(settings: Value, weights: &str) -> anyhow::Result<PreparedDecoder> {
    let registry = limber::built_in::registry().unwrap();
    registry.decoder("llama", settings, source(&registry, "decoder", "llama", weights).as_ref())
}

/// The configs over the weights of `llama3`, each as (name, its folder).
fn variants() -> Vec<(String, tempfile::TempDir)> {
    let all = lists("llama")["variants"].clone();
    let one = |(name, changes): (&String, &Value)| {
        let copy = LLAMA.changed(&json!({}));
        let file = copy.path().join("config.json");
        change(&file, changes);
        // What a variant takes away is absent there, but for the window, where null has a meaning.
        let mut tree: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        tree.as_object_mut().unwrap().retain(|key, value| !value.is_null() || key == "sliding_window");
        std::fs::write(&file, tree.to_string()).unwrap();
        (name.clone(), copy)
    };
    all.as_object().unwrap().iter().map(one).collect()
}

fn variant_tensors() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(folder("llama/variants.safetensors"), &Device::Cpu).unwrap()
}

#[test]
fn scaled_frequencies_and_older_spellings() {
    let expected = variant_tensors();
    let contexts: HashMap<&str, usize> =
        [("linear", 30), ("dynamic", 36), ("yarn", 48), ("yarn-factor", 36), ("yarn-mscale", 48)].into();
    let variants = variants();
    assert_eq!(variants.len(), 12);
    for (name, folder) in variants {
        let model = decoder("llama", folder.path().to_str().unwrap());
        let ids = &expected["ids"];
        let wanted = &expected[&format!("{name}.logits")];
        let far = largest(&all(model.as_ref(), ids), wanted);
        assert!(far < CLOSE, "{name}: {far}");
        assert_eq!(model.spec().context, contexts.get(name.as_str()).copied().unwrap_or(40), "{name}");
        assert_eq!(
            (model.supports_prefix_reuse(12), model.supports_prefix_reuse(13)),
            (true, name != "dynamic"),
            "{name}"
        );
        // A prompt of 9 positions, then steps: only growing frequencies make a difference.
        let wanted = expected.get(&format!("{name}.cached.logits")).unwrap_or(wanted);
        steps_behind_a_prompt(model.as_ref(), ids, wanted, &name);
    }
}

#[test]
fn rows_beyond_the_trained_length_share_no_beginning_where_frequencies_grow() {
    let variants = variants();
    let (_, folder) = variants.iter().find(|(name, _)| name == "dynamic").unwrap();
    let model = decoder("llama", folder.path().to_str().unwrap());
    let request = super::decoders::request(6, 80, 3);
    // Ten positions in common; two rows longer than the 12 trained positions, one shorter.
    let prompts: Vec<Tensor> = [&[5u32, 9, 2, 7, 7][..], &[11, 3, 8, 1], &[40]]
        .iter()
        .map(|tail| {
            let ids: Vec<u32> = (0..10).map(|i| 3 * i + 1).chain(tail.iter().copied()).collect();
            model.embed(&Tensor::new(ids, &Device::Cpu).unwrap().unsqueeze(0).unwrap()).unwrap()
        })
        .collect();
    let batch = generate(model.as_ref(), &prompts, &request, &mut |_, _| Ok(())).unwrap();
    for (row, prompt) in prompts.iter().enumerate() {
        let alone = generate(model.as_ref(), std::slice::from_ref(prompt), &request, &mut |_, _| Ok(())).unwrap();
        assert_eq!(batch[row].tokens, alone[0].tokens, "row {row}");
        for (a, b) in batch[row].logprobs.iter().zip(&alone[0].logprobs) {
            // Sums of some dozen f32 terms in another order.
            assert!((a - b).abs() < 1e-4, "row {row}: {a} {b}");
        }
    }
}

#[test]
fn windows_are_read_as_each_family_writes_them() {
    let window = |case: &Case, changes: Value| -> (Value, Value, Value) {
        let copy = case.changed(&changes);
        let settings = prepared(json!({}), copy.path().to_str().unwrap()).unwrap().settings;
        let get = |key: &str| settings.get(key).cloned().unwrap_or(Value::Null);
        (get("use_sliding_window"), get("sliding_window"), get("max_window_layers"))
    };
    assert_eq!(window(&MISTRAL, json!({})), (json!(true), json!(7), json!(0)));
    assert_eq!(window(&MISTRAL, json!({"sliding_window": null})), (json!(false), json!(null), json!(null)));
    assert_eq!(window(&QWEN2, json!({"layer_types": null})), (json!(true), json!(5), json!(1)));
    assert_eq!(window(&QWEN2, json!({"layer_types": null, "max_window_layers": null})).2, json!(28));
    let off = json!({"layer_types": null, "use_sliding_window": false});
    assert_eq!(window(&QWEN2, off), (json!(false), json!(null), json!(null)));
    assert_eq!(window(&LLAMA, json!({})), (json!(false), json!(null), json!(null)));
    // The file of Mistral v0.1 without the key.
    let names: HashMap<String, tempfile::TempDir> = variants().into_iter().collect();
    let settings = |name: &str| prepared(json!({}), names[name].path().to_str().unwrap()).unwrap().settings;
    assert_eq!(settings("mistral-default")["sliding_window"], 4096);
    assert_eq!(settings("mistral-null")["use_sliding_window"], false);
    // A list that is no question of first and last layers.
    let types = json!(["sliding_attention", "full_attention"]);
    let copy = QWEN2.changed(&json!({"layer_types": types}));
    let resolved = prepared(json!({}), copy.path().to_str().unwrap()).unwrap();
    assert_eq!((&resolved.settings["layer_types"], resolved.settings.get("max_window_layers")), (&types, None));
    let settings = |settings: Value, weights: &str| prepared(settings, weights).unwrap().settings;
    let own = settings(json!({"model": "llama-3-8b", "sliding_window": 512}), "random:1");
    assert_eq!((&own["sliding_window"], &own["max_window_layers"]), (&json!(512), &json!(0)));
    let settings = json!({"use_sliding_window": false});
    assert_eq!(prepared(settings, "llama/mistral").unwrap().settings.get("sliding_window"), None);
}

#[test]
fn every_way_of_ending_a_text_is_known() {
    // Of `generation_config.json`, where Llama 3's instruction models say it.
    assert_eq!(prepared(json!({}), "llama/llama3").unwrap().spec.eos, [79, 77]);
    assert_eq!(prepared(json!({}), "llama/mistral").unwrap().spec.eos, [79]);
    assert_eq!(prepared(json!({"eos_token_id": 3}), "llama/llama3").unwrap().spec.eos, [3]);
    assert_eq!(prepared(json!({"eos_token_id": [3, 4]}), "llama/llama3").unwrap().spec.eos, [3, 4]);
    let copy = QWEN2.changed(&json!({"eos_token_id": null}));
    assert!(prepared(json!({}), copy.path().to_str().unwrap()).unwrap().spec.eos.is_empty());
}

#[test]
fn keys_that_transformers_does_not_read_change_nothing() {
    let settings = |path: &Path| prepared(json!({}), path.to_str().unwrap()).unwrap().settings;
    for (case, changes) in [
        (&LLAMA, json!({"sliding_window": 512, "use_sliding_window": true, "max_window_layers": 1})),
        (&LLAMA, json!({"layer_types": ["sliding_attention", "chunked"], "pretraining_tp": 2, "use_cache": false})),
        (&MISTRAL, json!({"layer_types": ["full_attention"], "use_sliding_window": false, "attention_bias": true})),
        (
            &QWEN2,
            json!({"attention_bias": false, "mlp_bias": true, "time_step_limit": "Infinity", "max_window_layers": 70}),
        ),
    ] {
        assert_eq!(settings(case.changed(&changes).path()), settings(case.changed(&json!({})).path()), "{changes}");
    }
    // As Python writes a number that is none, behind a byte order mark.
    let copy = LLAMA.changed(&json!({"time_step_limit": [0.0, "Infinity"]}));
    let path = copy.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("\u{feff}{}", text.replace("\"Infinity\"", "Infinity"))).unwrap();
    assert_eq!(settings(copy.path()), settings(LLAMA.changed(&json!({})).path()));
    // Where it is asked for, it is refused by its key.
    let text = std::fs::read_to_string(&path).unwrap();
    let eps = text.replace("\"rms_norm_eps\":", "\"rms_norm_eps\":NaN,\"unused\":");
    std::fs::write(&path, eps).unwrap();
    let message = format!("{:#}", prepared(json!({}), copy.path().to_str().unwrap()).err().unwrap());
    assert!(message.contains("rms_norm_eps is \"NaN\""), "{message}");
}

#[test]
fn what_config_json_asks_for_and_llama_cannot_do_is_refused_by_name() {
    for kind in ["qwen3", "qwen2_moe", "gemma2", "phi3", "mixtral", "ministral", "gpt_neox"] {
        LLAMA.refuses("model_type", json!(kind), &[&format!("model_type is \"{kind}\""), "\"llama\", \"mistral\""]);
    }
    LLAMA.refuses("quantization_config", json!({"quant_method": "gptq"}), &["quantization_config"]);
    LLAMA.refuses("hidden_act", json!("relu2"), &["hidden_act is \"relu2\"", "supported is gelu"]);
    LLAMA.refuses("partial_rotary_factor", json!(0.5), &["partial_rotary_factor is 0.5, supported is 1"]);
    LLAMA.refuses("head_dim", json!(7), &["head_dim 7 is not allowed", "even"]);
    LLAMA.refuses("num_key_value_heads", json!(3), &["num_attention_heads 4", "num_key_value_heads 3"]);
    LLAMA.refuses("hidden_size", json!("wide"), &["hidden_size is \"wide\"", "whole number"]);
    let scaling = |rope: Value, expected: &str| LLAMA.refuses("rope_scaling", rope, &[expected]);
    scaling(json!({"rope_type": "longrope", "short_factor": [1]}), "rope_scaling: long_factor is null");
    scaling(json!({"type": "ntk"}), "type is \"ntk\", supported is default, linear, dynamic, llama3, yarn, longrope");
    scaling(json!({"type": "dynamic"}), "factor is null");
    scaling(json!({"type": "llama3", "factor": 2, "low_freq_factor": 1}), "high_freq_factor is null");
    scaling(json!({"type": "linear", "factor": 0}), "rope_scaling: factor is 0, expected a number above 0");
    LLAMA.refuses("rope_parameters", json!({"rope_theta": 0.5}), &["rope_theta is 0.5, expected a number above 1"]);
    MISTRAL.refuses("sliding_window", json!(0), &["sliding_window is 0, expected at least 1"]);
    QWEN2.refuses("use_mrope", json!(true), &["use_mrope is true"]);
    QWEN2.refuses("layer_types", json!(["full_attention"]), &["layer_types has 1 entries for 2 layers"]);
    QWEN2.refuses("layer_types", json!(["chunked"]), &["layer_types is [\"chunked\"]", "\"sliding_attention\""]);
    QWEN2.refuses("use_sliding_window", json!(false), &["layer_types", "give no window"]);
}

#[test]
fn heads_that_do_not_divide_the_width_need_a_head_dim() {
    let copy = LLAMA.changed(&json!({"head_dim": null, "num_attention_heads": 5, "num_key_value_heads": 5}));
    let message = format!("{:#}", prepared(json!({}), copy.path().to_str().unwrap()).err().unwrap());
    let expected = "hidden_size 24 is not a multiple of num_attention_heads 5, and head_dim is not set";
    assert!(message.contains("config.json") && message.contains(expected), "{message}");
}

#[test]
fn settings_that_do_not_fit_each_other() {
    let check = |changes: Value, expected: &str| {
        let mut settings = json!({"model": "tinyllama-1.1b"});
        settings.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        settings_refused("llama", settings, expected);
    };
    // The width of a head follows from the sizes that are run, not from the preset's.
    let resized = json!({"model": "tinyllama-1.1b", "hidden_size": 512, "num_attention_heads": 16});
    assert_eq!(resolved("llama", resized)["head_dim"], 32);
    check(json!({"num_attention_heads": 12}), "hidden_size 2048 is not a multiple of num_attention_heads 12");
    check(
        json!({"num_attention_heads": 6, "head_dim": 64}),
        "num_attention_heads 6 is not a multiple of num_key_value_heads 4",
    );
    check(
        json!({"num_hidden_layers": 0}),
        "key \"num_hidden_layers\": value 0 is not allowed, expected a whole number, at least 1",
    );
    check(json!({"use_sliding_window": true}), "use_sliding_window is true, but sliding_window is not set");
    check(
        json!({"sliding_window": 0}),
        "key \"sliding_window\": value 0 is not allowed, expected a whole number, at least 1",
    );
    check(json!({"model_type": "qwen2", "attention_bias": false}), "attention_bias is false, a qwen2 has it");
    check(json!({"model_type": "mistral", "attention_bias": true}), "attention_bias is true, a mistral has none");
    check(json!({"model_type": "mistral", "mlp_bias": true}), "mlp_bias is true, only a llama may have it");
    check(json!({"model_type": "gemma"}), "value \"gemma\" is not allowed, expected");
    check(json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "original_max_position_embeddings");
    check(json!({"eos_token_id": "</s>"}), "a token id or a list of them");
    check(json!({"n_layer": 3}), "key \"n_layer\": unknown key");
    check(
        json!({"model": "llama-4-scout"}),
        "unknown llama model \"llama-4-scout\"; known models: llama-7b, tinyllama",
    );
    settings_refused("llama", json!({}), "hidden_size is not set, and no config.json lies beside the weights");
}

#[test]
fn models_by_name() {
    // Parameters as their model cards and papers say, in millions; tied tables count once.
    let sizes = [
        ("llama-7b", 6_738.415_616),
        ("tinyllama-1.1b", 1_100.048_384),
        ("llama-2-7b", 6_738.415_616),
        ("llama-2-13b", 13_015.864_320),
        ("llama-2-70b", 68_976.648_192),
        ("llama-3-8b", 8_030.261_248),
        ("llama-3-70b", 70_553.706_496),
        ("llama-3.1-8b", 8_030.261_248),
        ("llama-3.1-70b", 70_553.706_496),
        ("llama-3.2-1b", 1_235.814_400),
        ("llama-3.2-3b", 3_212.749_824),
        ("mistral-7b-v0.1", 7_241.732_096),
        ("mistral-7b-v0.2", 7_241.732_096),
        ("mistral-7b-v0.3", 7_248.023_552),
        ("qwen2-0.5b", 494.032_768),
        ("qwen2-1.5b", 1_543.714_304),
        ("qwen2-7b", 7_615.616_512),
        ("qwen2.5-0.5b", 494.032_768),
        ("qwen2.5-1.5b", 1_543.714_304),
        ("qwen2.5-3b", 3_085.938_688),
        ("qwen2.5-7b", 7_615.616_512),
        ("qwen2.5-14b", 14_770.033_664),
        ("qwen2.5-32b", 32_763.876_352),
        ("qwen2.5-72b", 72_706.203_648),
    ];
    for (name, millions) in sizes {
        let prepared = prepared(json!({"model": name}), "random:1").unwrap();
        let (settings, spec) = (&prepared.settings, &prepared.spec);
        let size = |key: &str| settings[key].as_u64().unwrap() as usize;
        let (d, inner) = (spec.width, size("intermediate_size"));
        let (q, kv) = (size("num_attention_heads") * spec.head_dim, spec.kv_heads * spec.head_dim);
        let biases = if settings["attention_bias"] == json!(true) { q + 2 * kv } else { 0 };
        let block = 2 * d * q + 2 * d * kv + biases + 3 * d * inner + 2 * d;
        let tables = if settings["tie_word_embeddings"] == json!(true) { 1 } else { 2 };
        let all = tables * spec.vocab * d + spec.layers * block + d;
        assert_eq!(all as f64 / 1e6, millions, "{name}");
    }
    let spec = |name: &str| prepared(json!({"model": name}), "random:1").unwrap().spec;
    assert_eq!((spec("llama-3.2-1b").head_dim, spec("llama-3.2-1b").context), (64, 131_072));
    assert_eq!(spec("Llama-3-8B").eos, [128_001]);
    let mistral = prepared(json!({"model": "mistral-7b-v0.1"}), "random:1").unwrap();
    assert_eq!((&mistral.settings["sliding_window"], mistral.spec.context), (&json!(4096), 32_768));
}

#[test]
fn a_model_by_name_must_be_the_folders() {
    let message = format!("{:#}", prepared(json!({"model": "llama-3-8b"}), "llama/llama3").err().unwrap());
    assert!(message.contains("config.json: vocab_size is 80, but 128256 in the model \"llama-3-8b\""), "{message}");
}

#[test]
fn a_tied_head_that_is_another_table_is_refused() {
    let registry = limber::built_in::registry().unwrap();
    let copy = LLAMA.changed(&json!({"tie_word_embeddings": true}));
    let build = |settings: Value| {
        let source = source(&registry, "decoder", "llama", copy.path().to_str().unwrap());
        let prepared = registry.decoder("llama", settings, source.as_ref()).unwrap();
        prepared.build(&limber::core::Weights::new(source, Device::Cpu, None))
    };
    let message = format!("{:#}", build(json!({})).err().unwrap());
    for part in
        ["tie_word_embeddings is true", "\"lm_head.weight\" is another matrix than \"model.embed_tokens.weight\""]
    {
        assert!(message.contains(part), "{message}");
    }
    let model: Box<dyn Decoder> = build(json!({"tie_word_embeddings": false})).unwrap();
    let expected = LLAMA.tensors();
    assert!(largest(&all(model.as_ref(), &expected["ids"]), &expected["logits"]) < 1e-4);
}

#[test]
fn another_model_type_is_no_llama() {
    let registry = limber::built_in::registry().unwrap();
    let copy = LLAMA.changed(&json!({"model_type": "qwen2_moe"}));
    let source = source(&registry, "decoder", "llama", copy.path().to_str().unwrap());
    assert!(registry.detect("decoder", source.as_ref()).is_err());
}
