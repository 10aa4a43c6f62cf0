//! The metadata of resolved settings, under llama.cpp's names.
//!
//! What a file cannot say, or llama.cpp would compute otherwise, is refused by the name of its setting.

use super::config::ACTIVATION;
use super::names::{Architecture, Head};
use super::rope;
use super::value::Value;
use serde_json::{Map, Value as Json, json};

/// One entry of the metadata.
pub(super) type Entry = (String, Value<'static>);

/// Settings that become entries of one architecture.
struct Settings<'a> {
    name: &'static str,
    all: &'a Map<String, Json>,
    out: Vec<Entry>,
}

impl Settings<'_> {
    fn find(&self, key: &str) -> Option<&Json> {
        self.all.get(key).filter(|v| !v.is_null())
    }

    fn size(&self, key: &str) -> Result<u64, String> {
        self.find(key).and_then(Json::as_u64).ok_or_else(|| format!("the setting {key} is no number"))
    }

    fn number(&self, key: &str) -> Result<f64, String> {
        self.find(key).and_then(Json::as_f64).ok_or_else(|| format!("the setting {key} is no number"))
    }

    fn flag(&self, key: &str) -> bool {
        self.find(key) == Some(&json!(true))
    }

    fn refuse(&self, key: &str) -> Result<(), String> {
        match self.find(key) {
            Some(value) => Err(format!("{key} is {value}, which a GGUF file of {} cannot say", self.name)),
            None => Ok(()),
        }
    }

    /// Refuses all values but these; one that is not set passes.
    fn expect(&self, key: &str, allowed: &[Json]) -> Result<(), String> {
        match self.find(key) {
            Some(value) if !allowed.contains(value) => {
                let allowed: Vec<String> = allowed.iter().map(Json::to_string).collect();
                Err(format!("{key} is {value}; a GGUF file of {} can say {}", self.name, allowed.join(" or ")))
            }
            _ => Ok(()),
        }
    }

    fn set(&mut self, key: &str, value: Value<'static>) {
        self.out.push((format!("{}.{key}", self.name), value));
    }

    /// An entry of a size under its own name.
    fn copy_size(&mut self, key: &str, from: &str) -> Result<(), String> {
        let value = self.size(from)?;
        self.set(key, Value::Whole(value));
        Ok(())
    }

    fn copy_number(&mut self, key: &str, from: &str) -> Result<(), String> {
        let value = self.number(from)?;
        self.set(key, Value::Float(value));
        Ok(())
    }

    /// Our own entry where an activation is not `usual`.
    fn activation(&mut self, key: &str, usual: &str) {
        if let Some(name) = self.find(key).and_then(Json::as_str).filter(|name| *name != usual) {
            let name = name.to_string();
            self.out.push((ACTIVATION.into(), Value::Text(name.into())));
        }
    }

    /// Sizes under the keys of Llama's and GPT-NeoX's kin.
    fn sizes(&mut self) -> Result<(), String> {
        self.copy_size("context_length", "max_position_embeddings")?;
        self.copy_size("embedding_length", "hidden_size")?;
        self.copy_size("block_count", "num_hidden_layers")?;
        self.copy_size("attention.head_count", "num_attention_heads")
    }
}

/// The metadata of resolved settings, and tensors of factors of the rotary frequencies where it takes them.
pub(super) fn entries(
    architecture: &Architecture,
    settings: &Map<String, Json>,
) -> Result<(Vec<Entry>, rope::Factors), String> {
    let name = architecture.name;
    let mut s = Settings { name, all: settings, out: Vec::new() };
    s.copy_size("vocab_size", "vocab_size")?;
    match name {
        "gptj" | "gpt2" => gpt(&mut s)?,
        "gptneox" => {
            s.sizes()?;
            s.copy_size("feed_forward_length", "intermediate_size")?;
            let rotated =
                (s.size("hidden_size")? / s.size("num_attention_heads")?.max(1)) as f64 * s.number("rotary_pct")?;
            let parallel = s.find("use_parallel_residual") != Some(&json!(false));
            s.copy_number("attention.layer_norm_epsilon", "layer_norm_eps")?;
            s.set("rope.dimension_count", Value::Whole(rotated as u64));
            s.copy_number("rope.freq_base", "rotary_emb_base")?;
            s.set("use_parallel_residual", Value::Flag(parallel));
            s.activation("hidden_act", "gelu");
        }
        "falcon" => falcon(&mut s)?,
        "mpt" => mpt(&mut s)?,
        _ => llama_like(&mut s)?,
    }
    if architecture.head == Head::Never {
        s.expect("tie_word_embeddings", &[json!(true)])?;
    }
    let mut factors = Vec::new();
    if let Some(scaling) = s.find("rope_scaling") {
        let dim = s.find("head_dim").and_then(Json::as_u64).map(|n| n as usize);
        let positions = s.size("max_position_embeddings")?;
        let (entries, tensors) = rope::entries(name, scaling, dim, s.find("rope_theta"), positions)?;
        s.out.extend(entries);
        factors = tensors;
    }
    Ok((s.out, factors))
}

