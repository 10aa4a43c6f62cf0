//! A checkpoint of a decoder to one GGUF file that llama.cpp's tools and this program read.
//!
//! Norms, biases and learned positions are f32, as llama.cpp keeps them; matrices keep their type or take the one asked
//! for, as far as their rows are whole blocks.

use super::architectures::ARCHITECTURES;
use super::entries::{Entry, entries};
use super::header::{ALIGNMENT, KINDS, MAGIC};
use super::names::{Architecture, Form, HEAD, Head, WORDS, order};
use super::value::{Value, write_text};
use super::{TRANSPOSED, heads, tokenizer};
use crate::checkpoint::Checkpoint;
use crate::convert::{Conversion, ConvertProgress, ConvertSummary, write_one};
use crate::stored::{Shuffled, Storage, StoredTensor};
use crate::write::fill;
use anyhow::{Context, Result, anyhow, bail};
use limber_core::WeightType;
use limber_core::weights::WeightSource;
use serde_json::{Map, Value as Json};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

/// Buffers that older checkpoints carry and nothing reads: causal masks and rotary frequencies.
const BUFFERS: [&str; 5] =
    [".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".inv_freq"];
/// Numbers of `general.file_type` by the name of the type.
const FILE_TYPES: [(&str, u64); 25] = [
    ("f32", 0),
    ("f16", 1),
    ("q4_0", 2),
    ("q4_1", 3),
    ("q8_0", 7),
    ("q5_0", 8),
    ("q5_1", 9),
    ("q2_k", 10),
    ("q3_k", 12),
    ("q4_k", 14),
    ("q5_k", 16),
    ("q6_k", 18),
    ("iq2_xxs", 19),
    ("iq2_xs", 20),
    ("iq3_xxs", 23),
    ("iq1_s", 24),
    ("iq4_nl", 25),
    ("iq3_s", 26),
    ("iq2_s", 28),
    ("iq4_xs", 30),
    ("iq1_m", 31),
    ("bf16", 32),
    ("tq1_0", 36),
    ("tq2_0", 37),
    ("mxfp4", 38),
];

/// One tensor to be written.
#[derive(Clone)]
struct Planned<'a> {
    name: String,
    /// What a message calls it.
    own: &'a str,
    tensor: StoredTensor,
    dtype: WeightType,
    bytes: usize,
}

/// What a GGUF file says of a decoder beside its tensors.
#[derive(Debug, Clone)]
pub struct DecoderDocuments {
    /// Resolved settings, under the names of transformers' `config.json`.
    pub settings: Map<String, Json>,
    /// The whole `tokenizer.json`, where there is a tokenizer.
    pub tokenizer: Option<String>,
}

/// Writes a decoder's checkpoint to the GGUF file `to`, which appears when it is complete.
///
/// # Errors
/// A decoder that has no architecture in GGUF; a setting or a tensor that the format cannot say; a disk that cannot be
/// written.
pub fn write(conversion: Conversion<'_>, documents: &DecoderDocuments, to: &Path) -> Result<ConvertSummary> {
    let Conversion { checkpoint, options, progress } = conversion;
    let architecture = architecture(checkpoint)?;
    let settings = &documents.settings;
    let mut summary = ConvertSummary::default();
    let (entries, factors) = entries(architecture, settings).map_err(|e| anyhow!("{}: {e}", checkpoint.label()))?;
    let tied = settings.get("tie_word_embeddings").and_then(Json::as_bool).unwrap_or(false);
    let mut planned = Vec::new();
    for (own, tensor) in checkpoint.stored() {
        if BUFFERS.iter().any(|end| own.ends_with(end)) {
            summary.skipped.push(own.clone());
            continue;
        }
        let plain = own.strip_suffix(TRANSPOSED);
        let Some((name, form)) = architecture.file_name(plain.unwrap_or(own)) else {
            bail!("{}: tensor {own:?} has no name in a GGUF file of {}", checkpoint.label(), architecture.name)
        };
        // A tied head is the word table once more.
        if tied && name == HEAD {
            summary.tied.push((own.clone(), WORDS.into()));
            continue;
        }
        let label = || format!("{}: tensor {own:?}", checkpoint.label());
        // Stacked with those of the other heads.
        if form == Form::PerHead {
            if own.ends_with(".norms.0.weight") {
                let stacked = stacked(checkpoint, own).with_context(label)?;
                planned.push(plan(name, own, stacked, Some(WeightType::F32)).with_context(label)?);
            }
            continue;
        }
        let form = if plain.is_some() { Form::Plain } else { form };
        let tensor = arranged(tensor, form, settings).with_context(label)?;
        planned.push(plan(name, own, tensor, options.dtype).with_context(label)?);
    }
    for (name, values) in &factors {
        planned.push(plan(name.to_string(), name, StoredTensor::vector(values), None)?);
    }
    if tied && !planned.iter().any(|p| p.name == WORDS) {
        bail!("{}: the word embeddings are under the head's name alone; save the checkpoint again", checkpoint.label())
    }
    if tied && architecture.head == Head::Required {
        let words = planned.iter().find(|p| p.name == WORDS).cloned();
        planned.extend(words.map(|words| Planned { name: HEAD.into(), ..words }));
    }
    let mut entries: Vec<Entry> = general(architecture, &planned).into_iter().chain(entries).collect();
    entries.extend(tokens(checkpoint, documents)?);
    summary.tensors = planned.len();
    summary.bytes = planned.iter().map(|p| p.bytes as u64).sum();
    fill(to, |file| {
        let head = header(&entries, &planned)?;
        file.write_all(&head)?;
        let mut done = 0;
        for part in &planned {
            let label = || format!("{}: tensor {:?}", checkpoint.label(), part.own);
            let target = (part.tensor.element.weight_type() != Some(part.dtype)).then_some(part.dtype);
            write_one(file, &part.tensor, target, part.bytes).with_context(label)?;
            file.write_all(&[0; ALIGNMENT][..part.bytes.next_multiple_of(ALIGNMENT) - part.bytes])?;
            done += part.bytes as u64;
            progress(ConvertProgress { tensor: part.own, done, total: summary.bytes });
        }
        Ok(())
    })?;
    Ok(summary)
}

