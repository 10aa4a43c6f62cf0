//! `limber config show|check FILE`: the resolved config; every problem at once. `limber config schema`: for editors.

use super::options::Plugins;
use super::output;
use anyhow::{Result, bail};
use clap::Subcommand;
use limber_config as config;
use limber_pipeline::plugins;
use serde_json::json;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the resolved config: files merged, defaults filled in
    Show {
        /// Config file
        file: PathBuf,
        /// Override a key, e.g. --set encoder.weights=random:1; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of a config file with the settings of every component, for editors
    Schema {
        #[command(flatten)]
        plugins: Plugins,
    },
    /// List every problem of config files
    Check {
        /// Config files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Override a key, e.g. --set encoder.weights=random:1; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Print JSON, one object per line
        #[arg(long)]
        json: bool,
    },
}

pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Show { file, set, json } => {
            let loaded = config::load(file, set)?;
            for note in &loaded.notes {
                output::note(&note.to_string());
            }
            output::line(&config::show(&loaded.config, *json))
        }
        Command::Schema { plugins } => {
            output::line(&serde_json::to_string_pretty(&config::file_schema(&plugins.registry()?))?)
        }
        Command::Check { files, set, json } => check(files, set, *json),
    }
}

fn check(files: &[PathBuf], sets: &[String], as_json: bool) -> Result<()> {
    let mut bad = 0;
    for file in files {
        let registry = |named: &[config::Plugin], folder: &std::path::Path| {
            plugins::registry_with(&plugins::libraries(named, folder)?)
        };
        let report = config::check_file(file, sets, &registry, &|device| limber_pipeline::device(device).map(drop));
        bad += usize::from(!report.problems.is_empty());
        if as_json {
            let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
            let notes: Vec<String> = report.notes.iter().map(ToString::to_string).collect();
            output::json(&json!({"file": file, "ok": problems.is_empty(), "problems": problems, "notes": notes}))?;
            continue;
        }
        for note in &report.notes {
            output::note(&note.to_string());
        }
        for problem in &report.problems {
            output::line(&problem.to_string())?;
        }
        if report.problems.is_empty() {
            output::line(&format!("{}: ok", file.display()))?;
        }
    }
    if bad > 0 {
        bail!("{bad} of {} config files have problems", files.len())
    }
    Ok(())
}
