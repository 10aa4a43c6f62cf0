//! Qwen3 against transformers: `tests/golden/qwen3`.

use super::decoders::{QWEN3, resolved, settings_refused, variants_give_their_logits_and_steps};
use serde_json::json;

#[test]
fn scaled_frequencies_windows_and_older_spellings() {
    variants_give_their_logits_and_steps(&QWEN3, 16);
}

#[test]
fn what_config_json_asks_for_and_qwen3_cannot_do_is_refused_by_name() {
    QWEN3.refuses("model_type", json!("qwen3_moe"), &["model_type is \"qwen3_moe\"", "\"qwen3\""]);
    QWEN3.refuses("quantization_config", json!({"quant_method": "gptq"}), &["quantization_config"]);
    QWEN3.refuses("hidden_act", json!("relu2"), &["hidden_act", "\"relu2\""]);
    QWEN3.refuses("num_key_value_heads", json!(3), &["num_attention_heads 4", "num_key_value_heads 3"]);
    QWEN3.refuses("layer_types", json!(["full_attention"]), &["layer_types has 1 entries for 2 layers"]);
    let slides = json!(["full_attention", "sliding_attention"]);
    QWEN3.refuses("layer_types", slides, &["layers have a window, but sliding_window is not set"]);
    QWEN3.refuses("partial_rotary_factor", json!(0.5), &["partial_rotary_factor is 0.5, supported is 1"]);
}

#[test]
fn settings_that_do_not_fit_each_other() {
    let check = |settings, expected| settings_refused("qwen3", settings, expected);
    check(json!({}), "hidden_size is not set, and no config.json lies beside the weights");
    check(json!({"model": "qwen3-7b"}), "unknown qwen3 model \"qwen3-7b\"; known models: qwen3-0.6b, qwen3-1.7b");
    check(json!({"n_layer": 3}), "key \"n_layer\": unknown key");
}

#[test]
fn models_by_name() {
    // Parameters of transformers' models of these settings, in thousands; tied tables count once.
    let sizes = [
        ("qwen3-0.6b", 596_049.920),
        ("qwen3-1.7b", 1_720_574.976),
        ("qwen3-4b", 4_022_468.096),
        ("qwen3-8b", 8_190_735.360),
        ("qwen3-14b", 14_768_307.200),
        ("Qwen3-32B", 32_762_123.264),
    ];
    for (name, thousands) in sizes {
        let s = resolved("qwen3", json!({ "model": name }));
        let size = |key: &str| s[key].as_u64().unwrap() as usize;
        let (d, dim, inner) = (size("hidden_size"), size("head_dim"), size("intermediate_size"));
        let (q, kv) = (size("num_attention_heads") * dim, size("num_key_value_heads") * dim);
        let block = 2 * d * q + 2 * d * kv + 3 * d * inner + 2 * d + 2 * dim;
        let tables = if s["tie_word_embeddings"] == json!(true) { 1 } else { 2 };
        let all = tables * size("vocab_size") * d + size("num_hidden_layers") * block + d;
        assert_eq!(all as f64 / 1e3, thousands, "{name}");
    }
}

#[test]
fn who_sets_a_window_wants_it() {
    let settings = resolved("qwen3", json!({"model": "qwen3-0.6b", "sliding_window": 1024}));
    assert_eq!((&settings["use_sliding_window"], &settings["max_window_layers"]), (&json!(true), &json!(0)));
    let settings = resolved("qwen3", json!({"model": "qwen3-0.6b"}));
    assert_eq!(settings["use_sliding_window"], json!(false));
}
