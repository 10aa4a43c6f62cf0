//! GGUF, llama.cpp's format: read as a checkpoint of the decoder it holds, and written from one.
//!
//! A file holds one decoder with its sizes and its tokenizer. Tensors are listed under the names that transformers gives
//! them, `config.json` and the tokenizer's files are made of the metadata, so that a component reads a GGUF file as it
//! reads a folder of `save_pretrained`. Tensors stay where they lie in the mapped file; those whose rows llama.cpp puts
//! in another order (queries and keys of `llama`, the fused matrix of `gptneox` and `falcon`) are copied, a row at a time,
//! blocks and all.
//! A model may be split into several files, of which the first holds the metadata.

mod architectures;
mod config;
mod cursor;
mod entries;
mod families;
mod header;
mod keys;
mod names;
mod rope;
mod split;
mod tokenizer;
mod value;
mod write;

pub(super) use header::MAGIC;
use names::Head;
pub(super) use names::{Architecture, Form};
pub(super) use split::siblings;
pub use write::{DecoderDocuments, write};

use super::checkpoint::Contents;
use super::stored::{Element, Shuffled, Storage, StoredTensor};
use architectures::ARCHITECTURES;
use header::{Header, Info};
use limber_core::weights::SharedBytes;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What stands behind the name of a matrix that is stored `[n_out, n_in]` where its component reads `[n_in, n_out]`.
pub(super) const TRANSPOSED: &str = limber_core::weights::TRANSPOSED;

/// Biases that a layer may lack while its others are there.
const BIASES: [(&str, &[&str]); 4] = [
    ("attention_bias", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]),
    ("mlp_bias", &["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]),
    ("use_qkv_bias", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    (
        "use_bias",
        &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.c_fc", "mlp.c_proj"],
    ),
];

/// The tensors of a model, in one file or in all files of a split one, and the texts that its metadata stands for.
///
/// # Errors
/// A file that is cut short or hostile, an architecture or a setting that no decoder here has.
pub(super) fn read(files: &[SharedBytes]) -> Result<Contents, String> {
    let headers = files.iter().map(|bytes| Header::read((**bytes).as_ref())).collect::<Result<Vec<_>, _>>()?;
    split::check(&headers)?;
    let (Some(header), Some(first)) = (headers.first(), files.first()) else { return Err("no file".into()) };
    let name = header.metadata.get("general.architecture").and_then(|v| v.text());
    let name = name.ok_or("a GGUF file without general.architecture")?;
    let architecture = Architecture::named(name).ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name).collect();
        format!("a GGUF file of the architecture {name:?}; known are {}", known.join(", "))
    })?;
    let mut tensors: BTreeMap<&str, (&SharedBytes, &Info)> = BTreeMap::new();
    for (bytes, header) in files.iter().zip(&headers) {
        for (name, info) in &header.tensors {
            if tensors.insert(name, (bytes, info)).is_some() {
                return Err(format!("tensor {name:?} stands in two of the files"));
            }
        }
    }
    // A head that llama.cpp asks for although it is the word embeddings once more.
    let [words, head] = [names::WORDS, names::HEAD].map(|name| tensors.get(name));
    if let (Head::Required, Some((a, words)), Some((b, head))) = (architecture.head, words, head)
        && (words.kind, &words.shape) == (head.kind, &head.shape)
        && (***a).as_ref().get(words.window.clone()) == (***b).as_ref().get(head.window.clone())
    {
        tensors.remove(names::HEAD);
    }
    let shapes = tensors.iter().map(|(name, (_, info))| (*name, info.shape.as_slice())).collect();
    keys::check(name, header, &shapes)?;
    let mut config = config::describe(architecture, header, &shapes)?;
    let numbers = |name: &str| match tensors.get(name) {
        None => Ok(None),
        Some((bytes, info)) => match stored(bytes, info, None)?.numbers()? {
            None => Err(format!("tensor {name:?} holds no numbers")),
            numbers => Ok(numbers),
        },
    };
    if let Some(values) = numbers(rope::FREQUENCIES)? {
        rope::complete(&mut config, &values)?;
    }
    if let (Some(short), Some(long)) = (numbers(rope::SHORT)?, numbers(rope::LONG)?) {
        let sharper = header.metadata.get(format!("{name}.rope.scaling.attn_factor").as_str());
        rope::list(&mut config, sharper.and_then(|v| v.number()), &short, &long)?;
    }
    let heads = heads(&config);
    let two = tensors.contains_key("blk.0.attn_norm_2.weight");
    let mut contents = Contents::default();
    // Frequencies are made of the settings again.
    let factors = [rope::FREQUENCIES, rope::SHORT, rope::LONG];
    for (theirs, (bytes, info)) in tensors.iter().filter(|(name, _)| !factors.contains(name)) {
        let (own, form) = architecture
            .checkpoint_name(theirs)
            .ok_or_else(|| format!("tensor {theirs:?} is none that {name} has, so something would be left out"))?;
        // Falcon's norm of attention and MLP is the MLP's alone where attention has another.
        let own = if two { own.replace(".input_layernorm.", ".ln_mlp.") } else { own };
        // A tensor without numbers may claim any number of rows.
        let rows = info.shape.first().copied().filter(|_| !info.window.is_empty());
        let stored = stored(bytes, info, rows.and_then(|rows| names::order(form, rows, heads)))?;
        match form {
            Form::Transposed if own.ends_with("weight") => {
                contents.tensors.insert(format!("{own}{TRANSPOSED}"), stored);
            }
            Form::Gain => {
                let gains = stored.numbers()?.ok_or_else(|| format!("tensor {theirs:?} holds no numbers"))?;
                let weights: Vec<f32> = gains.iter().map(|gain| gain - 1.0).collect();
                contents.tensors.insert(own, StoredTensor { shape: stored.shape, ..StoredTensor::vector(&weights) });
            }
            Form::PerHead => {
                let gains = stored.numbers()?.ok_or_else(|| format!("tensor {theirs:?} holds no numbers"))?;
                let [_, dim] = *stored.shape.as_slice() else {
                    return Err(format!("tensor {theirs:?} has the shape {:?}, expected one row a head", stored.shape));
                };
                let (before, end) = own.rsplit_once('.').unwrap_or((&own, "weight"));
                for (head, gains) in gains.chunks(dim.max(1)).enumerate() {
                    let name = format!("{before}.norms.{head}.{end}");
                    contents.tensors.insert(name, StoredTensor::vector(gains));
                }
            }
            _ => drop(contents.tensors.insert(own, stored)),
        }
    }
    complete_biases(&mut contents, &config, architecture.layer);
    let tokenizer = tokenizer::documents(first.clone());
    let config = serde_json::Value::Object(config).to_string();
    contents.documents = Some(Arc::new(move |wanted: &str| match wanted {
        "config.json" => Ok(Some(config.clone())),
        other => tokenizer(other),
    }));
    Ok(contents)
}

