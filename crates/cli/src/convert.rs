//! `limber convert IN --out F`: any readable checkpoint to one file in the format that its name ends in, or to a folder with
//! the documents that lie beside its weights.

use super::options::Network;
use super::output;
use super::progress::Progress;
use anyhow::{Context, Result, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use limber_core::WeightType;
use limber_pipeline::convert::{has_documents, is_quantised, to_folder, to_gguf};
use limber_pipeline::needs;
use limber_weights::{Container, Conversion, ConvertOptions, ConvertSummary, WeightSpec, convert, open_checkpoint};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Checkpoint: a file, a folder or hf:owner/name
    #[arg(value_name = "IN")]
    input: String,
    /// File to write, in the format that its name ends in: .safetensors, .gguf (a decoder), .pt, .pth, .ckpt or .bin
    /// (PyTorch); without an ending a folder with config and tokenizer. It appears once it is complete
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// Format of the file, whatever its name ends in
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Option<Format>,
    /// Type to convert floats to; q8_0 and q4_k apply to matrices only [default: as stored]
    #[arg(long, value_parser = dtype_parser(), value_name = "TYPE")]
    dtype: Option<String>,
    #[command(flatten)]
    network: Network,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

/// Formats that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One safetensors file
    Safetensors,
    /// A PyTorch state dict with the same tensor names, as the original's proj.ckpt
    Torch,
    /// A decoder with its config.json and tokenizer, for llama.cpp
    Gguf,
}

/// What writes a format.
type Write = fn(Conversion<'_>, &Path) -> anyhow::Result<ConvertSummary>;

fn dtype_parser() -> PossibleValuesParser {
    PossibleValuesParser::new(WeightType::ALL.map(WeightType::name))
}

/// The format that a name ends in; None for a folder, whose name may have a version behind a dot.
fn format_of(out: &Path) -> Result<Option<Format>> {
    let is_folder = out.is_dir() || out.as_os_str().as_encoded_bytes().ends_with(b"/");
    let Some(ending) = out.extension().filter(|_| !is_folder) else { return Ok(None) };
    let ending = ending.to_string_lossy().to_ascii_lowercase();
    Ok(match ending.as_str() {
        "safetensors" => Some(Format::Safetensors),
        "gguf" => Some(Format::Gguf),
        "pt" | "pth" | "ckpt" | "bin" => Some(Format::Torch),
        _ if ending.starts_with(|c: char| c.is_ascii_digit()) => None,
        _ => bail!(
            "--out {}: the ending .{ending} is not known, expected .safetensors, .gguf, .pt, .pth, .ckpt or .bin, or none for a \
             folder; --to names the format of any other",
            out.display()
        ),
    })
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let spec: WeightSpec = arguments.input.parse()?;
    if spec.is_remote() {
        arguments.network.ensure(&[needs::of_spec(spec.clone())])?;
    }
    let checkpoint = open_checkpoint(&spec, &needs::known_files(), Path::new("."))?;
    // None is a folder.
    let format = match arguments.to {
        Some(format) => Some(format),
        None => format_of(&arguments.out)?,
    };
    let options = ConvertOptions {
        dtype: arguments.dtype.as_deref().and_then(WeightType::named),
        to: if format == Some(Format::Torch) { Container::Torch } else { Container::Safetensors },
        ..ConvertOptions::default()
    };
    let mut progress: Option<Progress> = None;
    let (write, tied) = match format {
        None => (to_folder as Write, "it is written again"),
        Some(Format::Safetensors | Format::Torch) => (convert as Write, "it is written again"),
        Some(Format::Gguf) => (to_gguf as Write, "it is written once"),
    };
    if format.is_none() && is_quantised(&checkpoint, &options) && has_documents(&checkpoint)? {
        output::note(
            "transformers reads no quantised tensors: the folder is for limber alone; --dtype f16 writes one for both",
        );
    }
    let is_bare = matches!(format, Some(Format::Safetensors | Format::Torch)) && has_documents(&checkpoint)?;
    let conversion = Conversion {
        checkpoint: &checkpoint,
        options,
        progress: &mut |step| progress.get_or_insert_with(|| Progress::new(step.total, "bytes")).at(step.done),
    };
    let summary = write(conversion, &arguments.out).with_context(|| format!("cannot convert {}", arguments.input))?;
    if let Some(progress) = progress {
        progress.finish();
    }
    for (name, earlier) in &summary.tied {
        output::note(&format!("{name} shares its bytes with {earlier}; {tied}"));
    }
    for name in &summary.skipped {
        output::note(&format!("{name} cannot stand in such a file; it is left out"));
    }
    if is_bare {
        output::note("the file holds tensors alone; --out without an ending writes a folder with config and tokenizer");
    }
    if format == Some(Format::Torch)
        && checkpoint.metadata().is_some_and(|m| m.keys().any(|key| key.starts_with("limber.")))
    {
        output::note(
            "a state dict cannot hold what the stitch says of its encoder, so that any encoder of its widths takes it",
        );
    }
    if arguments.json {
        return output::json(&json!({
            "out": arguments.out,
            "tensors": summary.tensors,
            "bytes": summary.bytes,
            "tied": summary.tied,
            "skipped": summary.skipped,
        }));
    }
    output::line(&format!("{}: {} tensors, {} bytes", arguments.out.display(), summary.tensors, summary.bytes))
}
