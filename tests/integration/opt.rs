//! OPT against transformers: `tests/golden/opt`, every form a checkpoint comes in.

use super::decoders::{OPT, build, model_refused_beside, resolved, settings_refused};
use serde_json::json;

#[test]
fn every_setting_that_changes_the_arithmetic() {
    OPT.variants_give_their_logits(6);
}

#[test]
fn a_prefix_is_as_wide_as_the_words_and_not_as_the_blocks() {
    let model = build("opt", &super::golden::folder("opt/post-norm")).unwrap();
    let spec = model.spec();
    assert_eq!((spec.width, spec.kv_heads * spec.head_dim), (16, 24));
}

#[test]
fn what_config_json_asks_for_and_opt_cannot_do_is_refused_by_name() {
    let case = OPT;
    case.refuses("model_type", json!("gpt2"), &["model_type is \"gpt2\"", "the decoder opt takes \"opt\""]);
    case.refuses("activation_function", json!("tanh"), &["activation_function is \"tanh\"", "gelu", "relu"]);
    case.refuses("quantization_config", json!({"bits": 4}), &["quantization_config"]);
    case.refuses("ffn_dim", json!(-1), &["ffn_dim is -1", "whole number"]);
    case.refuses("_remove_final_layer_norm", json!("no"), &["_remove_final_layer_norm is \"no\"", "true or false"]);
}

#[test]
fn models_by_name() {
    let sizes = |model: &str| {
        let s = resolved("opt", json!({ "model": model }));
        let number = |key: &str| s[key].as_u64().unwrap();
        assert_eq!(
            (number("vocab_size"), number("max_position_embeddings"), number("eos_token_id")),
            (50_272, 2048, 2)
        );
        assert_eq!(number("ffn_dim"), 4 * number("hidden_size"));
        let (width, words) = (number("hidden_size"), number("word_embed_proj_dim"));
        assert_eq!(words, if model == "opt-350m" { 512 } else { width });
        assert_eq!(s["do_layer_norm_before"], model != "opt-350m");
        (width, number("num_hidden_layers"), number("num_attention_heads"))
    };
    assert_eq!(sizes("opt-125m"), (768, 12, 12));
    assert_eq!(sizes("opt-350m"), (1024, 24, 16));
    assert_eq!(sizes("opt-1.3b"), (2048, 24, 32));
    assert_eq!(sizes("opt-2.7b"), (2560, 32, 32));
    assert_eq!(sizes("opt-6.7b"), (4096, 32, 32));
    assert_eq!(sizes("opt-13b"), (5120, 40, 40));
    assert_eq!(sizes("opt-30b"), (7168, 48, 56));
    assert_eq!(sizes("opt-66b"), (9216, 64, 72));
    settings_refused(
        "opt",
        json!({"model": "opt-175b"}),
        "unknown opt model \"opt-175b\"; known models: opt-125m, opt-350m",
    );
    model_refused_beside("opt", "opt/post-norm", "opt-125m", "but 768 in the model \"opt-125m\"");
}

#[test]
fn settings_that_do_not_fit_each_other() {
    let check = |settings, expected| settings_refused("opt", settings, expected);
    check(
        json!({"hidden_size": 10, "num_attention_heads": 3}),
        "hidden_size 10 is not a multiple of num_attention_heads 3",
    );
    check(json!({"ffn_dim": 0}), "key \"ffn_dim\": value 0 is not allowed, expected a whole number, at least 1");
    check(
        json!({"word_embed_proj_dim": 0}),
        "key \"word_embed_proj_dim\": value 0 is not allowed, expected a whole number, at least 1",
    );
    check(json!({"n_embd": 3}), "key \"n_embd\": unknown key");
}
