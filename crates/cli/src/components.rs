//! `limber components` and `limber describe NAME`: what is registered, from where, and its settings; the keys of a section
//! of a config file.

use super::options::{Plugins, ROLES, one_of};
use super::output;
use anyhow::{Result, bail};
use clap::Args;
use limber_config as config;
use limber_core::registry::Role;
use serde_json::{Value, json};

#[derive(Debug, Args)]
pub struct ListArguments {
    #[command(flatten)]
    plugins: Plugins,
    /// Print JSON, one object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct DescribeArguments {
    /// Kind of a component, as `limber components` lists it, or section or key of a config file: train, data,
    /// train.validate, ...
    #[arg(value_name = "NAME")]
    kind: String,
    /// Role of the component, for a kind that several roles have
    #[arg(long, value_parser = one_of(&ROLES))]
    role: Option<Role>,
    #[command(flatten)]
    plugins: Plugins,
    /// Print JSON, one object per line
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
    let role = arguments.role;
    let wanted: Vec<_> =
        registry.entries().filter(|entry| role.is_none_or(|role| role == entry.maker.role())).collect();
    let mut found: Vec<Value> = wanted
        .iter()
        .filter(|entry| entry.kind == arguments.kind)
        .map(|entry| {
            json!({
                "role": entry.maker.role(),
                "kind": entry.kind,
                "about": entry.about,
                "from": entry.origin,
                "settings": entry.schema,
            })
        })
        .collect();
    if let (None, Some(schema)) = (role, config::section(&arguments.kind)) {
        found.push(json!({"section": arguments.kind, "about": schema["description"], "settings": schema}));
    }
    if found.is_empty() {
        let known: Vec<&str> = wanted.iter().map(|entry| entry.kind.as_str()).collect();
        let sections = match role {
            Some(_) => String::new(),
            None => format!("; sections: {}", config::names().join(", ")),
        };
        bail!("unknown kind {:?}; known kinds: {}{sections}", arguments.kind, known.join(", "))
    }
    for tree in found {
        output::line(&if arguments.json {
            serde_json::to_string(&tree)?
        } else {
            serde_json::to_string_pretty(&tree)?
        })?;
    }
    Ok(())
}
