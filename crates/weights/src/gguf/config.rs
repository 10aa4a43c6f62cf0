//! The sizes of a decoder: a file's metadata to `config.json` as transformers writes it.

use super::families;
use super::header::Header;
use super::names::{Architecture, HEAD, WORDS};
use super::rope;
use super::tokenizer::Vocabulary;
use super::value::Value;
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;

/// Our own entry: an activation other than the architecture's usual one.
pub(super) const ACTIVATION: &str = "limber.hidden_act";

/// What a file says of its decoder beside the numbers.
pub(super) struct File<'a> {
    /// The name of its architecture, under which the entries stand.
    pub name: &'a str,
    /// Its metadata.
    pub header: &'a Header<'a>,
    /// The shapes of all tensors, in all of its parts.
    pub shapes: &'a BTreeMap<&'a str, &'a [usize]>,
}

impl<'a> File<'a> {
    /// An entry of the architecture.
    pub fn entry(&self, key: &str) -> Option<&'a Value<'a>> {
        self.header.metadata.get(format!("{}.{key}", self.name).as_str())
    }

    /// A size that it cannot do without.
    pub fn size(&self, key: &str) -> Result<u64, String> {
        self.entry(key).and_then(Value::whole).ok_or_else(|| self.missing(key))
    }

    /// A number that it cannot do without.
    pub fn number(&self, key: &str) -> Result<f64, String> {
        self.found(key).ok_or_else(|| self.missing(key))
    }

    /// A number that it may lack.
    pub fn found(&self, key: &str) -> Option<f64> {
        self.entry(key).and_then(Value::number)
    }

    fn missing(&self, key: &str) -> String {
        format!("metadata entry {}.{key} is missing or no number", self.name)
    }

    /// That an entry has a value which no decoder here computes with.
    pub fn unsupported(&self, key: &str, supported: &str) -> String {
        let value = self.entry(key).map_or("missing".to_string(), |value| format!("{value:?}"));
        format!("metadata entry {}.{key} is {value}, supported is {supported}", self.name)
    }

    /// Whether it has a tensor.
    pub fn has(&self, tensor: &str) -> bool {
        self.shapes.contains_key(tensor)
    }

    /// Whether any layer has a bias of one of these: llama.cpp asks each of its own.
    pub fn biased(&self, stems: &[&str]) -> bool {
        let biased = |name: &str| stems.iter().any(|stem| name.ends_with(&format!(".{stem}.bias")));
        self.shapes.keys().any(|name| name.starts_with("blk.") && biased(name))
    }
}

/// A file's settings in the names of transformers; `shapes` are those of all tensors.
pub(super) fn describe(
    architecture: &Architecture,
    header: &Header,
    shapes: &BTreeMap<&str, &[usize]>,
) -> Result<Map<String, Json>, String> {
    let file = File { name: architecture.name, header, shapes };
    let vocab = shapes.get(WORDS).and_then(|shape| shape.first().copied());
    let vocab = vocab.ok_or_else(|| format!("a GGUF file without {WORDS}"))?;
    let (width, heads) = (file.size("embedding_length")?, file.size("attention.head_count")?);
    if heads == 0 || !width.is_multiple_of(heads) {
        return Err(format!("{} heads for a width of {width}", heads));
    }
    let share = width / heads;
    let mut out = Map::new();
    let mut set = |key: &str, value: Json| drop(out.insert(key.into(), value));
    set("model_type", json!(architecture.model_types[0]));
    set("vocab_size", json!(vocab));
    set("tie_word_embeddings", json!(!file.has(HEAD)));
    let ends = match Vocabulary::read(header) {
        Some(vocabulary) => vocabulary.ends(),
        None => ends(header),
    };
    set("eos_token_id", if ends.is_empty() { Json::Null } else { json!(ends) });
    if file.has("blk.0.ffn_gate_inp.weight") {
        return Err("a mixture of experts, which no decoder here is".into());
    }
    let activation = header.metadata.get(ACTIVATION).and_then(Value::text);
    let theta = file.found("rope.freq_base").unwrap_or(10_000.0);
    match architecture.name {
        "gptj" | "gpt2" => {
            set("n_positions", json!(file.size("context_length")?));
            set("n_embd", json!(width));
            set("n_layer", json!(file.size("block_count")?));
            set("n_head", json!(heads));
            set("n_inner", json!(file.size("feed_forward_length")?));
            set("layer_norm_epsilon", json!(file.number("attention.layer_norm_epsilon")?));
            if architecture.name == "gptj" {
                set("rotary_dim", json!(file.size("rope.dimension_count")?));
            } else {
                set("activation_function", json!(activation.unwrap_or("gelu_new")));
            }
        }
        "gptneox" => {
            let rotated = file.entry("rope.dimension_count").and_then(Value::whole).unwrap_or(share);
            let parallel = !matches!(file.entry("use_parallel_residual"), Some(Value::Flag(false)));
            set("max_position_embeddings", json!(file.size("context_length")?));
            set("hidden_size", json!(width));
            set("num_hidden_layers", json!(file.size("block_count")?));
            set("num_attention_heads", json!(heads));
            set("intermediate_size", json!(file.size("feed_forward_length")?));
            set("layer_norm_eps", json!(file.number("attention.layer_norm_epsilon")?));
            set("rotary_pct", json!(rotated as f64 / share as f64));
            set("rotary_emb_base", json!(theta));
            set("use_parallel_residual", json!(parallel));
            set("attention_bias", json!(file.has("blk.0.attn_qkv.bias")));
            set("hidden_act", json!(activation.unwrap_or("gelu")));
        }
        "falcon" => families::falcon(&file, activation, theta, &mut set)?,
        "mpt" => families::mpt(&file, &mut set)?,
        _ => families::llama_like(&file, share, activation, theta, &mut set)?,
    }
    families::known_biases(&file)?;
    if !["gptj", "gpt2", "mpt"].contains(&architecture.name)
        && let Some(scaling) = rope::scaling(&file)?
    {
        out.insert("rope_scaling".into(), scaling);
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
