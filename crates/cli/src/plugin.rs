//! `limber plugin new|list|check`: a plugin to begin with, which dynamic libraries are in use, and whether their
//! components keep the contracts.

use super::options::{Plugins, ROLES, one_of};
use super::output;
use anyhow::{Result, bail};
use clap::error::ErrorKind;
use clap::{CommandFactory, Subcommand, ValueEnum};
use limber_core::registry::Role;
use limber_pipeline::plugins;
use limber_plugin_host::Library;
use limber_plugin_template::{Language, Limber, Template};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a plugin that builds and passes its own test
    New {
        /// Name of the folder, of the plugin and of its component's kind
        name: String,
        /// Role of the component
        #[arg(long, value_parser = one_of(&ROLES))]
        kind: Role,
        /// Programming language
        #[arg(long, value_enum, default_value = "rust")]
        language: WrittenIn,
        /// Source of the SDK for a plugin in Rust: a folder with limber's repository, or the address of a git
        /// repository, optionally with `#REV`, `#tag=NAME` or `#branch=NAME`
        #[arg(long, value_name = "FOLDER|GIT")]
        limber: Option<Limber>,
    },
    /// List the plugins of a config, of --plugin and of LIMBER_PLUGIN_PATH
    List {
        #[command(flatten)]
        plugins: Plugins,
        /// Print JSON, one object per line
        #[arg(long)]
        json: bool,
    },
    /// Run the conformance suite on every component of plugins
    Check {
        /// Dynamic libraries
        #[arg(required = true, value_name = "LIBRARY")]
        libraries: Vec<PathBuf>,
        /// Print JSON, one object per line
        #[arg(long)]
        json: bool,
    },
}

/// What `--language` names.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum WrittenIn {
    /// A crate that uses the SDK
    Rust,
    /// A C source file that uses the header
    C,
}

pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::New { name, kind, language, limber } => {
            let language = match (language, limber) {
                (WrittenIn::C, _) => Language::C,
                (WrittenIn::Rust, Some(limber)) => Language::Rust(limber.clone()),
                (WrittenIn::Rust, None) => {
                    crate::Cli::command().error(ErrorKind::MissingRequiredArgument, Limber::MISSING).exit()
                }
            };
            let template = Template { name, role: *kind, language };
            output::line(&template.write(Path::new("."))?.display().to_string())
        }
        Command::List { plugins, json } => list(&plugins.libraries()?, *json),
        Command::Check { libraries, json } => check(libraries, *json),
    }
}

fn list(libraries: &[Library], as_json: bool) -> Result<()> {
    for library in libraries {
        let components: Vec<_> = library.entries();
        if as_json {
            let components: Vec<_> =
                components.iter().map(|e| json!({"role": e.maker.role(), "kind": e.kind, "about": e.about})).collect();
            output::json(&json!({
                "path": library.path(),
                "name": library.name(),
                "version": library.version(),
                "abi": library.abi(),
                "built_with": library.built_with(),
                "parts": components,
            }))?;
            continue;
        }
        let built = if library.built_with().is_empty() { "" } else { ", built with " };
        output::line(&format!(
            "{} {}, ABI {}{built}{}: {}",
            library.name(),
            library.version(),
            library.abi(),
            library.built_with(),
            library.path().display()
        ))?;
        for entry in components {
            output::line(&format!("  {:8} {:14} {}", entry.maker.role(), entry.kind, entry.about))?;
        }
    }
    if libraries.is_empty() && !as_json {
        output::note(&format!("no plugin is named by --config, --plugin or {}", plugins::VARIABLE));
    }
    Ok(())
}

fn check(paths: &[PathBuf], as_json: bool) -> Result<()> {
    let (mut failed, mut all) = (0, 0);
    for path in paths {
        let library = limber_plugin_host::open(path, None)?;
        for entry in library.entries().into_iter().map(plugins::checked) {
            let report = limber_kit::check_entry(&entry);
            all += 1;
            failed += usize::from(!report.passed());
            if as_json {
                let checks: Vec<_> =
                    report.checks.iter().map(|c| json!({"name": c.name, "failure": c.failure})).collect();
                output::json(&json!({
                    "library": library.path(),
                    "role": entry.maker.role(),
                    "kind": entry.kind,
                    "passed": report.passed(),
                    "checks": checks,
                }))?;
            } else {
                output::line(&report.to_string())?;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {all} components fail the conformance suite")
    }
    Ok(())
}
