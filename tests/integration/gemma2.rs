//! Gemma 2 against transformers: `tests/golden/gemma2`.

use super::decoders::{
    Case, drawn_as_in_transformers, resolved, settings_refused, told_by_its_folder,
    variants_give_their_logits_and_steps,
};
use serde_json::json;

const CAPPED: Case = Case { kind: "gemma2", folder: "gemma2", form: "capped", prefix: "capped." };
const OPEN: Case = Case { form: "open", prefix: "open.", ..CAPPED };
/// Both caps, windows in every other layer; no caps, a head of its own, biases, another order of windows.
const CASES: [Case; 2] = [CAPPED, OPEN];

#[test]
fn every_form_gives_transformers_logits() {
    CASES.iter().for_each(|case| case.gives("logits"));
    // Names without `model.`, in bf16.
    Case { form: "bare", prefix: "bare.", ..CAPPED }.gives("logits");
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
fn caps_windows_scales_and_older_spellings() {
    variants_give_their_logits_and_steps(&CAPPED, 17);
}

#[test]
fn random_weights_are_drawn_as_transformers_draws_them() {
    drawn_as_in_transformers("gemma2", "gemma2");
}

#[test]
fn what_config_json_asks_for_and_gemma2_cannot_do_is_refused_by_name() {
    CAPPED.refuses("model_type", json!("gemma3"), &["model_type is \"gemma3\"", "\"gemma2\""]);
    CAPPED.refuses("use_bidirectional_attention", json!(true), &["use_bidirectional_attention is true"]);
    CAPPED.refuses("attn_logit_softcapping", json!(-1.0), &["attn_logit_softcapping is -1"]);
    CAPPED.refuses("query_pre_attn_scalar", json!(0), &["query_pre_attn_scalar is 0, expected a number above 0"]);
    CAPPED.refuses("sliding_window", json!(0), &["sliding_window is 0, expected at least 1"]);
}

#[test]
fn the_defaults_are_those_of_the_smallest_model() {
    let settings = resolved("gemma2", json!({}));
    for (key, value) in [
        ("hidden_size", json!(2304)),
        ("head_dim", json!(256)),
        ("hidden_activation", json!("gelu_new")),
        ("attn_logit_softcapping", json!(50.0)),
        ("final_logit_softcapping", json!(30.0)),
        ("eos_token_id", json!(1)),
    ] {
        assert_eq!(settings[key], value, "{key}");
    }
    settings_refused("gemma2", json!({"hidden_act": "gelu"}), "key \"hidden_act\": unknown key");
}

#[test]
fn models_by_name() {
    // Parameters of transformers' models of these settings, in thousands.
    let sizes = [("gemma-2-2b", 2_614_341.888), ("gemma-2-9b", 9_241_705.984), ("gemma-2-27b", 27_227_128.320)];
    for (name, thousands) in sizes {
        let s = resolved("gemma2", json!({ "model": name }));
        let size = |key: &str| s[key].as_u64().unwrap() as usize;
        let (d, dim, inner) = (size("hidden_size"), size("head_dim"), size("intermediate_size"));
        let (q, kv) = (size("num_attention_heads") * dim, size("num_key_value_heads") * dim);
        let block = 2 * d * q + 2 * d * kv + 3 * d * inner + 4 * d;
        let all = size("vocab_size") * d + size("num_hidden_layers") * block + d;
        assert_eq!(all as f64 / 1e3, thousands, "{name}");
    }
}

#[test]
fn the_kind_auto_knows_it() {
    told_by_its_folder("gemma2", &["gemma2/capped", "gemma2/open", "gemma2/bare"]);
}
