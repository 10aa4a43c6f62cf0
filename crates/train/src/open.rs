//! `Trainer`: a config's training run as a value, for programs that train without the command line.

use crate::{Alone, Event, Options, Outcome, train};
use anyhow::Result;
use limber_config::{self as config, Config};
use limber_core::Registry;
use limber_pipeline::plugins;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The training run of one config, in this process alone.
pub struct Trainer {
    config: Config,
    registry: Registry,
    resume: bool,
    stop: Arc<AtomicBool>,
}

impl Trainer {
    /// The run of the config file `path`.
    ///
    /// # Errors
    /// Every problem of the config; a plugin that cannot be loaded.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(config::load(path.as_ref(), &[])?.config)
    }

    /// The run of a config that was loaded or made before.
    ///
    /// # Errors
    /// A plugin that cannot be loaded.
    pub fn new(config: Config) -> Result<Self> {
        let registry = plugins::registry(&config)?;
        Ok(Self { config, registry, resume: false, stop: Arc::default() })
    }

    /// Takes components from this registry alone.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Goes on from the newest checkpoint in `train.output`.
    #[must_use]
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// A flag that, once set, ends the run after its step with a checkpoint.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        self.stop.clone()
    }

    /// Trains; `watch` hears of every step and every validation. Nothing is downloaded.
    ///
    /// # Errors
    /// As [`train`]; [`crate::Interrupted`] where the stop flag was set.
    pub fn run(&self, mut watch: impl FnMut(Event)) -> Result<Outcome> {
        let options = Options { resume: self.resume, offline: true, stop: &self.stop, ranks: &Alone };
        train(&self.config, &self.registry, &options, &mut watch)
    }
}
