//! `config check`: everything that is wrong with a config, at once, its parts' settings included.

use super::load::Draft;
use super::problem::{Note, Problem};
use super::schema::violations;
use super::section::ROLES;
use super::types::Config;
use limber_core::Registry;
use serde_json::Value;
use std::path::Path;

/// Gives the JSON Schema of a part's settings by role and kind, or the error of a kind that nobody knows.
pub type Schemas<'a> = &'a dyn Fn(&str, &str) -> anyhow::Result<Value>;

/// Checks the kinds of the parts and their settings. Kind `auto` is known only when its weights are opened.
pub fn check(config: &Config, schemas: Schemas) -> Vec<Problem> {
    let mut problems = Vec::new();
    for role in ROLES {
        let Some(section) = config.section(role).filter(|s| !s.kind.is_empty() && s.kind != "auto") else { continue };
        match schemas(role, &section.kind) {
            Err(error) => problems.push(Problem::new(role, "kind", format!("{error:#}"))),
            Ok(schema) => {
                let found = violations(&Value::Object(section.settings.clone()), &schema);
                problems.extend(found.into_iter().map(|(key, message)| Problem::new(role, &key, message)));
            }
        }
    }
    problems
}

/// What `config check` has to say of one file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// What is wrong; a config without any can be used.
    pub problems: Vec<Problem>,
    /// Keys that have no effect.
    pub notes: Vec<Note>,
}

/// Checks the file at `path` with `sets` over it: its syntax, keys, values, kinds and settings of parts.
pub fn check_file(path: &Path, sets: &[String], schemas: Schemas) -> Report {
    examine(path, sets, &|config| check(config, schemas))
}

/// As [`check_file`], against the registry of the config itself, its plugins in it; one that cannot be had is a problem
/// of `plugins`.
pub fn check_file_with(path: &Path, sets: &[String], registry: &dyn Fn(&Config) -> anyhow::Result<Registry>) -> Report {
    examine(path, sets, &|config| match registry(config) {
        Ok(registry) => check(config, &|role, kind| Ok(registry.get(role, kind)?.schema.clone())),
        Err(error) => vec![Problem::new("", "plugins", format!("{error:#}"))],
    })
}

fn examine(path: &Path, sets: &[String], parts: &dyn Fn(&Config) -> Vec<Problem>) -> Report {
    let draft = match Draft::of_file(path, sets) {
        Ok(draft) => draft,
        Err(error) => return Report { problems: error.problems, ..Report::default() },
    };
    let (config, mut problems) = draft.read();
    problems.extend(parts(&config));
    Report { problems: draft.place(problems), notes: draft.notes().to_vec() }
}