fn gpt(s: &mut Settings) -> Result<(), String> {
    s.expect("scale_attn_weights", &[json!(true)])?;
    s.expect("scale_attn_by_inverse_layer_idx", &[json!(false)])?;
    let inner = s.find("n_inner").and_then(Json::as_u64);
    s.copy_size("context_length", "n_positions")?;
    s.copy_size("embedding_length", "n_embd")?;
    s.copy_size("block_count", "n_layer")?;
    let inner = inner.unwrap_or(4 * s.size("n_embd")?);
    s.set("feed_forward_length", Value::Whole(inner));
    s.copy_size("attention.head_count", "n_head")?;
    s.copy_number("attention.layer_norm_epsilon", "layer_norm_epsilon")?;
    if s.name == "gptj" {
        return s.copy_size("rope.dimension_count", "rotary_dim");
    }
    s.activation("activation_function", "gelu_new");
    Ok(())
}

fn falcon(s: &mut Settings) -> Result<(), String> {
    s.expect("alibi", &[json!(false)])?;
    s.expect("parallel_attn", &[json!(true)])?;
    s.expect("bias", &[json!(false)])?;
    let heads = s.size("num_attention_heads")?;
    let keys = match (s.flag("new_decoder_architecture"), s.flag("multi_query")) {
        (true, _) => s.find("num_kv_heads").and_then(Json::as_u64).unwrap_or(heads),
        (false, true) => 1,
        (false, false) => heads,
    };
    s.sizes()?;
    s.copy_size("feed_forward_length", "ffn_hidden_size")?;
    s.set("attention.head_count_kv", Value::Whole(keys));
    s.copy_number("attention.layer_norm_epsilon", "layer_norm_epsilon")?;
    s.copy_number("rope.freq_base", "rope_theta")?;
    s.activation("activation", "gelu");
    Ok(())
}

fn mpt(s: &mut Settings) -> Result<(), String> {
    s.refuse("softmax_scale")?;
    s.copy_size("context_length", "max_seq_len")?;
    s.copy_size("embedding_length", "d_model")?;
    s.copy_size("block_count", "n_layers")?;
    s.copy_size("attention.head_count", "n_heads")?;
    let inner = s.size("d_model")?.saturating_mul(4);
    s.set("feed_forward_length", Value::Whole(inner));
    s.copy_number("attention.layer_norm_epsilon", "layer_norm_epsilon")?;
    s.set("attention.max_alibi_bias", Value::Float(8.0));
    if s.find("clip_qkv").is_some() {
        s.copy_number("attention.clamp_kqv", "clip_qkv")?;
    }
    Ok(())
}

