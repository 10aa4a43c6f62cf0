//! `limber pull --config C` and `limber pull hf:owner/name[@revision][/file] https://host/path/file...`

use super::options::Network;
use super::output;
use super::progress::Downloads;
use anyhow::{Result, bail};
use clap::Args;
use limber_config as config;
use limber_hub::{Pulled, PulledFile, pull};
use limber_pipeline::model::Depth;
use limber_pipeline::needs::{self, Need};
use limber_pipeline::plugins;
use limber_weights::WeightSpec;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Repository, or one file or folder of it: hf:owner/name[@revision][/file]; or one file: https://host/path/file
    #[arg(value_name = "WEIGHTS", required_unless_present = "config")]
    weights: Vec<String>,
    /// Config file in YAML or TOML, or the name of a shipped one: download everything that its components read
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a key of the config, e.g. --set decoder.weights=hf:EleutherAI/pythia-410m; may be repeated
    #[arg(long, value_name = "KEY=VALUE", requires = "config")]
    set: Vec<String>,
    #[command(flatten)]
    network: Network,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut all: Vec<Need> = Vec::new();
    if let Some(path) = &arguments.config {
        let loaded = config::load(path, &arguments.set)?;
        for note in &loaded.notes {
            output::note(&note.to_string());
        }
        all.extend(needs::of_config(&loaded.config, &plugins::registry(&loaded.config)?, Depth::Text)?);
        if all.is_empty() {
            output::note(&format!("{}: no component names weights on the hub or at an address", path.display()));
        }
    }
    for text in &arguments.weights {
        let spec: WeightSpec = text.parse()?;
        if !spec.is_remote() {
            bail!(
                "{text:?} is not on the hub; the form is hf:owner/name[@revision][/file], or https://host/path/file of one file"
            )
        }
        all.push(needs::of_spec(spec));
    }
    let settings = arguments.network.settings()?;
    let mut downloads = Downloads::new();
    for need in &all {
        let pulled = pull(&need.spec, &need.wanted, &settings, &mut |event| downloads.hear(event))?;
        if arguments.json {
            output::json(&line(need, &pulled))?;
        } else {
            output::line(&pulled.path.display().to_string())?;
        }
    }
    Ok(())
}

fn line(need: &Need, pulled: &Pulled) -> serde_json::Value {
    let file = |f: &PulledFile| json!({"name": f.name, "bytes": f.bytes, "downloaded": f.downloaded});
    json!({
        "weights": need.spec,
        "path": pulled.path,
        "commit": pulled.commit,
        "files": pulled.files.iter().map(file).collect::<Vec<_>>(),
    })
}
