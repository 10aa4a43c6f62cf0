//! Qwen3 against transformers: `tests/golden/qwen3`.

use super::decoders::{
    Case, drawn_as_in_transformers, resolved, settings_refused, told_by_its_folder,
    variants_give_their_logits_and_steps,
};
use serde_json::json;

const UNTIED: Case = Case { kind: "qwen3", folder: "qwen3", form: "untied", prefix: "untied." };
const TIED: Case = Case { form: "tied", prefix: "tied.", ..UNTIED };
/// A head of its own; one table for words and head, a window in the second layer.
const CASES: [Case; 2] = [UNTIED, TIED];

#[test]
fn every_form_gives_transformers_logits() {
    CASES.iter().for_each(|case| case.gives("logits"));
    // Biases, as many key heads as query heads, names without `model.`, in bf16.
    Case { form: "bare", prefix: "bare.", ..UNTIED }.gives("logits");
}

#[test]
fn the_whole_context_and_not_one_more() {
    CASES.iter().for_each(Case::fills_its_context);
}

#[test]
fn a_prefix_of_embeddings() {
    CASES.iter().for_each(Case::continues_a_prefix);
}

#[test]
fn step_by_step_over_a_cache() {
    CASES.iter().for_each(Case::steps_over_a_cache);
}

#[test]
fn rows_of_different_lengths_in_one_batch() {
    CASES.iter().for_each(Case::generates_batches_as_singles);
}

#[test]
fn keys_that_a_mask_hides() {
    CASES.iter().for_each(Case::hides_keys);
}

#[test]
fn hidden_states_and_attention() {
    CASES.iter().for_each(Case::shows_hidden_states_and_attention);
}

#[test]
fn the_gradient_of_a_training_step() {
    CASES.iter().for_each(Case::trains_what_stands_before_it);
}

#[test]
fn scaled_frequencies_windows_and_older_spellings() {
    variants_give_their_logits_and_steps(&UNTIED, 16);
}

#[test]
fn random_weights_are_drawn_as_transformers_draws_them() {
    drawn_as_in_transformers("qwen3", "qwen3");
}

#[test]
fn what_config_json_asks_for_and_qwen3_cannot_do_is_refused_by_name() {
    UNTIED.refuses("model_type", json!("qwen3_moe"), &["model_type is \"qwen3_moe\"", "\"qwen3\""]);
    UNTIED.refuses("quantization_config", json!({"quant_method": "gptq"}), &["quantization_config"]);
    UNTIED.refuses("hidden_act", json!("relu2"), &["hidden_act", "\"relu2\""]);
    UNTIED.refuses("num_key_value_heads", json!(3), &["num_attention_heads 4", "num_key_value_heads 3"]);
    UNTIED.refuses("layer_types", json!(["full_attention"]), &["layer_types has 1 entries for 2 layers"]);
    let slides = json!(["full_attention", "sliding_attention"]);
    UNTIED.refuses("layer_types", slides, &["layers have a window, but sliding_window is not set"]);
    UNTIED.refuses("partial_rotary_factor", json!(0.5), &["partial_rotary_factor is 0.5, supported is 1"]);
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
fn the_kind_auto_knows_it() {
    told_by_its_folder("qwen3", &["qwen3/untied", "qwen3/tied", "qwen3/bare"]);
}

#[test]
fn who_sets_a_window_wants_it() {
    let settings = resolved("qwen3", json!({"model": "qwen3-0.6b", "sliding_window": 1024}));
    assert_eq!((&settings["use_sliding_window"], &settings["max_window_layers"]), (&json!(true), &json!(0)));
    let settings = resolved("qwen3", json!({"model": "qwen3-0.6b"}));
    assert_eq!(settings["use_sliding_window"], json!(false));
}
