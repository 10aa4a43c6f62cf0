//! Metadata of the families whose checkpoints spell their settings as Llama does, of `falcon` and of `mpt`.
//!
//! Sources followed: llama.cpp's `conversion/` for what a file says, `src/models/` for what it stands for where it says
//! nothing. Where a checkpoint's reference and llama.cpp compute otherwise (the exact GELU of Falcon and MPT, Phi-3's window),
//! a file is read as the checkpoint that it was made of.

use super::config::File;
use super::rope;
use super::value::Value;
use serde_json::{Value as Json, json};

/// Takes a setting.
type Set<'a> = &'a mut dyn FnMut(&str, Json);

/// The settings of a family with Llama's keys; `share` is the width over the heads.
pub(super) fn llama_like(
    file: &File,
    share: u64,
    activation: Option<&str>,
    theta: f64,
    set: Set,
) -> Result<(), String> {
    let heads = file.size("attention.head_count")?;
    let keys = file.entry("attention.head_count_kv").and_then(Value::whole).unwrap_or(heads);
    let dims = file.entry("rope.dimension_count").and_then(Value::whole);
    let partial = ["phi3", "stablelm"].contains(&file.name);
    let dim = file.entry("attention.key_length").and_then(Value::whole);
    let dim = dim.or(dims.filter(|_| !partial)).unwrap_or(share);
    set("max_position_embeddings", json!(file.size("context_length")?));
    set("hidden_size", json!(file.size("embedding_length")?));
    set("num_hidden_layers", json!(file.size("block_count")?));
    set("num_attention_heads", json!(heads));
    set("num_key_value_heads", json!(keys));
    set("intermediate_size", json!(file.size("feed_forward_length")?));
    set("head_dim", json!(dim));
    set("rope_theta", json!(theta));
    let activation_key = if ["gemma2", "gemma3"].contains(&file.name) { "hidden_activation" } else { "hidden_act" };
    if let Some(activation) = activation {
        set(activation_key, json!(activation));
    }
    let layer = ["stablelm", "starcoder2"].contains(&file.name);
    let eps_key = if layer { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" };
    let (eps, attention) = (file.number(eps_key)?, file.biased(&["attn_q", "attn_k", "attn_v", "attn_output"]));
    match file.name {
        "stablelm" => {
            set("layer_norm_eps", json!(eps));
            set("use_qkv_bias", json!(file.biased(&["attn_q", "attn_k", "attn_v"])));
            set("qk_layernorm", json!(file.has("blk.0.attn_q_norm.weight")));
            // llama.cpp tells the form by this norm alone.
            set("use_parallel_residual", json!(!file.has("blk.0.ffn_norm.weight")));
        }
        "starcoder2" => {
            set("norm_epsilon", json!(eps));
            set("use_bias", json!(attention || file.biased(&["ffn_up", "ffn_down"])));
        }
        _ => set("rms_norm_eps", json!(eps)),
    }
    if ["llama", "qwen3", "gemma", "gemma2", "gemma3", "olmo2", "smollm3", "granite"].contains(&file.name) {
        set("attention_bias", json!(attention));
    }
    if ["llama", "smollm3", "granite"].contains(&file.name) {
        set("mlp_bias", json!(file.biased(&["ffn_gate", "ffn_up", "ffn_down"])));
    }
    if partial {
        let part = dims.unwrap_or(dim) as f64 / dim.max(1) as f64;
        // The product is rounded down again.
        let whole = (dim as f64 * part) as u64 == dims.unwrap_or(dim);
        set("partial_rotary_factor", json!(if whole { part } else { part * (1.0 + f64::EPSILON) }));
    }
    let window = file.entry("attention.sliding_window").and_then(Value::whole).filter(|window| *window > 0);
    match file.name {
        "gemma2" => gemma2(file, share, dim, window, set),
        "gemma3" => gemma3(file, share, dim, window, set),
        "phi3" | "starcoder2" => {
            set("sliding_window", json!(window));
            let trained = file.entry("rope.scaling.original_context_length").and_then(Value::whole);
            if let Some(trained) = trained.filter(|_| file.has(rope::LONG)) {
                set("original_max_position_embeddings", json!(trained));
            }
            Ok(())
        }
        "olmo2" if window.is_some() => {
            Err(file.unsupported("attention.sliding_window", "none: OLMo 3 is no decoder here"))
        }
        "smollm3" => {
            set("no_rope_layer_interval", json!(4));
            Ok(())
        }
        "granite" => {
            let scale = |key: &str| file.found(key).filter(|scale| *scale != 0.0);
            set("attention_multiplier", json!(scale("attention.scale").unwrap_or((dim as f64).sqrt().recip())));
            set("embedding_multiplier", json!(scale("embedding_scale").unwrap_or(1.0)));
            set("residual_multiplier", json!(scale("residual_scale").unwrap_or(1.0)));
            set("logits_scaling", json!(file.number("logit_scale")?));
            if matches!(file.entry("rope.scaling.finetuned"), Some(Value::Flag(false))) {
                return Err(file.unsupported("rope.scaling.finetuned", "true: rotary embeddings"));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What llama.cpp divides the squared scores by: D over the heads in the largest model, else the width of a head.
fn query_scalar(file: &File, layers: u64, share: u64, dim: u64) -> Result<u64, String> {
    Ok(if file.size("block_count")? == layers { share } else { dim })
}

fn gemma2(file: &File, share: u64, dim: u64, window: Option<u64>, set: Set) -> Result<(), String> {
    set("query_pre_attn_scalar", json!(query_scalar(file, 46, share, dim)?));
    set("sliding_window", json!(window.unwrap_or(4096)));
    set("attn_logit_softcapping", json!(file.found("attn_logit_softcapping").unwrap_or(50.0)));
    set("final_logit_softcapping", json!(file.found("final_logit_softcapping").unwrap_or(30.0)));
    match file.entry("attention.sliding_window_pattern").map(|value| value.whole()) {
        None | Some(Some(2)) => Ok(()),
        _ => Err(file.unsupported("attention.sliding_window_pattern", "2")),
    }
}

fn gemma3(file: &File, share: u64, dim: u64, window: Option<u64>, set: Set) -> Result<(), String> {
    set("query_pre_attn_scalar", json!(query_scalar(file, 62, share, dim)?));
    set("rope_local_base_freq", json!(file.found("rope.freq_base_swa").unwrap_or(10_000.0)));
    let cap = file.found("final_logit_softcapping").filter(|cap| *cap != 0.0);
    set("final_logit_softcapping", json!(cap));
    let pattern = match file.entry("attention.sliding_window_pattern") {
        None => 6,
        Some(value) => value
            .whole()
            .filter(|every| *every > 0)
            .ok_or_else(|| file.unsupported("attention.sliding_window_pattern", "a number above 0"))?,
    };
    set("sliding_window_pattern", json!(if window.is_some() { pattern } else { 1 }));
    set("sliding_window", json!(window.unwrap_or(4096)));
    Ok(())
}

/// Falcon with attention and MLP side by side, the only kind that llama.cpp computes.
pub(super) fn falcon(file: &File, activation: Option<&str>, theta: f64, set: Set) -> Result<(), String> {
    let heads = file.size("attention.head_count")?;
    let two = file.has("blk.0.attn_norm_2.weight");
    set("max_position_embeddings", json!(file.size("context_length")?));
    set("hidden_size", json!(file.size("embedding_length")?));
    set("num_hidden_layers", json!(file.size("block_count")?));
    set("num_attention_heads", json!(heads));
    // The older form with one key head is that of one group.
    set("new_decoder_architecture", json!(true));
    set("num_kv_heads", json!(file.entry("attention.head_count_kv").and_then(Value::whole).unwrap_or(heads)));
    set("num_ln_in_parallel_attn", json!(if two { 2 } else { 1 }));
    set("ffn_hidden_size", json!(file.size("feed_forward_length")?));
    set("layer_norm_epsilon", json!(file.number("attention.layer_norm_epsilon")?));
    set("parallel_attn", json!(true));
    set("alibi", json!(false));
    set("bias", json!(file.biased(&["attn_qkv", "attn_output", "ffn_up", "ffn_down"])));
    set("activation", json!(activation.unwrap_or("gelu")));
    set("rope_theta", json!(theta));
    Ok(())
}

/// MPT with linear biases of the scores and without any of its layers.
pub(super) fn mpt(file: &File, set: Set) -> Result<(), String> {
    let (width, heads) = (file.size("embedding_length")?, file.size("attention.head_count")?);
    let key = "attention.max_alibi_bias";
    if file.found(key) != Some(8.0) {
        return Err(file.unsupported(key, "8"));
    }
    let key = "attention.head_count_kv";
    if file.entry(key).and_then(Value::whole).is_some_and(|keys| keys != heads) {
        return Err(file.unsupported(key, &format!("{heads}, as many as queries have")));
    }
    let key = "feed_forward_length";
    if file.size(key)? != width.saturating_mul(4) {
        return Err(file.unsupported(key, "four times embedding_length"));
    }
    set("max_seq_len", json!(file.size("context_length")?));
    set("d_model", json!(width));
    set("n_layers", json!(file.size("block_count")?));
    set("n_heads", json!(heads));
    set("layer_norm_epsilon", json!(file.number("attention.layer_norm_epsilon")?));
    let clip = file.found("attention.clamp_kqv").filter(|limit| *limit != 0.0);
    set("attn_config", json!({"clip_qkv": clip}));
    Ok(())
}

/// Refuses a bias that the decoder of a file would leave out.
pub(super) fn known_biases(file: &File) -> Result<(), String> {
    let known: &[&str] = match file.name {
        "gptj" | "gpt2" | "gptneox" => return Ok(()),
        "llama" | "smollm3" | "granite" => {
            &["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
        }
        "qwen2" => &["attn_q", "attn_k", "attn_v"],
        "phi3" | "mpt" => &[],
        "stablelm" => &["attn_q", "attn_k", "attn_v", "attn_norm", "ffn_norm", "output_norm"],
        "starcoder2" => {
            &["attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down", "attn_norm", "ffn_norm", "output_norm"]
        }
        "falcon" => &["attn_qkv", "attn_output", "ffn_up", "ffn_down", "attn_norm", "attn_norm_2", "output_norm"],
        _ => &["attn_q", "attn_k", "attn_v", "attn_output"],
    };
    let left_out = |name: &&&str| {
        name.strip_suffix(".bias").is_some_and(|stem| !known.contains(&stem.rsplit('.').next().unwrap_or(stem)))
    };
    match file.shapes.keys().find(left_out) {
        Some(name) => Err(format!("tensor {name:?} is none that {} has, so something would be left out", file.name)),
        None => Ok(()),
    }
}
