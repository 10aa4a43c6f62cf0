//! The sizes of a decoder: a file's metadata to `config.json` as transformers writes it, and settings to metadata.
//!
//! What a file cannot say is refused by the name of its setting when it is written.

use super::header::Header;
use super::names::Architecture;
use super::rope;
use super::tokenizer::Vocabulary;
use super::value::Value;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// Our own entry: an activation other than the architecture's usual one.
const ACTIVATION: &str = "limber.hidden_act";
/// One entry of the metadata.
pub(super) type Entry = (String, Value<'static>);

/// A file's settings in the names of transformers; `shapes` are those of all tensors.
pub(super) fn describe(
    architecture: &Architecture,
    header: &Header,
    shapes: &BTreeMap<&str, &[usize]>,
) -> Result<Map<String, Json>, String> {
    let entry = |key: &str| header.metadata.get(format!("{}.{key}", architecture.name).as_str());
    let missing = |key: &str| format!("metadata entry {}.{key} is missing or no number", architecture.name);
    let size = |key: &str| entry(key).and_then(Value::whole).ok_or_else(|| missing(key));
    let number = |key: &str| entry(key).and_then(Value::number).ok_or_else(|| missing(key));
    let has = |name: &str| shapes.contains_key(name);
    // Any layer's: llama.cpp asks each of its own.
    let any = |stems: &[&str]| {
        let biased = |name: &str| stems.iter().any(|stem| name.ends_with(&format!(".{stem}.bias")));
        shapes.keys().any(|name| name.starts_with("blk.") && biased(name))
    };
    let vocab = shapes.get("token_embd.weight").and_then(|shape| shape.first().copied());
    let vocab = vocab.ok_or("a GGUF file without token_embd.weight")?;
    let (width, heads) = (size("embedding_length")?, size("attention.head_count")?);
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(format!("{} heads for a width of {width}", heads));
    }
    let share = width / heads;
    let mut out = Map::new();
    let mut set = |key: &str, value: Json| drop(out.insert(key.into(), value));
    set("model_type", json!(architecture.model_types[0]));
    set("vocab_size", json!(vocab));
    set("tie_word_embeddings", json!(!has("output.weight")));
    let ends = match Vocabulary::read(header) {
        Some(vocabulary) => vocabulary.ends(),
        None => ends(header),
    };
    set("eos_token_id", if ends.is_empty() { Json::Null } else { json!(ends) });
    let activation = header.metadata.get(ACTIVATION).and_then(Value::text);
    let theta = || entry("rope.freq_base").and_then(Value::number).unwrap_or(10_000.0);
    match architecture.name {
        "gptj" | "gpt2" => {
            set("n_positions", json!(size("context_length")?));
            set("n_embd", json!(width));
            set("n_layer", json!(size("block_count")?));
            set("n_head", json!(heads));
            set("n_inner", json!(size("feed_forward_length")?));
            set("layer_norm_epsilon", json!(number("attention.layer_norm_epsilon")?));
            if architecture.name == "gptj" {
                set("rotary_dim", json!(size("rope.dimension_count")?));
            } else {
                set("activation_function", json!(activation.unwrap_or("gelu_new")));
            }
        }
        kind => {
            set("max_position_embeddings", json!(size("context_length")?));
            set("hidden_size", json!(width));
            set("num_hidden_layers", json!(size("block_count")?));
            set("num_attention_heads", json!(heads));
            set("intermediate_size", json!(size("feed_forward_length")?));
            let dims = entry("rope.dimension_count").and_then(Value::whole);
            if kind == "gptneox" {
                let rotary = dims.unwrap_or(share) as f64 / share as f64;
                set("layer_norm_eps", json!(number("attention.layer_norm_epsilon")?));
                set("rotary_pct", json!(rotary));
                set("rotary_emb_base", json!(theta()));
                let parallel = !matches!(entry("use_parallel_residual"), Some(Value::Flag(false)));
                set("use_parallel_residual", json!(parallel));
                set("attention_bias", json!(has("blk.0.attn_qkv.bias")));
                set("hidden_act", json!(activation.unwrap_or("gelu")));
            } else {
                let keys = entry("attention.head_count_kv").and_then(Value::whole).unwrap_or(heads);
                let dim = entry("attention.key_length").and_then(Value::whole).or(dims).unwrap_or(share);
                set("num_key_value_heads", json!(keys));
                set("head_dim", json!(dim));
                set("rms_norm_eps", json!(number("attention.layer_norm_rms_epsilon")?));
                set("rope_theta", json!(theta()));
                if kind == "llama" {
                    set("attention_bias", json!(any(&["attn_q", "attn_k", "attn_v", "attn_output"])));
                    set("mlp_bias", json!(any(&["ffn_gate", "ffn_up", "ffn_down"])));
                }
                if has("blk.0.ffn_gate_inp.weight") {
                    return Err("a mixture of experts, which no decoder here is".into());
                }
            }
            if let Some(scaling) = rope::scaling(architecture.name, header)? {
                set("rope_scaling", scaling);
            }
        }
    }
    Ok(out)
}

