//! `config check`: everything that is wrong with a config, at once, its components' settings included.
//!
//! No weights are opened. A component's own checks run where its settings alone tell its sizes: with random weights,
//! with none, or with a preset's name. The sizes of other weights stand in documents beside them, which loading reads.

use super::device::DeviceSpec;
use super::load::Draft;
use super::plugin::Plugin;
use super::problem::{Note, Problem};
use super::section::{self, Section};
use super::types::Config;
use anyhow::Result;
use limber_core::random::RandomSource;
use limber_core::registry::{Entry, Role, StitchContext};
use limber_core::settings::{SettingsError, Violation, violations};
use limber_core::{Registry, WeightSource};
use limber_weights::WeightSpec;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;
use std::sync::Arc;

/// Gives the registry with the components of a config's plugins, whose paths count from the folder.
pub type Registries<'a> = &'a dyn Fn(&[Plugin], &Path) -> anyhow::Result<Registry>;

/// Says whether a device is there.
pub type Devices<'a> = &'a dyn Fn(DeviceSpec) -> anyhow::Result<()>;

/// What `config check` has to say of one file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// What is wrong; a config without any can be used.
    pub problems: Vec<Problem>,
    /// Keys that have no effect.
    pub notes: Vec<Note>,
}

/// Checks the file at `path` with `sets` over it: its syntax, keys, values, device, kinds and settings of components. A
/// registry that cannot be had is a problem of `plugins`.
pub fn check_file(path: &Path, sets: &[String], registry: Registries, device: Devices) -> Report {
    let draft = match Draft::of_file(path, sets) {
        Ok(draft) => draft,
        Err(error) => return Report { problems: error.problems, ..Report::default() },
    };
    let (config, mut problems) = draft.read();
    if let Some(Err(error)) = config.as_ref().map(|config| device(config.device)) {
        problems.push(Problem::new("", "device", format!("{error:#}")));
    }
    let plugins = draft.tree().get("plugins").map(Vec::<Plugin>::deserialize);
    match registry(&plugins.unwrap_or(Ok(Vec::new())).unwrap_or_default(), draft.folder()) {
        Ok(registry) => {
            let mut found = components(draft.tree(), &registry);
            if let (Some(config), true, true) = (&config, problems.is_empty(), found.is_empty()) {
                found = prepared(config, &registry);
            }
            found.retain(|problem| !problems.contains(problem));
            problems.extend(found);
        }
        Err(error) => problems.push(Problem::new("", "plugins", format!("{error:#}"))),
    }
    Report { problems: draft.locate(problems), notes: draft.notes().to_vec() }
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

/// The checks of the components themselves, and whether the stitch fits between the two others.
fn prepared(config: &Config, registry: &Registry) -> Vec<Problem> {
    let mut problems = Vec::new();
    let encoder = ready(Role::Encoder, config, registry, &mut problems, |entry, settings, source| {
        registry.encoder(&entry.kind, settings, source)
    });
    let decoder = ready(Role::Decoder, config, registry, &mut problems, |entry, settings, source| {
        registry.decoder(&entry.kind, settings, source)
    });
    if let (Some(encoder), Some(decoder)) = (encoder, decoder) {
        ready(Role::Stitch, config, registry, &mut problems, |entry, settings, source| {
            let context = StitchContext {
                features: encoder.spec.features,
                encoder: &encoder.kind,
                width: decoder.spec.width,
                decoder: &decoder.kind,
                source,
            };
            registry.stitch(&entry.kind, settings, &context)
        });
    }
    problems
}

/// What `prepare` makes of a section whose settings tell all; None where they do not, or where it reports a problem.
fn ready<P>(
    role: Role,
    config: &Config,
    registry: &Registry,
    problems: &mut Vec<Problem>,
    prepare: impl FnOnce(&Entry, Value, &dyn WeightSource) -> Result<P>,
) -> Option<P> {
    let section = config.section(role);
    let entry = registry.get(role, &section.kind).ok()?;
    let source = stand_in(role, section, entry)?;
    match prepare(entry, section.settings.clone().into(), source.as_ref()) {
        Ok(prepared) => Some(prepared),
        Err(error) => {
            problems.extend(match error.downcast_ref::<SettingsError>() {
                Some(error) => {
                    error.violations.iter().map(|v| Problem::new(role.name(), &v.key(), &v.message)).collect()
                }
                None => vec![Problem::new(role.name(), "", format!("{error:#}"))],
            });
            None
        }
    }
}

/// A source in place of a section's weights, where a component's sizes do not depend on them.
fn stand_in(role: Role, section: &Section, entry: &Entry) -> Option<Arc<dyn WeightSource>> {
    if !entry.needs_weights {
        return Some(limber_weights::none());
    }
    let is_random = matches!(section.weights, Some(WeightSpec::Random(_)));
    let is_told = is_random || role == Role::Stitch || section.settings.contains_key("model");
    is_told.then(|| Arc::new(RandomSource::new(0)) as Arc<dyn WeightSource>)
}
