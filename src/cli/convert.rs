//! `limber convert IN --out F.safetensors`: any readable checkpoint to one safetensors file.

use super::options::Network;
use super::output::{self, Progress};
use crate::needs;
use crate::weights::{ConvertOptions, WeightSpec, convert, open_checkpoint};
use anyhow::{Context, Result};
use clap::Args;
use clap::builder::PossibleValuesParser;
use limber_core::WeightType;
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Arguments {
    /// A checkpoint: a file, a folder or hf:owner/name
    #[arg(value_name = "IN")]
    input: String,
    /// The safetensors file to write; it appears when it is complete
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Type that floats are rounded to; as they are where nothing is said. q8_0 and q4_k are for matrices alone
    #[arg(long, value_parser = dtype_parser(), value_name = "TYPE")]
    dtype: Option<String>,
    #[command(flatten)]
    network: Network,
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
}

fn dtype_parser() -> PossibleValuesParser {
    PossibleValuesParser::new(WeightType::ALL.map(WeightType::name))
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let spec: WeightSpec = arguments.input.parse()?;
    if let WeightSpec::Hub { .. } = spec {
        arguments.network.ensure(&[needs::of_spec(spec.clone())])?;
    }
    let checkpoint = open_checkpoint(&spec, &needs::known_files(), Path::new("."))?;
    let options =
        ConvertOptions { dtype: arguments.dtype.as_deref().and_then(WeightType::named), ..ConvertOptions::default() };
    let mut progress: Option<Progress> = None;
    let summary = convert(&checkpoint, &arguments.out, &options, &mut |step| {
        progress.get_or_insert_with(|| Progress::new(step.total, "bytes")).at(step.done);
    })
    .with_context(|| format!("cannot convert {}", arguments.input))?;
    if let Some(progress) = progress {
        progress.finish();
    }
    for (name, earlier) in &summary.tied {
        output::note(&format!("{name} shares its bytes with {earlier}; it is written again"));
    }
    for name in &summary.skipped {
        output::note(&format!("{name} has a type that safetensors files cannot hold; it is left out"));
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
