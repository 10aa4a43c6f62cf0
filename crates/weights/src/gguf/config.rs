//! The sizes of a decoder: a file's metadata to `config.json` as transformers writes it, and settings to metadata.
//!
//! What a file cannot say is refused by the name of its setting when it is written.

use super::header::Header;
use super::keys::{Keys, Shapes, check_tokens};
use super::names::Architecture;
use super::rope;
use super::tokenizer::Vocabulary;
use super::value::Value;
use serde_json::{Map, Value as Json, json};

/// Our own entry: an activation other than the architecture's usual one.
const ACTIVATION: &str = "limber.hidden_act";
/// One entry of the metadata.
pub(super) type Entry = (String, Value<'static>);

/// A file's settings in the names of transformers; `shapes` are those of all tensors.
pub(super) fn describe(
    architecture: &Architecture,
    header: &Header,
    shapes: &Shapes,
) -> Result<Map<String, Json>, String> {
    let keys = Keys::new(header, architecture.name);
    let has = |name: &str| shapes.contains_key(name);
    // Any layer's: llama.cpp asks each of its own.
    let any = |stems: &[&str]| {
        let biased = |name: &str| stems.iter().any(|stem| name.ends_with(&format!(".{stem}.bias")));
        shapes.keys().any(|name| name.starts_with("blk.") && biased(name))
    };
    let words = shapes.get("token_embd.weight").ok_or("a GGUF file without token_embd.weight")?;
    let [vocab, _] = **words else { return Err(format!("token_embd.weight has shape {words:?}")) };
    if vocab == 0 {
        return Err("token_embd.weight has no rows".into());
    }
    let (width, heads) = (keys.size("embedding_length")?, keys.size("attention.head_count")?);
    keys.expect("embedding_length", width, shapes, "token_embd.weight", 1)?;
    if !width.is_multiple_of(heads) {
        return Err(keys.refusal("attention.head_count", format!("expected a divisor of embedding_length, {width}")));
    }
    check_tokens(header, vocab)?;
    let (share, blocks) = (width / heads, keys.blocks(shapes)?);
    let (positions, inner) = (keys.size("context_length")?, keys.size("feed_forward_length")?);
    keys.expect("feed_forward_length", inner, shapes, "blk.0.ffn_up.weight", 0)?;
    let mut out = Map::new();
    let mut set = |key: &str, value: Json| drop(out.insert(key.into(), value));
    set("model_type", json!(architecture.model_types[0]));
    set("architectures", json!([architecture.class]));
    set("vocab_size", json!(vocab));
    set("tie_word_embeddings", json!(!has("output.weight")));
    let ends = match Vocabulary::read(header) {
        Some(vocabulary) => vocabulary.ends(),
        None => ends(header),
    };
    set("eos_token_id", if ends.is_empty() { Json::Null } else { json!(ends) });
    let activation = header.metadata.get(ACTIVATION).and_then(Value::text);
    let theta = || Ok::<_, String>(keys.number_if_set("rope.freq_base", 1.0)?.unwrap_or(10_000.0));
    // Rotated elements of a head, at most `dim`.
    let rotated = |dim: usize| match keys.size_if_set("rope.dimension_count")? {
        Some(n) if n > dim || n % 2 != 0 => {
            Err(keys.refusal("rope.dimension_count", format!("expected an even number, at most a head's width, {dim}")))
        }
        n => Ok(n),
    };
    match architecture.name {
        "gptj" | "gpt2" => {
            set("n_positions", json!(positions));
            set("n_embd", json!(width));
            set("n_layer", json!(blocks));
            set("n_head", json!(heads));
            set("n_inner", json!(inner));
            set("layer_norm_epsilon", json!(keys.positive("attention.layer_norm_epsilon")?));
            if architecture.name == "gptj" {
                let dims = rotated(share)?;
                let missing = || keys.refusal("rope.dimension_count", "expected a whole number, at least 1");
                set("rotary_dim", json!(dims.ok_or_else(missing)?));
            } else {
                keys.expect("context_length", positions, shapes, "position_embd.weight", 0)?;
                set("activation_function", json!(activation.unwrap_or("gelu_new")));
            }
        }
        kind => {
            set("max_position_embeddings", json!(positions));
            set("hidden_size", json!(width));
            set("num_hidden_layers", json!(blocks));
            set("num_attention_heads", json!(heads));
            set("intermediate_size", json!(inner));
            if kind == "gptneox" {
                let rotary = rotated(share)?.unwrap_or(share) as f64 / share as f64;
                set("layer_norm_eps", json!(keys.positive("attention.layer_norm_epsilon")?));
                set("rotary_pct", json!(rotary));
                set("rotary_emb_base", json!(theta()?));
                let parallel = !matches!(keys.entry("use_parallel_residual"), Some(Value::Flag(false)));
                set("use_parallel_residual", json!(parallel));
                set("attention_bias", json!(has("blk.0.attn_qkv.bias")));
                set("hidden_act", json!(activation.unwrap_or("gelu")));
            } else {
                if has("blk.0.ffn_gate_inp.weight") {
                    return Err("a mixture of experts, which no decoder here is".into());
                }
                let (key_heads, dim) = heads_of(&keys, shapes, heads, share)?;
                if rotated(dim)?.is_some_and(|n| n != dim) {
                    return Err(keys.refusal("rope.dimension_count", format!("supported is a head's width, {dim}")));
                }
                set("num_key_value_heads", json!(key_heads));
                set("head_dim", json!(dim));
                set("rms_norm_eps", json!(keys.positive("attention.layer_norm_rms_epsilon")?));
                set("rope_theta", json!(theta()?));
                if kind == "llama" {
                    set("attention_bias", json!(any(&["attn_q", "attn_k", "attn_v", "attn_output"])));
                    set("mlp_bias", json!(any(&["ffn_gate", "ffn_up", "ffn_down"])));
                }
            }
            if let Some(scaling) = rope::scaling(&keys)? {
                set("rope_scaling", scaling);
            }
        }
    }
    Ok(out)
}

/// The heads of keys, and the width of a head, which is `share` where the file does not say.
fn heads_of(keys: &Keys, shapes: &Shapes, heads: usize, share: usize) -> Result<(usize, usize), String> {
    let count = keys.size_if_set("attention.head_count_kv")?.unwrap_or(heads);
    if !heads.is_multiple_of(count) {
        let expected = format!("expected a divisor of attention.head_count, {heads}");
        return Err(keys.refusal("attention.head_count_kv", expected));
    }
    let key = "attention.key_length";
    // Files of 2023 say the width of a head as its rotated elements alone.
    let dim = keys.size_if_set(key)?.or(keys.size_if_set("rope.dimension_count")?).unwrap_or(share);
    let (queries, rows) = (heads.checked_mul(dim), count.checked_mul(dim));
    keys.expect(key, queries.unwrap_or(0), shapes, "blk.0.attn_q.weight", 0)?;
    keys.expect(key, rows.unwrap_or(0), shapes, "blk.0.attn_k.weight", 0)?;
    if dim % 2 != 0 {
        return Err(keys.refusal(key, format!("a head's width of {dim} is odd, expected an even one")));
    }
    if keys.size_if_set("attention.value_length")?.is_some_and(|n| n != dim) {
        return Err(keys.refusal("attention.value_length", format!("supported is that of keys, {dim}")));
    }
    Ok((count, dim))
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
