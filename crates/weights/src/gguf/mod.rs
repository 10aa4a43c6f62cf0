//! GGUF, llama.cpp's format: read as a checkpoint of the decoder it holds, and written from one.
//!
//! A file holds one decoder with its sizes and its tokenizer. Tensors are listed under the names that transformers gives
//! them, `config.json` and the tokenizer's files are made of the metadata, so that a component reads a GGUF file as it
//! reads a folder of `save_pretrained`. Tensors stay where they lie in the mapped file; those whose rows llama.cpp puts
//! in another order (queries and keys of `llama`, the fused matrix of `gptneox`) are copied, a row at a time, blocks
//! and all.

pub(super) mod coded;
mod config;
mod cursor;
mod header;
mod names;
mod tokenizer;
mod value;
mod write;

pub(super) use header::MAGIC;
pub(super) use names::{Architecture, Form};
pub use write::{DecoderDocuments, write};

use super::checkpoint::Contents;
use super::stored::{Element, Shuffled, Storage, StoredTensor};
use header::{Header, Info};
use limber_core::weights::SharedBytes;
use names::ARCHITECTURES;
use std::sync::Arc;

/// What stands behind the name of a matrix that is stored `[n_out, n_in]` where its component reads `[n_in, n_out]`.
pub(super) const TRANSPOSED: &str = limber_core::weights::TRANSPOSED;

/// The tensors of a file, and the texts that its metadata stands for.
///
/// # Errors
/// A file that is cut short or hostile, an architecture or a setting that no decoder here has.
pub(super) fn read(bytes: SharedBytes) -> Result<Contents, String> {
    let header = Header::read((*bytes).as_ref())?;
    if let Some(count) = header.metadata.get("split.count").and_then(|v| v.whole()).filter(|n| *n > 1) {
        return Err(format!(
            "one of {count} files of a split GGUF; merge them with llama.cpp's `llama-gguf-split --merge`"
        ));
    }
    let name = header.metadata.get("general.architecture").and_then(|v| v.text());
    let name = name.ok_or("a GGUF file without general.architecture")?;
    let architecture = Architecture::named(name).ok_or_else(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name).collect();
        format!("a GGUF file of the architecture {name:?}; known are {}", known.join(", "))
    })?;
    let mut config = config::describe(architecture, &header)?;
    if let Some(info) = header.tensors.get(config::FREQUENCIES) {
        let values = stored(&bytes, info, None)?.numbers()?.ok_or("rope_freqs.weight holds no numbers")?;
        config::complete(&mut config, &values)?;
    }
    let heads = |key: &str| config.get(key).and_then(|v| v.as_u64()).unwrap_or(0) as usize;
    let (queries, keys) = (heads("num_attention_heads"), heads("num_key_value_heads"));
    let mut contents = Contents::default();
    // Frequencies are made of the settings again.
    for (theirs, info) in header.tensors.iter().filter(|(name, _)| *name != config::FREQUENCIES) {
        let (own, form) = architecture
            .checkpoint_name(theirs)
            .ok_or_else(|| format!("tensor {theirs:?} is none that {name} has, so something would be left out"))?;
        let heads = if form == Form::Keys { keys } else { queries };
        // A tensor without numbers may claim any number of rows.
        let rows = info.shape.first().copied().filter(|_| !info.window.is_empty());
        let stored = stored(&bytes, info, rows.and_then(|rows| names::order(form, rows, heads)))?;
        let own = if form == Form::Transposed && own.ends_with("weight") { format!("{own}{TRANSPOSED}") } else { own };
        contents.tensors.insert(own, stored);
    }
    let tokenizer = tokenizer::documents(bytes.clone());
    let config = serde_json::Value::Object(config).to_string();
    contents.documents = Some(Arc::new(move |wanted: &str| match wanted {
        "config.json" => Some(config.clone()),
        other => tokenizer(other),
    }));
    Ok(contents)
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