/// The architecture of the decoder whose weights these are.
fn architecture(checkpoint: &Checkpoint) -> Result<&'static Architecture> {
    let text = checkpoint.document("config.json")?.context("no config.json beside the weights")?;
    let config = limber_core::json::parse(&text)?;
    let model = config["model_type"].as_str();
    model.and_then(Architecture::of).with_context(|| {
        let known: Vec<&str> = ARCHITECTURES.iter().map(|a| a.name).collect();
        format!(
            "{}: the decoder {} has no architecture in GGUF that is written here, those are {}",
            checkpoint.label(),
            model.unwrap_or("without a model_type"),
            known.join(", ")
        )
    })
}

/// A tensor as the file has it: transposed, or with its rows in the file's order.
fn arranged(tensor: &StoredTensor, form: Form, settings: &Map<String, Json>) -> Result<StoredTensor> {
    let mut out = tensor.clone();
    match form {
        Form::Plain | Form::PerHead => {}
        Form::Gain => {
            let weights = tensor.numbers().map_err(|e| anyhow!(e))?.context("it holds no numbers")?;
            let gains: Vec<f32> = weights.iter().map(|weight| weight + 1.0).collect();
            out = StoredTensor { shape: tensor.shape.clone(), ..StoredTensor::vector(&gains) };
        }
        Form::Transposed => {
            if tensor.shape.len() == 2 {
                out = tensor.transposed().map_err(|e| anyhow!(e))?;
            }
        }
        Form::Queries | Form::Keys | Form::Grouped => {
            let [queries, keys] = heads(settings);
            // Falcon's older form has one key head, or as many as queries.
            let keys = match settings.get("new_decoder_architecture").and_then(Json::as_bool) {
                Some(false) if settings.get("multi_query") == Some(&Json::Bool(true)) => 1,
                Some(false) => queries,
                _ => keys,
            };
            let rows = tensor.shape.first().copied().unwrap_or(0);
            let order = order(form, rows, [queries, keys])
                .with_context(|| format!("{rows} rows are not those of its heads"))?;
            let mut inverse = vec![0u32; rows];
            for (own, theirs) in order.iter().enumerate() {
                inverse[*theirs as usize] = own as u32;
            }
            let (bytes, window) = tensor.contiguous().map_err(|e| anyhow!(e))?;
            out.window = 0..window.len();
            (out.strides, out.swapped) = (None, false);
            out.storage = Storage::Shuffled(Arc::new(Shuffled { bytes, window, order: inverse }));
        }
    }
    Ok(out)
}

/// The norms of all heads, of which `first` is the first's name, as one matrix.
fn stacked(checkpoint: &Checkpoint, first: &str) -> Result<StoredTensor> {
    let (before, end) = first.split_once(".norms.0.").context("it is no norm of a head")?;
    let (mut gains, mut heads) = (Vec::new(), 0);
    while let Some(norm) = checkpoint.stored().get(&format!("{before}.norms.{heads}.{end}")) {
        gains.extend(norm.numbers().map_err(|e| anyhow!(e))?.context("it holds no numbers")?);
        heads += 1;
    }
    Ok(StoredTensor { shape: vec![heads, gains.len() / heads.max(1)], ..StoredTensor::vector(&gains) })
}