/// The ids that end a text where a file lists no tokens.
fn ends(header: &Header) -> Vec<u32> {
    let id = |name: &str| header.metadata.get(format!("tokenizer.ggml.{name}_token_id").as_str())?.whole();
    let mut out: Vec<u32> =
        ["eos", "eot", "eom"].into_iter().filter_map(|name| u32::try_from(id(name)?).ok()).collect();
    out.dedup();
    out
}

/// The metadata of resolved settings, and the factors of the rotary frequencies where it takes them.
pub(super) fn entries(
    architecture: &Architecture,
    settings: &Map<String, Json>,
) -> Result<(Vec<Entry>, Option<Vec<f32>>), String> {
    let mut out = Vec::new();
    let name = architecture.name;
    let find = |key: &str| settings.get(key).filter(|v| !v.is_null());
    let size = |key: &str| find(key).and_then(Json::as_u64).ok_or_else(|| format!("the setting {key} is no number"));
    let number = |key: &str| find(key).and_then(Json::as_f64).ok_or_else(|| format!("the setting {key} is no number"));
    let refuse = |key: &str| match find(key) {
        Some(value) => Err(format!("{key} is {value}, which a GGUF file of {name} cannot say")),
        None => Ok(()),
    };
    let expect = |key: &str, allowed: &[Json]| match find(key) {
        Some(value) if !allowed.contains(value) => {
            let allowed: Vec<String> = allowed.iter().map(Json::to_string).collect();
            Err(format!("{key} is {value}; a GGUF file of {name} can say {}", allowed.join(" or ")))
        }
        _ => Ok(()),
    };
    let mut set = |key: &str, value: Value<'static>| out.push((format!("{name}.{key}"), value));
    set("vocab_size", Value::Whole(size("vocab_size")?));
    let (mut activation, mut factors, mut scaled) = (None, None, Vec::new());
    match name {
        "gptj" | "gpt2" => {
            expect("scale_attn_weights", &[json!(true)])?;
            expect("scale_attn_by_inverse_layer_idx", &[json!(false)])?;
            let (width, inner) = (size("n_embd")?, find("n_inner").and_then(Json::as_u64));
            set("context_length", Value::Whole(size("n_positions")?));
            set("embedding_length", Value::Whole(width));
            set("block_count", Value::Whole(size("n_layer")?));
            set("feed_forward_length", Value::Whole(inner.unwrap_or(4 * width)));
            set("attention.head_count", Value::Whole(size("n_head")?));
            set("attention.layer_norm_epsilon", Value::Float(number("layer_norm_epsilon")?));
            if name == "gptj" {
                set("rope.dimension_count", Value::Whole(size("rotary_dim")?));
            } else {
                activation = find("activation_function").filter(|a| *a != &json!("gelu_new"));
            }
        }
        _ => {
            let (width, heads) = (size("hidden_size")?, size("num_attention_heads")?);
            set("context_length", Value::Whole(size("max_position_embeddings")?));
            set("embedding_length", Value::Whole(width));
            set("block_count", Value::Whole(size("num_hidden_layers")?));
            set("feed_forward_length", Value::Whole(size("intermediate_size")?));
            set("attention.head_count", Value::Whole(heads));
            if name == "gptneox" {
                let rotary = (width / heads.max(1)) as f64 * number("rotary_pct")?;
                let parallel = find("use_parallel_residual") != Some(&json!(false));
                set("attention.layer_norm_epsilon", Value::Float(number("layer_norm_eps")?));
                set("rope.dimension_count", Value::Whole(rotary as u64));
                set("rope.freq_base", Value::Float(number("rotary_emb_base")?));
                set("use_parallel_residual", Value::Flag(parallel));
                activation = find("hidden_act").filter(|a| *a != &json!("gelu"));
            } else {
                refuse("sliding_window")?;
                expect("hidden_act", &[json!("silu")])?;
                let dim = size("head_dim")?;
                set("attention.head_count_kv", Value::Whole(size("num_key_value_heads")?));
                set("attention.layer_norm_rms_epsilon", Value::Float(number("rms_norm_eps")?));
                set("attention.key_length", Value::Whole(dim));
                set("attention.value_length", Value::Whole(dim));
                set("rope.dimension_count", Value::Whole(dim));
                set("rope.freq_base", Value::Float(number("rope_theta")?));
            }
            if let Some(scaling) = find("rope_scaling") {
                let dim = find("head_dim").and_then(Json::as_u64).map(|n| n as usize);
                let (entries, of_tensor) = rope::entries(name, scaling, dim, find("rope_theta"))?;
                scaled = entries;
                factors = of_tensor;
            }
        }
    }
    out.extend(scaled);
    if let Some(activation) = activation.and_then(Json::as_str) {
        out.push((ACTIVATION.into(), Value::Text(activation.to_string().into())));
    }
    Ok((out, factors))
}
