//! `limber components` and `limber describe KIND`: what is registered, from where, and its settings.

use super::options::Plugins;
use super::output;
use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;

#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    plugins: Plugins,
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct DescribeArguments {
    /// The kind, as `limber components` lists it
    kind: String,
    /// Of which role, where a kind has several: encoder, stitch or decoder
    #[arg(long)]
    role: Option<String>,
    #[command(flatten)]
    plugins: Plugins,
    /// Prints one JSON object a line
    #[arg(long)]
    json: bool,
}

pub fn list(arguments: &ListArguments) -> Result<()> {
    let registry = arguments.plugins.registry()?;
    for entry in registry.entries() {
        let role = entry.maker.role();
        if arguments.json {
            output::json(&json!({"role": role, "kind": entry.kind, "about": entry.about, "from": entry.origin}))?;
        } else {
            output::line(&format!("{role:8} {:14} {}  [{}]", entry.kind, entry.about, entry.origin))?;
        }
    }
    Ok(())
}

pub fn describe(arguments: &DescribeArguments) -> Result<()> {
    let registry = arguments.plugins.registry()?;
    let wanted = |role: &str| arguments.role.as_deref().is_none_or(|r| r == role);
    let found: Vec<_> = registry.entries().filter(|e| e.kind == arguments.kind && wanted(e.maker.role())).collect();
    if found.is_empty() {
        let known: Vec<&str> = registry.entries().filter(|e| wanted(e.maker.role())).map(|e| e.kind.as_str()).collect();
        bail!("unknown kind {:?}; known kinds: {}", arguments.kind, known.join(", "))
    }
    for entry in found {
        let tree = json!({
            "role": entry.maker.role(),
            "kind": entry.kind,
            "about": entry.about,
            "from": entry.origin,
            "settings": entry.schema,
        });
        output::line(&if arguments.json {
            serde_json::to_string(&tree)?
        } else {
            serde_json::to_string_pretty(&tree)?
        })?;
    }
    Ok(())
}
