//! `config check`: everything that is wrong with a config, at once, its components' settings included.

use super::load::Draft;
use super::plugin::Plugin;
use super::problem::{Note, Problem};
use super::section;
use limber_core::Registry;
use limber_core::registry::Role;
use limber_core::settings::{Violation, violations};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// Gives the registry with the components of a config's plugins, whose paths count from the folder.
pub type Registries<'a> = &'a dyn Fn(&[Plugin], &Path) -> anyhow::Result<Registry>;

/// What `config check` has to say of one file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// What is wrong; a config without any can be used.
    pub problems: Vec<Problem>,
    /// Keys that have no effect.
    pub notes: Vec<Note>,
}

/// Checks the file at `path` with `sets` over it: its syntax, keys, values, kinds and settings of components. A registry
/// that cannot be had is a problem of `plugins`.
pub fn check_file(path: &Path, sets: &[String], registry: Registries) -> Report {
    let draft = match Draft::of_file(path, sets) {
        Ok(draft) => draft,
        Err(error) => return Report { problems: error.problems, ..Report::default() },
    };
    let (_, mut problems) = draft.read();
    let plugins = draft.tree().get("plugins").map(Vec::<Plugin>::deserialize);
    match registry(&plugins.unwrap_or(Ok(Vec::new())).unwrap_or_default(), draft.folder()) {
        Ok(registry) => {
            for problem in components(draft.tree(), &registry) {
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
        Err(error) => problems.push(Problem::new("", "plugins", format!("{error:#}"))),
    }
    Report { problems: draft.place(problems), notes: draft.notes().to_vec() }
}

/// Checks the kinds of the components and their settings. Kind `auto` is known only when its weights are opened.
fn components(tree: &Map<String, Value>, registry: &Registry) -> Vec<Problem> {
    let mut problems = Vec::new();
    for role in Role::ALL {
        let Some(section) = tree.get(role.name()) else { continue };
        let kind = section.get("kind").and_then(Value::as_str).unwrap_or_default();
        if kind.is_empty() || kind == "auto" {
            continue;
        }
        match registry.get(role, kind) {
            Err(error) => problems.push(Problem::new(role.name(), "kind", format!("{error:#}"))),
            Ok(entry) => {
                let found = violations(section, &section::with_keys(role, &entry.schema));
                problems.extend(found.iter().map(|v| Problem::new(role.name(), &Violation::key(v), &v.message)));
            }
        }
    }
    problems
}
