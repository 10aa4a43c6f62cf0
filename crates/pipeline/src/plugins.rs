//! Which dynamic libraries a run uses, and the registry with their components.
//!
//! A library is loaded only where the user names it: in a config's `plugins:` (relative to the config's folder), by
//! `--plugin`, or in `LIMBER_PLUGIN_PATH`. Nothing is looked for in the working folder.

use crate::built_in;
use anyhow::{Context, Result, bail};
use limber_config::{Config, Plugin};
use limber_core::Registry;
use limber_core::registry::{Entry, Maker};
use limber_core::settings::{SettingsError, violations};
use limber_plugin_host::Library;
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The variable that names libraries, or folders of them, separated as in `PATH`.
pub const VARIABLE: &str = "LIMBER_PLUGIN_PATH";

/// The libraries of `plugins`, whose paths count from `folder`, and of the environment, each once.
///
/// # Errors
/// A library that cannot be loaded, or a variable that names no libraries.
pub fn libraries(plugins: &[Plugin], folder: &Path) -> Result<Vec<Library>> {
    let mut libraries: Vec<Library> = Vec::new();
    let mut add = |library: Library| {
        if libraries.iter().all(|there| there.path() != library.path()) {
            libraries.push(library);
        }
    };
    for (i, plugin) in plugins.iter().enumerate() {
        let path = folder.join(&plugin.path);
        add(limber_plugin_host::open(&path, plugin.sha256.as_deref()).with_context(|| format!("plugins.{i}"))?);
    }
    for path in named_by(std::env::var_os(VARIABLE).as_deref())? {
        add(limber_plugin_host::open(&path, None).context(VARIABLE)?);
    }
    Ok(libraries)
}

/// The files that the variable's `value` names: files as they are, of folders the dynamic libraries in them, sorted.
fn named_by(value: Option<&OsStr>) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in value.into_iter().flat_map(std::env::split_paths).filter(|entry| !entry.as_os_str().is_empty()) {
        if !entry.is_absolute() {
            bail!("{VARIABLE} holds {:?}, which counts from the working folder; expected absolute paths", entry)
        }
        if !entry.is_dir() {
            files.push(entry);
            continue;
        }
        let context = || format!("{VARIABLE}: {}", entry.display());
        let mut inside = Vec::new();
        for file in std::fs::read_dir(&entry).with_context(context)? {
            let path = file.with_context(context)?.path();
            if path.extension() == Some(OsStr::new(std::env::consts::DLL_EXTENSION)) {
                inside.push(path);
            }
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

/// The registry of the linked-in components and of `libraries`.
///
/// # Errors
/// A kind that is there twice.
pub fn registry_with(libraries: &[Library]) -> Result<Registry> {
    let mut registry = built_in::registry()?;
    for entry in libraries.iter().flat_map(Library::entries) {
        registry.insert(checked(entry))?;
    }
    Ok(registry)
}

/// The registry of a config: linked-in components, its plugins, the environment's.
///
/// # Errors
/// As [`libraries`] and [`registry_with`].
pub fn registry(config: &Config) -> Result<Registry> {
    registry_with(&libraries(&config.plugins, &config.folder)?)
}

/// An entry whose settings are held against its schema first, so that a plugin that takes any key is not left to.
pub fn checked(entry: Entry) -> Entry {
    let schema = Arc::new(entry.schema.clone());
    let maker = match entry.maker {
        Maker::Encoder(inner) => Maker::Encoder(Arc::new(move |settings, source| {
            check("encoder", &settings, &schema)?;
            inner(settings, source)
        })),
        Maker::Decoder(inner) => Maker::Decoder(Arc::new(move |settings, source| {
            check("decoder", &settings, &schema)?;
            inner(settings, source)
        })),
        Maker::Stitch(inner) => Maker::Stitch(Arc::new(move |settings, context| {
            check("stitch", &settings, &schema)?;
            inner(settings, context)
        })),
    };
    Entry { maker, ..entry }
}

fn check(section: &str, settings: &Value, schema: &Value) -> Result<(), SettingsError> {
    let settings = if settings.is_null() { &Value::Object(Default::default()) } else { settings };
    let violations = violations(settings, schema);
    if violations.is_empty() { Ok(()) } else { Err(SettingsError { section: section.to_string(), violations }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_files_and_folders_by_absolute_paths() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(format!("{name}.{}", std::env::consts::DLL_EXTENSION));
        std::fs::write(at("b"), "").unwrap();
        std::fs::write(at("a"), "").unwrap();
        std::fs::write(folder.path().join("notes.txt"), "").unwrap();
        let named = |paths: &[&Path]| named_by(Some(std::env::join_paths(paths).unwrap().as_os_str()));
        assert_eq!(named(&[folder.path(), Path::new(""), &at("x")]).unwrap(), [at("a"), at("b"), at("x")]);
        assert!(named_by(None).unwrap().is_empty());
        let message = named(&[Path::new("plugins")]).unwrap_err().to_string();
        assert_eq!(
            message,
            "LIMBER_PLUGIN_PATH holds \"plugins\", which counts from the working folder; expected absolute paths"
        );
    }
}
