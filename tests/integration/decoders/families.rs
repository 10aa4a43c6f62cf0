//! The families of `tests/golden/decoder_families`: which forms they have, what other configs over their weights give, and
//! what is refused.

use super::{Case, resolved, settings_refused, variants_give_their_logits_and_steps};
use serde_json::{Value, json};

const fn case(kind: &'static str, folder: &'static str, form: &'static str, prefix: &'static str) -> Case {
    Case { kind, folder, form, prefix }
}

/// The same family in another form.
const fn form(of: &Case, form: &'static str, prefix: &'static str) -> Case {
    case(of.kind, of.folder, form, prefix)
}

/// Token embeddings times the square root of the width, one key head.
pub const GEMMA: Case = case("gemma", "decoder_families/gemma", "tied", "tied.");
/// Norms around the branches and of each head, two tables of frequencies.
pub const GEMMA3: Case = case("gemma3", "decoder_families/gemma3", "tied", "tied.");
/// Fused matrices.
pub const PHI3: Case = case("phi3", "decoder_families/phi3", "untied", "untied.");
/// Norms of what the branches give, and of all queries and keys.
pub const OLMO2: Case = case("olmo2", "decoder_families/olmo2", "untied", "untied.");
/// The second of three layers has no positions.
pub const SMOLLM3: Case = case("smollm3", "decoder_families/smollm3", "tied", "tied.");
/// Layer norms, half of each head rotated.
pub const STABLELM: Case = case("stablelm", "decoder_families/stablelm", "serial", "serial.");
/// Four factors.
pub const GRANITE: Case = case("granite", "decoder_families/granite", "tied", "tied.");
/// A plain MLP, one window for all layers.
pub const STARCODER2: Case = case("starcoder2", "decoder_families/starcoder2", "tied", "tied.");
/// One key head, blocks side by side behind one norm.
pub const FALCON: Case = case("falcon", "decoder_families/falcon", "parallel", "parallel.");
/// Linear biases, blocks in series.
pub const FALCON_ALIBI: Case = form(&FALCON, "alibi", "alibi.");
/// Linear biases of distances.
pub const MPT: Case = case("mpt", "decoder_families/mpt", "tied", "tied.");
/// Learned positions, a window in the second layer.
pub const GPT_NEO: Case = case("gpt-neo", "decoder_families/gpt_neo", "tied", "tied.");

/// The forms that all of what `decoders.rs` asks holds of.
pub const MODELS: [Case; 13] = [
    GEMMA,
    GEMMA3,
    PHI3,
    OLMO2,
    SMOLLM3,
    STABLELM,
    // Side by side behind one norm, a norm for each head of queries and keys.
    form(&STABLELM, "parallel", "parallel."),
    GRANITE,
    STARCODER2,
    FALCON,
    FALCON_ALIBI,
    MPT,
    GPT_NEO,
];

/// Other forms, each with `logits` of its own; `bare` is without the prefix of the names, in bf16.
pub const FORMS: [Case; 23] = [
    form(&GEMMA, "untied", "untied."),
    form(&GEMMA, "bare", "bare."),
    form(&GEMMA3, "capped", "capped."),
    form(&GEMMA3, "bare", "bare."),
    form(&PHI3, "partial", "partial."),
    form(&PHI3, "bare", "bare."),
    form(&OLMO2, "tied", "tied."),
    form(&OLMO2, "bare", "bare."),
    form(&SMOLLM3, "untied", "untied."),
    form(&SMOLLM3, "bare", "bare."),
    form(&STABLELM, "bare", "bare."),
    form(&GRANITE, "untied", "untied."),
    form(&GRANITE, "bare", "bare."),
    form(&STARCODER2, "untied", "untied."),
    form(&STARCODER2, "bare", "bare."),
    // Of sixteen heads most slopes are no powers of two.
    form(&FALCON, "alibi-heads", "alibi-heads."),
    form(&FALCON, "grouped", "grouped."),
    form(&FALCON, "one-norm", "one-norm."),
    form(&FALCON, "bare", "bare."),
    form(&MPT, "three", "three."),
    form(&MPT, "bare", "bare."),
    form(&GPT_NEO, "untied", "untied."),
    form(&GPT_NEO, "bare", "bare."),
];