/// The families of [`super::families::llama_like`].
fn llama_like(s: &mut Settings) -> Result<(), String> {
    let name = s.name;
    let (layers, width, heads) = (s.size("num_hidden_layers")?, s.size("hidden_size")?, s.size("num_attention_heads")?);
    let (dim, share) = (s.size("head_dim")?, width / heads.max(1));
    s.sizes()?;
    s.copy_size("feed_forward_length", "intermediate_size")?;
    s.copy_size("attention.head_count_kv", "num_key_value_heads")?;
    let (eps_key, eps) = match name {
        "stablelm" => ("attention.layer_norm_epsilon", "layer_norm_eps"),
        "starcoder2" => ("attention.layer_norm_epsilon", "norm_epsilon"),
        _ => ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    };
    s.copy_number(eps_key, eps)?;
    // Of these llama.cpp takes the width over the heads, whatever a file says.
    if ["phi3", "olmo2", "stablelm", "granite", "starcoder2"].contains(&name) && dim != share {
        return Err(format!("head_dim is {dim}; a GGUF file of {name} can say {share}, the width over the heads"));
    }
    s.set("attention.key_length", Value::Whole(dim));
    s.set("attention.value_length", Value::Whole(dim));
    let part = s.find("partial_rotary_factor").and_then(Json::as_f64).unwrap_or(1.0);
    s.set("rope.dimension_count", Value::Whole((dim as f64 * part) as u64));
    s.copy_number("rope.freq_base", "rope_theta")?;
    let gelu = ["gemma", "gemma2", "gemma3", "starcoder2"].contains(&name);
    s.expect("hidden_act", &[json!(if gelu { "gelu_new" } else { "silu" })])?;
    s.expect("hidden_activation", &[json!("gelu_new")])?;
    // What llama.cpp has no tensors for, or not without.
    if !["llama", "qwen2"].contains(&name) {
        s.expect("attention_bias", &[json!(false)])?;
    }
    if ["smollm3"].contains(&name) {
        s.expect("mlp_bias", &[json!(false)])?;
    }
    match name {
        "gemma2" | "gemma3" => sandwich(s, layers, share, dim),
        "phi3" => {
            // 0 tells a model without a window from older files.
            let window = s.find("sliding_window").and_then(Json::as_u64).unwrap_or(0);
            let trained = s.find("rope_scaling").and_then(|scaling| scaling.get("original_max_position_embeddings"));
            let trained = trained.and_then(Json::as_u64).map_or_else(|| s.size("max_position_embeddings"), Ok)?;
            s.set("attention.sliding_window", Value::Whole(window));
            s.set("rope.scaling.original_context_length", Value::Whole(trained));
            Ok(())
        }
        "qwen3" => s.expect("use_sliding_window", &[json!(false)]),
        "smollm3" => {
            s.expect("use_sliding_window", &[json!(false)])?;
            match s.find("no_rope_layers").and_then(Json::as_array) {
                Some(list) => {
                    let usual =
                        list.iter().enumerate().all(|(layer, one)| (*one == json!(0)) == ((layer + 1) % 4 == 0));
                    if usual { Ok(()) } else { s.refuse("no_rope_layers") }
                }
                None => s.expect("no_rope_layer_interval", &[json!(4)]),
            }
        }
        "stablelm" => {
            let parallel = s.flag("use_parallel_residual");
            s.set("use_parallel_residual", Value::Flag(parallel));
            Ok(())
        }
        "granite" => {
            s.copy_number("attention.scale", "attention_multiplier")?;
            s.copy_number("embedding_scale", "embedding_multiplier")?;
            s.copy_number("residual_scale", "residual_multiplier")?;
            s.copy_number("logit_scale", "logits_scaling")
        }
        "starcoder2" => {
            s.expect("use_bias", &[json!(true)])?;
            s.refuse("sliding_window")
        }
        _ => s.refuse("sliding_window"),
    }
}

/// Gemma 2 and 3, of which llama.cpp knows the scale of the scores and the order of the windows itself.
fn sandwich(s: &mut Settings, layers: u64, share: u64, dim: u64) -> Result<(), String> {
    let (largest, every) = if s.name == "gemma2" { (46, 2) } else { (62, 6) };
    let scalar = if layers == largest { share } else { dim };
    if s.number("query_pre_attn_scalar")? != scalar as f64 {
        let scale = s.number("query_pre_attn_scalar")?;
        return Err(format!("query_pre_attn_scalar is {scale}; a GGUF file of {} can say {scalar}", s.name));
    }
    let slides = |layer: usize| !(layer as u64 + 1).is_multiple_of(every);
    let listed = s.find("layer_types").and_then(Json::as_array);
    let usual = match listed {
        Some(list) => list.iter().enumerate().all(|(layer, one)| (*one == json!("sliding_attention")) == slides(layer)),
        None => s.find("sliding_window_pattern").is_none_or(|found| *found == json!(every)),
    };
    let none = s.name == "gemma3"
        && match listed {
            Some(list) => list.iter().all(|one| *one == json!("full_attention")),
            None => s.find("sliding_window_pattern") == Some(&json!(1)),
        };
    match (none, usual) {
        (true, _) => {}
        (false, true) => s.copy_size("attention.sliding_window", "sliding_window")?,
        (false, false) => {
            s.refuse("layer_types")?;
            s.refuse("sliding_window_pattern")?;
        }
    }
    if s.name == "gemma3" {
        s.expect("rope_local_base_freq", &[json!(10_000.0)])?;
        if s.number("final_logit_softcapping")? == 0.0 {
            return Ok(());
        }
    } else {
        // llama.cpp divides by it.
        s.copy_number("attn_logit_softcapping", "attn_logit_softcapping")?;
    }
    if s.number("final_logit_softcapping")? == 0.0 {
        return Err(format!("final_logit_softcapping is 0, which a GGUF file of {} cannot say", s.name));
    }
    s.copy_number("final_logit_softcapping", "final_logit_softcapping")
}