fn plan(name: String, own: &str, tensor: StoredTensor, dtype: Option<WeightType>) -> Result<Planned<'_>> {
    let stored = tensor.element.weight_type();
    let is_float = stored.is_some() || tensor.element.name() == "F64";
    if !is_float {
        bail!("its type is {}, which is none of weights", tensor.element.name())
    }
    let small = tensor.shape.len() != 2 || name.starts_with("position_embd");
    let dtype = match small {
        true => WeightType::F32,
        false => dtype.or(stored).unwrap_or(WeightType::F32).fitting(&tensor.shape),
    };
    let bytes = dtype.bytes(&tensor.shape).context("it is too large")?;
    Ok(Planned { name, own, tensor, dtype, bytes })
}

/// What every file begins with.
fn general(architecture: &Architecture, planned: &[Planned]) -> Vec<Entry> {
    let mut out = vec![
        ("general.architecture".to_string(), Value::Text(architecture.name.into())),
        ("general.type".to_string(), Value::Text("model".into())),
    ];
    // The type of most bytes.
    let weigh = |name: &str| planned.iter().filter(|p| p.dtype.name() == name).map(|p| p.bytes).sum::<usize>();
    if let Some((_, number)) = FILE_TYPES.into_iter().max_by_key(|(name, _)| weigh(name)) {
        out.push(("general.file_type".into(), Value::Whole(number)));
    }
    if planned.iter().any(|p| p.dtype.is_quantised()) {
        out.push(("general.quantization_version".into(), Value::Whole(2)));
    }
    out
}

/// The tokenizer beside the weights, where there is one, and the end of text.
fn tokens(checkpoint: &Checkpoint, documents: &DecoderDocuments) -> Result<Vec<Entry>> {
    let DecoderDocuments { settings, tokenizer } = documents;
    let vocab = settings.get("vocab_size").and_then(Json::as_u64).unwrap_or(0) as usize;
    let mut out = match tokenizer {
        Some(text) => tokenizer::entries(text, vocab).map_err(|e| anyhow!("{}: {e}", checkpoint.label()))?,
        // llama.cpp opens such a file too, for ids alone.
        None => vec![("tokenizer.ggml.model".to_string(), Value::Text("none".into()))],
    };
    let eos = settings.get("eos_token_id");
    let ids: Vec<u64> = match eos {
        Some(Json::Array(ids)) => ids.iter().filter_map(Json::as_u64).collect(),
        other => other.and_then(Json::as_u64).into_iter().collect(),
    };
    // The format has three places for ids that end a text; llama.cpp tells others by their names.
    for (name, id) in ["eos", "eot", "eom"].iter().zip(&ids) {
        out.push((format!("tokenizer.ggml.{name}_token_id"), Value::Whole(*id)));
    }
    if let Some(id) = ids.get(3) {
        bail!("{}: {} ids end a text, a GGUF file says three of them and not {id}", checkpoint.label(), ids.len())
    }
    Ok(out)
}

/// Everything before the data, padded.
fn header(entries: &[Entry], planned: &[Planned]) -> Result<Vec<u8>> {
    let mut out = MAGIC.to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((planned.len() as u64).to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        write_text(&mut out, key);
        value.write(&mut out).map_err(|e| anyhow!("the entry {key:?} of a GGUF file: {e}"))?;
    }
    let mut offset = 0u64;
    for part in planned {
        write_text(&mut out, &part.name);
        out.extend((part.tensor.shape.len() as u32).to_le_bytes());
        part.tensor.shape.iter().rev().for_each(|d| out.extend((*d as u64).to_le_bytes()));
        let name = part.dtype.name().to_uppercase();
        let number = KINDS.iter().find(|k| k.1 == name).map(|k| k.0);
        out.extend(number.with_context(|| format!("{name} is no type of GGUF"))?.to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += part.bytes.next_multiple_of(ALIGNMENT) as u64;
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_beyond_32_bits_is_not_cut() {
        let entry = |n: u64| [("gptj.context_length".to_string(), Value::Whole(n))];
        assert!(header(&entry(u32::MAX.into()), &[]).is_ok());
        let message = header(&entry(1 << 32), &[]).unwrap_err().to_string();
        assert_eq!(
            message,
            "the entry \"gptj.context_length\" of a GGUF file: 4294967296 is too large, expected at most 4294967295"
        );
    }
}