#[test]
fn other_configs_over_the_same_weights_give_transformers_logits() {
    for (case, count) in [
        (GEMMA, 6),
        (GEMMA3, 10),
        (PHI3, 9),
        (OLMO2, 5),
        (SMOLLM3, 10),
        (STABLELM, 6),
        (GRANITE, 7),
        (STARCODER2, 5),
        (FALCON, 5),
        (MPT, 6),
        (GPT_NEO, 6),
    ] {
        println!("{}", case.kind);
        variants_give_their_logits_and_steps(&case, count);
    }
}

#[test]
fn what_config_json_asks_for_and_a_family_cannot_do_is_refused_by_name() {
    let refuses = |case: &Case, key: &str, value: Value, expected: &str| case.refuses(key, value, &[key, expected]);
    refuses(&GEMMA, "use_bidirectional_attention", json!(true), "is true");
    refuses(&GEMMA, "hidden_activation", json!("silu"), "but hidden_act is gelu_new, supported is the same in both");
    refuses(&GEMMA3, "model_type", json!("gemma3"), "\"gemma3_text\"");
    refuses(&GEMMA3, "final_logit_softcapping", json!(-1.0), "is -1, expected a number from 0, which is none, on");
    let parameters = json!({"sliding_attention": {"rope_type": "linear", "factor": 2.0}});
    refuses(&GEMMA3, "rope_parameters", parameters, "supported is rope_type default");
    refuses(&PHI3, "attention_bias", json!(true), "supported is false");
    let longrope = json!({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0, 1.0, 1.0, 1.0]});
    PHI3.refuses("rope_scaling", longrope, &["short_factor has 1 numbers, expected one for each of 4 rotated pairs"]);
    refuses(&SMOLLM3, "no_rope_layers", json!([1, 0]), "expected 0 or 1 for each of 3 layers");
    refuses(&SMOLLM3, "layer_types", json!(["full_attention"]), "has 1 entries for 3 layers");
    let parameters = json!({"rope_type": "default", "partial_rotary_factor": 0.4});
    STABLELM.refuses("rope_parameters", parameters, &["expected an even number of them, from 2 to 8"]);
    refuses(&GRANITE, "logits_scaling", json!(0.0), "is 0, expected a number above 0");
    refuses(
        &FALCON,
        "num_ln_in_parallel_attn",
        json!(2),
        "num_ln_in_parallel_attn 2 beside new_decoder_architecture false",
    );
    refuses(&MPT, "no_bias", json!(false), "supported is true");
    for (key, value) in
        [("alibi", json!(false)), ("alibi_bias_max", json!(16)), ("qk_ln", json!(true)), ("prefix_lm", json!(true))]
    {
        MPT.refuses("attn_config", json!({ key: value }), &["attn_config", key]);
    }
    refuses(&MPT, "logit_scale", json!("inv_sqrt_d_model"), "inv_sqrt_d_model");
    refuses(
        &GPT_NEO,
        "attention_layers",
        json!(["local", "global"]),
        "but attention_types is [[[\"global\",\"local\"],1]]",
    );
    settings_refused("gpt-neo", json!({"attention_types": [[["global"], 3]]}), "expected one for each of 24 layers");
    settings_refused("falcon", json!({"model": "falcon-1b"}), "known models: falcon-rw-1b, falcon-7b");
}

#[test]
fn models_with_settings_of_their_own_by_name() {
    // Parameters of the published models; tied tables count once.
    for (kind, name, published) in [
        ("falcon", "falcon-rw-1b", 1_311_625_216),
        // Without the heads that the files of these hold beside the table, tied as they are.
        ("falcon", "falcon-7b", 6_921_720_704),
        ("falcon", "falcon-40b", 41_303_293_952),
        ("falcon", "falcon-180b", 178_557_088_768),
        ("mpt", "mpt-7b", 6_649_286_656),
        // 29.95 billion on its card.
        ("mpt", "mpt-30b", 29_957_200_896),
        ("gpt-neo", "gpt-neo-125m", 125_198_592),
        ("gpt-neo", "gpt-neo-1.3b", 1_315_575_808),
        ("gpt-neo", "gpt-neo-2.7b", 2_651_307_520u64),
    ] {
        let s = resolved(kind, json!({ "model": name }));
        let size = |key: &str| s[key].as_u64().unwrap();
        let is = |key: &str| s[key] == json!(true);
        let (d, layers, beside, block) = match kind {
            "falcon" => {
                let (d, heads) = (size("hidden_size"), size("num_attention_heads"));
                let grouped = is("new_decoder_architecture");
                let keys = if grouped {
                    size("num_kv_heads")
                } else if is("multi_query") {
                    1
                } else {
                    heads
                };
                let norms = if grouped || !is("parallel_attn") { 2 } else { 1 };
                let (qkv, inner) = (d + 2 * keys * (d / heads), size("ffn_hidden_size"));
                let biases = if is("bias") { qkv + d + inner + d } else { 0 };
                (d, size("num_hidden_layers"), 2 * d, d * qkv + d * d + 2 * d * inner + biases + norms * 2 * d)
            }
            "mpt" => {
                (size("d_model"), size("n_layers"), size("d_model"), 12 * size("d_model").pow(2) + 2 * size("d_model"))
            }
            _ => {
                let d = size("hidden_size");
                (d, size("num_layers"), size("max_position_embeddings") * d + 2 * d, 12 * d * d + 10 * d)
            }
        };
        assert!(is("tie_word_embeddings"));
        assert_eq!(size("vocab_size") * d + layers * block + beside, published, "{name}");
    }
}

