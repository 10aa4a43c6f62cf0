//! The registry: every component that a config can name, linked in or loaded, through one and the same `insert`.
//!
//! A component is prepared first (settings and specs, no weights), then built (weights), so that what does not fit is
//! refused before any large weight is read.

mod entry;
mod insert;
mod part;
mod prepared;
mod role;
#[cfg(test)]
mod tests;

pub use entry::{Entry, Maker, Origin, RecogniseFn, Registration};
pub use part::{
    Component, DEFAULT_FILES, DecoderComponent, EncoderComponent, EncoderSpecs, StitchComponent, StitchContext,
};
pub use prepared::{PrepareFn, PrepareStitchFn, Prepared, PreparedDecoder, PreparedEncoder, PreparedStitch};
pub use role::Role;

use crate::model_config::ModelConfig;
use crate::settings::did_you_mean;
use crate::weights::WeightSource;
use anyhow::{Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;

/// All components, sorted by role and kind.
#[derive(Clone, Default)]
pub struct Registry {
    entries: BTreeMap<(&'static str, String), Entry>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The components that are linked into this program.
    ///
    /// # Errors
    /// Two components of one kind.
    pub fn from_inventory() -> Result<Self> {
        let mut registry = Self::new();
        for registration in inventory::iter::<Registration> {
            (registration.insert)(&mut registry)?;
        }
        Ok(registry)
    }

    /// The one way in, for built-in and loaded components alike.
    ///
    /// # Errors
    /// A kind that is there already, naming both origins.
    pub fn insert(&mut self, entry: Entry) -> Result<()> {
        let key = (entry.maker.role().name(), entry.kind.clone());
        if let Some(there) = self.entries.get(&key) {
            bail!("{} kind {:?} is registered twice: {} and {}", key.0, key.1, there.origin, entry.origin)
        }
        self.entries.insert(key, entry);
        Ok(())
    }

    /// Every entry, by role and kind.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// One entry.
    ///
    /// # Errors
    /// An unknown kind; the message lists the known ones.
    pub fn get(&self, role: impl TryInto<Role, Error: Into<anyhow::Error>>, kind: &str) -> Result<&Entry> {
        let role = role.try_into().map_err(Into::into)?;
        if let Some(entry) = self.of(role).find(|entry| entry.kind == kind) {
            return Ok(entry);
        }
        let known: Vec<&str> = self.of(role).map(|entry| entry.kind.as_str()).collect();
        bail!("unknown {role} kind {kind:?}{}; known kinds: {}", did_you_mean(kind, &known), known.join(", "))
    }

    /// The entries of one role, by kind.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Entry> {
        self.entries().filter(move |entry| entry.maker.role() == role)
    }

    /// The entry of `role` that recognises `source`: the kind `auto`.
    ///
    /// # Errors
    /// None that does, or several; the message names the known kinds.
    pub fn detect(
        &self,
        role: impl TryInto<Role, Error: Into<anyhow::Error>>,
        source: &dyn WeightSource,
    ) -> Result<&Entry> {
        let role = role.try_into().map_err(Into::into)?;
        let mut found = Vec::new();
        let mut known = Vec::new();
        for entry in self.of(role) {
            known.push(entry.kind.as_str());
            if (entry.recognises)(source)? {
                found.push(entry);
            }
        }
        match found.as_slice() {
            [entry] => Ok(entry),
            [] => match ModelConfig::read(source)? {
                Some(config) if config.model_type().is_some() => {
                    let known = known.join(", ");
                    Err(config.refusal("model_type", format!("which no {role} here reads; set kind to one of {known}")))
                }
                _ => bail!(
                    "{}: nothing beside the weights tells the {role}'s kind; set kind to one of {}",
                    source.label(),
                    known.join(", ")
                ),
            },
            several => {
                let kinds: Vec<&str> = several.iter().map(|e| e.kind.as_str()).collect();
                bail!("{}: the weights could be those of {}; set the {role}'s kind", source.label(), kinds.join(" or "))
            }
        }
    }

    /// Prepares an encoder.
    ///
    /// # Errors
    /// An unknown kind, or settings that do not fit.
    pub fn encoder(&self, kind: &str, settings: Value, source: &dyn WeightSource) -> Result<PreparedEncoder> {
        match &self.get(Role::Encoder, kind)?.maker {
            Maker::Encoder(prepare) => prepare(settings, source),
            _ => bail!("{kind:?} is not an encoder"),
        }
    }

    /// Prepares a decoder.
    ///
    /// # Errors
    /// An unknown kind, or settings that do not fit.
    pub fn decoder(&self, kind: &str, settings: Value, source: &dyn WeightSource) -> Result<PreparedDecoder> {
        match &self.get(Role::Decoder, kind)?.maker {
            Maker::Decoder(prepare) => prepare(settings, source),
            _ => bail!("{kind:?} is not a decoder"),
        }
    }

    /// Prepares a stitch between two sides.
    ///
    /// # Errors
    /// An unknown kind, settings or a checkpoint that do not fit.
    pub fn stitch(&self, kind: &str, settings: Value, context: &StitchContext) -> Result<PreparedStitch> {
        match &self.get(Role::Stitch, kind)?.maker {
            Maker::Stitch(prepare) => prepare(settings, context),
            _ => bail!("{kind:?} is not a stitch"),
        }
    }
}

/// Registers a component with every program that links this crate: `register!(encoder, ClipResnet);`.
#[macro_export]
macro_rules! register {
    (encoder, $component:ty) => {
        $crate::register!(@ insert_encoder, $component);
    };
    (decoder, $component:ty) => {
        $crate::register!(@ insert_decoder, $component);
    };
    (stitch, $component:ty) => {
        $crate::register!(@ insert_stitch, $component);
    };
    (@ $insert:ident, $component:ty) => {
        $crate::exports::inventory::submit! {
            $crate::registry::Registration {
                insert: |registry| registry.$insert::<$component>($crate::registry::Origin::BuiltIn {
                    package: env!("CARGO_PKG_NAME").to_string(),
                    version: env!("CARGO_PKG_VERSION").to_string(),
                }),
            }
        }
    };
}
