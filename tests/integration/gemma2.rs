//! Gemma 2 against transformers: `tests/golden/gemma2`.

use super::decoders::{GEMMA2, resolved, settings_refused, variants_give_their_logits_and_steps};
use serde_json::json;

#[test]
fn caps_windows_scales_and_older_spellings() {
    variants_give_their_logits_and_steps(&GEMMA2, 17);
}

#[test]
fn what_config_json_asks_for_and_gemma2_cannot_do_is_refused_by_name() {
    GEMMA2.refuses("model_type", json!("gemma3"), &["model_type is \"gemma3\"", "\"gemma2\""]);
    GEMMA2.refuses("use_bidirectional_attention", json!(true), &["use_bidirectional_attention is true"]);
    GEMMA2.refuses("attn_logit_softcapping", json!(-1.0), &["attn_logit_softcapping is -1"]);
    GEMMA2.refuses("query_pre_attn_scalar", json!(0), &["query_pre_attn_scalar is 0, expected a number above 0"]);
    GEMMA2.refuses(
        "sliding_window",
        json!(0),
        &["sliding_window is 0, which is not allowed, expected a whole number, at least 1"],
    );
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