/// Heads of queries and of keys, as many of these as of those where a file has no number of its own.
fn heads(config: &serde_json::Map<String, serde_json::Value>) -> [usize; 2] {
    let heads = |key: &str| config.get(key).and_then(serde_json::Value::as_u64).map(|n| n as usize);
    let queries = heads("num_attention_heads").unwrap_or(0);
    [queries, heads("num_key_value_heads").or(heads("num_kv_heads")).unwrap_or(queries)]
}

/// Zeros for the biases that a file leaves out beside others of their kind: llama.cpp adds whichever is there.
fn complete_biases(contents: &mut Contents, config: &serde_json::Map<String, serde_json::Value>, layer: &str) {
    for (key, names) in BIASES {
        if config.get(key) != Some(&serde_json::Value::Bool(true)) {
            continue;
        }
        let weights = contents.tensors.iter().filter_map(|(name, tensor)| {
            let (number, own) = name.strip_prefix(layer)?.strip_suffix(".weight")?.split_once('.')?;
            names.contains(&own).then(|| (format!("{layer}{number}.{own}.bias"), tensor.shape.first().copied()))
        });
        for (bias, rows) in weights.collect::<Vec<_>>() {
            contents.tensors.entry(bias).or_insert_with(|| StoredTensor::zeros(rows.unwrap_or(0)));
        }
    }
}

/// A tensor where it lies, its rows in `order` where that is given.
fn stored(bytes: &SharedBytes, info: &Info, order: Option<Vec<u32>>) -> Result<StoredTensor, String> {
    let element = Element::named(info.kind.1).ok_or_else(|| format!("type {} is not known", info.kind.1))?;
    let (window, storage) = match order {
        None => (info.window.clone(), Storage::Plain(bytes.clone())),
        Some(order) => {
            let shuffled = Shuffled { bytes: bytes.clone(), window: info.window.clone(), order };
            (0..info.window.len(), Storage::Shuffled(Arc::new(shuffled)))
        }
    };
    Ok(StoredTensor { element, shape: info.shape.clone(), strides: None, window, swapped: false, storage })
}
