//! `limber config show|check FILE`: the resolved config; every problem at once. `limber config list`: the shipped ones.
//! `limber config schema`: for editors.

use super::options::{Network, Plugins};
use super::output;
use super::progress::Downloads;
use anyhow::{Result, bail};
use clap::Subcommand;
use limber_config as config;
use limber_hub as hub;
use limber_pipeline::model::Depth;
use limber_pipeline::overview::{Overview, absent, overview};
use limber_pipeline::{needs, plugins};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print the resolved config: files merged, defaults filled in
    Show {
        /// Config file, or the name of a shipped one
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
    /// List the configs that ship with the program and go by their names
    List {
        /// Print JSON, one object per line
        #[arg(long)]
        json: bool,
    },
    /// List every problem of config files
    Check {
        /// Config files, or names of shipped ones
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Open weights and data as well, and print the shapes from end to end
        #[arg(long)]
        deep: bool,
        #[command(flatten)]
        network: Network,
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
        Command::List { json } => list(*json),
        Command::Check { files, deep, network, set, json } => check(files, set, deep.then_some(network), *json),
    }
}

/// Names, and what each says of itself in its first line of comment.
fn list(as_json: bool) -> Result<()> {
    let width = limber_configs::NAMED.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, text) in limber_configs::NAMED {
        let about = text.lines().filter_map(|line| line.strip_prefix("# ")).find(|line| !line.starts_with("yaml-"));
        let about = about.unwrap_or_default();
        match as_json {
            true => output::json(&json!({"name": name, "about": about}))?,
            false => output::line(format!("{name:width$}  {about}").trim_end())?,
        }
    }
    Ok(())
}

/// What there is to say of a config's components, after the small documents of those on the hub came.
fn look(file: &Path, sets: &[String], network: &Network) -> Result<Overview> {
    let config = config::load(file, sets)?.config;
    let registry = plugins::registry(&config)?;
    let settings = network.settings()?;
    let mut downloads = Downloads::new();
    let mut notes = Vec::new();
    for need in needs::of_config(&config, &registry, Depth::Text)? {
        // Without them the settings tell the sizes.
        if let Err(error) = hub::documents(&need.spec, &need.wanted, &settings, &mut |event| downloads.hear(event)) {
            notes.push(format!("{error:#}"));
        }
    }
    let mut found = overview(&config, &registry);
    found.notes.splice(0..0, notes);
    Ok(found)
}

fn check(files: &[PathBuf], sets: &[String], deep: Option<&Network>, as_json: bool) -> Result<()> {
    let mut bad = 0;
    for file in files {
        let registry = |named: &[config::Plugin], folder: &std::path::Path| {
            plugins::registry_with(&plugins::libraries(named, folder)?)
        };
        let report = config::check_file(file, sets, &registry, &|device| limber_pipeline::device(device).map(drop));
        let mut problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        let mut notes: Vec<String> = report.notes.iter().map(ToString::to_string).collect();
        let mut shapes = None;
        if let (Some(network), true) = (deep, problems.is_empty()) {
            let at = |text: &String| format!("{}: {text}", file.display());
            match look(file, sets, network) {
                Ok(found) => {
                    problems.extend(found.problems.iter().map(at));
                    notes.extend(found.notes.iter().map(at));
                    shapes = Some(found.shapes);
                }
                Err(error) => problems.push(at(&format!("{error:#}"))),
            }
        }
        if deep.is_none() && problems.is_empty() {
            // What is in the files is not looked at, and another machine may have them.
            let config = config::load(file, sets)?.config;
            let absent = absent(&config, &plugins::registry(&config)?);
            notes.extend(absent.iter().map(|text| format!("{}: {text}", file.display())));
        }
        bad += usize::from(!problems.is_empty());
        if as_json {
            let mut line = json!({"file": file, "ok": problems.is_empty(), "problems": problems, "notes": notes});
            if let Some(shapes) = shapes {
                line["shapes"] = shapes.into();
            }
            output::json(&line)?;
            continue;
        }
        for note in &notes {
            output::note(note);
        }
        for problem in &problems {
            output::line(problem)?;
        }
        if problems.is_empty() {
            output::line(&format!("{}: ok", file.display()))?;
        }
        for shape in shapes.iter().flatten() {
            output::line(&format!("  {shape}"))?;
        }
    }
    if bad > 0 {
        bail!("{bad} of {} config files have problems", files.len())
    }
    Ok(())
}
