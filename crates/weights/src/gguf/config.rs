//! The sizes of a decoder: a file's metadata to `config.json` as transformers writes it, and settings to metadata.
//!
//! What a file cannot say is refused by the name of its setting when it is written.

use super::header::Header;
use super::names::Architecture;
use super::value::Value;
use serde_json::{Map, Value as Json, json};

/// Factors of the rotary frequencies, as llama.cpp keeps Llama 3.1's scaling.
pub(super) const FREQUENCIES: &str = "rope_freqs.weight";
/// Our own entry: an activation other than the architecture's usual one.
const ACTIVATION: &str = "limber.hidden_act";
/// Positions that Llama 3.1 and later were trained with, and the bounds of its ramp.
const LLAMA3: (f64, f64, usize) = (1.0, 4.0, 8192);

/// One entry of the metadata.
pub(super) type Entry = (String, Value<'static>);

/// A file's settings in the names of transformers.
pub(super) fn describe(architecture: &Architecture, header: &Header) -> Result<Map<String, Json>, String> {
    let entry = |key: &str| header.metadata.get(format!("{}.{key}", architecture.name).as_str());
    let missing = |key: &str| format!("metadata entry {}.{key} is missing or no number", architecture.name);
    let size = |key: &str| entry(key).and_then(Value::whole).ok_or_else(|| missing(key));
    let number = |key: &str| entry(key).and_then(Value::number).ok_or_else(|| missing(key));
    let has = |name: &str| header.tensors.contains_key(name);
    let vocab = header.tensors.get("token_embd.weight").and_then(|t| t.shape.first().copied());
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
    let eos = header.metadata.get("tokenizer.ggml.eos_token_id").and_then(Value::whole);
    set("eos_token_id", json!(eos));
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
                    set("attention_bias", json!(has("blk.0.attn_q.bias")));
                    set("mlp_bias", json!(has("blk.0.ffn_up.bias")));
                }
                if has("blk.0.ffn_gate_inp.weight") {
                    return Err("a mixture of experts, which no decoder here is".into());
                }
            }
            if let Some(scaling) = scaling(architecture.name, header)? {
                set("rope_scaling", scaling);
            }
        }
    }
    Ok(out)
}

/// The scaling of rotary frequencies that a file asks for.
fn scaling(name: &str, header: &Header) -> Result<Option<Json>, String> {
    let entry = |key: &str| header.metadata.get(format!("{name}.rope.scaling.{key}").as_str());
    let kind = entry("type").and_then(Value::text).unwrap_or("none");
    let factor = entry("factor").and_then(Value::number);
    match (kind, factor) {
        ("none", _) => {}
        ("linear", Some(factor)) => return Ok(Some(json!({"rope_type": "linear", "factor": factor}))),
        (kind, _) => return Err(format!("{name}.rope.scaling.type is {kind:?}, supported are none and linear")),
    }
    Ok(header.tensors.contains_key(FREQUENCIES).then(|| json!({"rope_type": "llama3"})))
}

/// Completes the scaling of a `rope_freqs.weight` of these values.
pub(super) fn complete(config: &mut Map<String, Json>, values: &[f32]) -> Result<(), String> {
    let theta = config.get("rope_theta").and_then(Json::as_f64).unwrap_or(10_000.0);
    let (low, high, original) = LLAMA3;
    let factor = f64::from(values.iter().copied().fold(1f32, f32::max));
    let expected = frequencies(theta, 2 * values.len(), [factor, low, high], original);
    if expected.iter().zip(values).any(|(a, b)| (a / b - 1.0).abs() > 1e-5) {
        return Err(format!(
            "{FREQUENCIES} holds other factors than Llama 3.1's scaling by {factor} of {original} positions, which is supported"
        ));
    }
    let scaling = json!({"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high,
        "original_max_position_embeddings": original});
    config.insert("rope_scaling".into(), scaling);
    Ok(())
}

/// What Llama 3.1's scaling divides each of the `dim / 2` frequencies by.
fn frequencies(theta: f64, dim: usize, [factor, low, high]: [f64; 3], original: usize) -> Vec<f32> {
    let turns = |i: usize| original as f64 * theta.powf(-2.0 * i as f64 / dim as f64) / std::f64::consts::TAU;
    let of = |turns: f64| match turns {
        turns if turns > high => 1.0,
        turns if turns < low => factor,
        turns => {
            let smooth = (turns - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    (0..dim / 2).map(|i| of(turns(i)) as f32).collect()
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
    let mut activation = None;
    let mut factors = None;
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
                let number = |key: &str| scaling.get(key).and_then(Json::as_f64);
                let kind = scaling.get("rope_type").or(scaling.get("type")).and_then(Json::as_str);
                match (kind, number("factor"), number("low_freq_factor"), number("high_freq_factor")) {
                    (Some("linear"), Some(factor), ..) => {
                        set("rope.scaling.type", Value::Text("linear".into()));
                        set("rope.scaling.factor", Value::Float(factor));
                    }
                    // Only these bounds are found again.
                    (Some("llama3"), Some(factor), Some(low), Some(high))
                        if (low, high) == (LLAMA3.0, LLAMA3.1)
                            && number("original_max_position_embeddings") == Some(LLAMA3.2 as f64)
                            && name == "llama" =>
                    {
                        let dim = size("head_dim")? as usize;
                        factors = Some(frequencies(number_of(find("rope_theta")), dim, [factor, low, high], LLAMA3.2));
                    }
                    _ => return Err(format!("rope_scaling is {scaling}, which a GGUF file of {name} cannot say")),
                }
            }
        }
    }
    if let Some(activation) = activation.and_then(Json::as_str) {
        out.push((ACTIVATION.into(), Value::Text(activation.to_string().into())));
    }
    Ok((out, factors))
}

fn number_of(value: Option<&Json>) -> f64 {
    value.and_then(Json::as_f64).unwrap_or(10_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_3s_factors_are_found_again() {
        let values = frequencies(500_000.0, 128, [8.0, 1.0, 4.0], 8192);
        // transformers 5.24 gives these frequencies, see `limber_core::rope`: index, value.
        for (i, frequency) in [(0usize, 1.0f64), (27, 0.003_942_276), (30, 0.001_371_893_7), (33, 3.126_936_5e-4)] {
            let plain = 500_000f64.powf(-2.0 * i as f64 / 128.0);
            assert!((plain / f64::from(values[i]) / frequency - 1.0).abs() < 1e-6, "{i}");
        }
        let mut config = Map::from_iter([("rope_theta".to_string(), json!(500_000.0))]);
        complete(&mut config, &values).unwrap();
        assert_eq!(config["rope_scaling"]["factor"], json!(8.0));
        assert!(complete(&mut config, &[1.0, 2.0, 3.0]).unwrap_err().contains("other factors"));
    }
}