/// D x D for queries and out, and twice as wide as the key heads; all matrices of a block.
fn matrices(settings: &Value, mlp: u64) -> u64 {
    let size = |key: &str| settings[key].as_u64().unwrap();
    let (d, heads) = (size("hidden_size"), size("num_attention_heads"));
    let dim = settings["head_dim"].as_u64().unwrap_or(d / heads);
    2 * d * heads * dim + 2 * d * size("num_key_value_heads") * dim + mlp * d * size("intermediate_size")
}

#[test]
fn models_by_name() {
    // Parameters of the published models; tied tables count once. The matrices of an MLP, and what a block has beside matrices.
    let sizes: [(&str, &str, u64, u64, u64); 18] = [
        ("gemma", "gemma-2b", 2_506_172_416, 3, 2 * 2048),
        ("gemma", "gemma-7b", 8_537_680_896, 3, 2 * 3072),
        ("gemma3", "gemma-3-270m", 268_098_176, 3, 4 * 640 + 2 * 256),
        ("gemma3", "gemma-3-1b", 999_885_952, 3, 4 * 1152 + 2 * 256),
        ("phi3", "phi-3-mini-4k", 3_821_079_552, 3, 2 * 3072),
        ("phi3", "phi-3-medium-4k", 13_960_238_080, 3, 2 * 5120),
        ("phi3", "phi-4", 14_659_507_200, 3, 2 * 5120),
        ("olmo2", "olmo-2-1b", 1_484_916_736, 3, 4 * 2048),
        ("olmo2", "olmo-2-7b", 7_298_617_344, 3, 4 * 4096),
        ("olmo2", "olmo-2-13b", 13_716_198_400, 3, 4 * 5120),
        ("olmo2", "olmo-2-32b", 32_234_279_936, 3, 3 * 5120 + 1024),
        ("starcoder2", "starcoder2-3b", 3_030_371_328, 2, 0),
        ("starcoder2", "starcoder2-7b", 7_173_923_840, 2, 0),
        ("starcoder2", "starcoder2-15b", 15_957_889_024, 2, 0),
        ("stablelm", "stablelm-3b-4e1t", 2_795_443_200, 3, 4 * 2560),
        ("stablelm", "stablelm-2-1.6b", 1_644_515_328, 3, 4 * 2048 + 3 * 2048),
        ("stablelm", "stablelm-2-12b", 12_143_185_920, 3, 2 * 5120 + 40 * 160),
        ("smollm3", "", 3_075_098_624, 3, 2 * 2048),
    ];
    for (kind, name, published, mlp, beside) in sizes {
        let s = resolved(kind, if name.is_empty() { json!({}) } else { json!({ "model": name }) });
        let size = |key: &str| s[key].as_u64().unwrap();
        let d = size("hidden_size");
        let tables = if s["tie_word_embeddings"] == json!(true) { 1 } else { 2 };
        // Two norms and all matrices have biases.
        let biased = 2 * 2 * d + 2 * d + 2 * size("num_key_value_heads") * (d / size("num_attention_heads"));
        let (beside, last) = match kind {
            "starcoder2" => (biased + size("intermediate_size") + d, 2 * d),
            "stablelm" => (beside, 2 * d),
            _ => (beside, d),
        };
        let block = matrices(&s, mlp) + beside;
        let all = tables * size("vocab_size") * d + size("num_hidden_layers") * block + last;
        assert_eq!(all, published, "{kind} {name}");
    }
}
