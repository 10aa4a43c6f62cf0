//! `limber convert IN --out F`: any readable checkpoint to one safetensors file, or one of PyTorch's, a decoder to one GGUF
//! file or to a folder as transformers saves it.

use super::options::Network;
use super::output;
use super::progress::Progress;
use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};
use limber_core::WeightType;
use limber_pipeline::convert::{to_folder, to_gguf};
use limber_pipeline::needs;
use limber_weights::{
    Checkpoint, Container, ConvertOptions, ConvertProgress, ConvertSummary, WeightSpec, convert, open_checkpoint,
};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Checkpoint: a file, a folder or hf:owner/name
    #[arg(value_name = "IN")]
    input: String,
    /// File to write, which appears once it is complete; for a decoder also a folder (a path that ends in / or is one),
    /// in transformers' layout
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Format of the file [default: gguf for a name that ends in .gguf, else safetensors]
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
type Write = fn(&Checkpoint, &Path, &ConvertOptions, &mut dyn FnMut(ConvertProgress)) -> anyhow::Result<ConvertSummary>;

fn dtype_parser() -> PossibleValuesParser {
    PossibleValuesParser::new(WeightType::ALL.map(WeightType::name))
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let spec: WeightSpec = arguments.input.parse()?;
    if spec.is_remote() {
        arguments.network.ensure(&[needs::of_spec(spec.clone())])?;
    }
    let checkpoint = open_checkpoint(&spec, &needs::known_files(), Path::new("."))?;
    let is_gguf = arguments.out.extension().is_some_and(|end| end == "gguf");
    let format = arguments.to.unwrap_or(if is_gguf { Format::Gguf } else { Format::Safetensors });
    let options = ConvertOptions {
        dtype: arguments.dtype.as_deref().and_then(WeightType::named),
        to: if format == Format::Torch { Container::Torch } else { Container::Safetensors },
        ..ConvertOptions::default()
    };
    let mut progress: Option<Progress> = None;
    let is_folder = arguments.out.is_dir() || arguments.out.as_os_str().as_encoded_bytes().ends_with(b"/");
    let (write, tied) = match format {
        Format::Safetensors if is_folder => (to_folder as Write, "it is written again"),
        Format::Safetensors | Format::Torch => (convert as Write, "it is written again"),
        Format::Gguf => (to_gguf as Write, "it is written once"),
    };
    let summary = write(&checkpoint, &arguments.out, &options, &mut |step| {
        progress.get_or_insert_with(|| Progress::new(step.total, "bytes")).at(step.done);
    })
    .with_context(|| format!("cannot convert {}", arguments.input))?;
    if let Some(progress) = progress {
        progress.finish();
    }
    for (name, earlier) in &summary.tied {
        output::note(&format!("{name} shares its bytes with {earlier}; {tied}"));
    }
    for name in &summary.skipped {
        output::note(&format!("{name} cannot stand in such a file; it is left out"));
    }
    if format == Format::Torch && checkpoint.metadata().is_some_and(|m| m.keys().any(|key| key.starts_with("limber.")))
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
