//! Training of the stitch between two frozen parts: the loop, its log and its checkpoints.
//!
//! A run is a function of its config: order of the data, captions drawn, dropout and schedule come from the seed and the
//! step alone, so that a run that was cut short goes on bit for bit.

mod checkpoint;
mod log;
mod optimizer;
mod schedule;
mod step;

pub use log::Record;
pub use schedule::learning_rate;

use crate::config::{Compat, Config, Train};
use crate::data::{self, Loader, Order, Reader, Sample};
use crate::model::{Depth, Model};
use crate::weights;
use anyhow::{Context, Result, bail};
use checkpoint::State;
use limber_core::{Mode, Registry};
use log::Log;
use optimizer::{AdamW, Gradients, Optimizer};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use step::{Micro, Normalise, micro_batch};

/// Samples that are read before a share of corrupt items counts: a first bad item is no share.
const FIRST_SAMPLES: u64 = 100;

/// What a run is told from outside.
pub struct Options<'a> {
    /// Go on from the newest checkpoint.
    pub resume: bool,
    /// Reads no image from an address.
    pub offline: bool,
    /// Set when the run shall end after its step, with a checkpoint.
    pub stop: &'a AtomicBool,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The trained stitch, where the run came to its end.
    pub stitch: Option<PathBuf>,
    /// Steps done in all.
    pub steps: usize,
    /// Items that were passed over.
    pub skipped: usize,
}

/// Trains the stitch of `config`; `watch` hears of every step.
///
/// # Errors
/// A config without the sections `train` and `data` or without `train.output`; a value that is not finite; too many
/// corrupt items; whatever the parts, the data or the disk report. The last checkpoint stays.
pub fn train(
    config: &Config,
    registry: &Registry,
    options: &Options,
    watch: &mut dyn FnMut(&Record),
) -> Result<Outcome> {
    let settings = config.train.clone().context("the config has no section \"train\"")?;
    let data = config.data.clone().context("the config has no section \"data\"")?;
    let output =
        settings.output.as_ref().context("section \"train\" names no output, the folder of log and checkpoints")?;
    let output = config.resolve(output);
    if !options.resume && !checkpoint::list(&output)?.is_empty() {
        bail!(
            "{} holds the checkpoints of an earlier run: give --resume to go on with it, or another train.output",
            output.display()
        )
    }
    std::fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let set = data::open(&data, &config.folder).context("section \"data\"")?;
    let config = &starting(config, &settings);
    let mut model = Model::load(config, registry, Depth::Text)?;
    model.offline(options.offline || weights::hub::is_offline());
    let adam = AdamW { betas: settings.betas, eps: settings.eps, weight_decay: settings.weight_decay };
    let mut optimizer = Optimizer::new(adam, model.stitch()?.variables());
    let mut state = State { step: 0, seed: settings.seed, skipped: 0, samples: 0 };
    if options.resume {
        state = checkpoint::restore(&output, &mut optimizer, config)?;
    }
    let mut log = Log::open(&output, state.step)?;
    let order = Order::new(set.len(), settings.seed, data.shuffle);
    let per_step = (settings.batch * settings.accumulate) as u64;
    let places = (state.step as u64 * per_step, settings.steps as u64 * per_step);
    let reading = Reader::new(&model, config, &data, set.len())?;
    // Two micro-batches, so that one is read while the other is learnt from; a whole step may be thousands of images.
    let ahead = 2 * settings.batch.max(data.workers);
    let loader = Loader::new(set.as_ref(), order, &reading, places, ahead);
    let mut run = Trainer { config, settings: &settings, model: &model, optimizer, state, output: &output };
    std::thread::scope(|scope| {
        for _ in 0..data.workers {
            scope.spawn(|| loader.work());
        }
        // The reading threads end however this ends, or the scope would wait for them.
        let _guard = Stop(&loader);
        while run.state.step < settings.steps {
            if options.stop.load(Ordering::Relaxed) {
                let at = run.save()?;
                bail!("interrupted after step {}; --resume goes on from {}", run.state.step, at.display())
            }
            let record = run.step(&loader, &mut log, data.max_skipped)?;
            watch(&record);
            if run.state.step.is_multiple_of(settings.save_every) || run.state.step == settings.steps {
                run.save()?;
            }
        }
        Ok(())
    })?;
    let stitch = output.join("stitch.safetensors");
    weights::save(&stitch, &checkpoint::tensors(run.optimizer.variables())?, &model.stitch_metadata()?.to_map()?)?;
    Ok(Outcome { stitch: Some(stitch), steps: run.state.step, skipped: run.state.skipped })
}

/// Lets the reading threads of a loader end.
struct Stop<'a, 'b>(&'a Loader<'b>);

impl Drop for Stop<'_, '_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The config with the stitch's start filled in: random from the seed where no weights are named or none are there yet.
fn starting(config: &Config, settings: &Train) -> Config {
    let mut config = config.clone();
    let there = config.stitch.weights.as_ref().is_some_and(|text| {
        let local = !text.starts_with("hf:") && !text.starts_with("random:");
        !local || config.resolve(text).exists() || Path::new(text).exists()
    });
    if !there {
        config.stitch.weights = Some(format!("random:{}", settings.seed));
    }
    config
}

/// A run under way.
struct Trainer<'a> {
    config: &'a Config,
    settings: &'a Train,
    model: &'a Model,
    optimizer: Optimizer,
    state: State,
    output: &'a Path,
}

impl Trainer<'_> {
    /// One optimiser step over `accumulate` micro-batches.
    fn step(&mut self, loader: &Loader, log: &mut Log, max_skipped: f64) -> Result<Record> {
        let (step, settings) = (self.state.step, self.settings);
        let place = || format!("step {step}");
        let normalise = match self.config.compat {
            Some(Compat::Original) => Normalise::Original { micro_batches: settings.accumulate },
            None => Normalise::Step,
        };
        let start = Instant::now();
        let mut gradients = Gradients::new();
        let (mut micros, mut names, mut data_s) = (Vec::new(), Vec::new(), 0.0);
        for micro in 0..settings.accumulate {
            let waiting = Instant::now();
            let samples = self.samples(loader, log, max_skipped).with_context(place)?;
            data_s += waiting.elapsed().as_secs_f64();
            names.extend(samples.iter().map(|sample| sample.name.clone()));
            let mode = Mode::Training { seed: dropout_seed(settings.seed, step, micro) };
            let (model, optimizer) = (self.model, &self.optimizer);
            let run = micro_batch(model, optimizer, &samples, mode, normalise, settings.recompute, &mut gradients);
            micros.push(run.with_context(place)?);
        }
        let tokens: usize = micros.iter().map(|m| m.targets).sum();
        let loss = mean_loss(&micros, normalise);
        if normalise == Normalise::Step {
            optimizer::scale(&mut gradients, 1.0 / tokens as f32);
        }
        let grad_norm = optimizer::clip(&mut gradients, settings.clip);
        if !grad_norm.is_finite() {
            bail!(
                "step {step}: the gradient's norm is {grad_norm}, which is not finite; the items are {}",
                names.join("; ")
            )
        }
        let lr = learning_rate(settings, step);
        self.optimizer.step(&gradients, lr).with_context(place)?;
        self.state.step += 1;
        self.state.samples += names.len() as u64;
        let record = Record {
            step,
            loss,
            lr,
            grad_norm,
            tokens,
            samples: names.len(),
            data_s,
            forward_s: micros.iter().map(|m| m.forward_s).sum(),
            backward_s: micros.iter().map(|m| m.backward_s).sum(),
            step_s: start.elapsed().as_secs_f64(),
        };
        log.step(&record)?;
        Ok(record)
    }

    /// The samples of a micro-batch; what was passed over is named and counted.
    fn samples(&mut self, loader: &Loader, log: &mut Log, max_skipped: f64) -> Result<Vec<Sample>> {
        let mut samples = Vec::with_capacity(self.settings.batch);
        for _ in 0..self.settings.batch {
            let sample = loader.next()?;
            for (name, reason) in &sample.skipped {
                self.state.skipped += 1;
                log.skipped(self.state.step, name, reason)?;
            }
            samples.push(sample);
            let read = (self.state.samples + samples.len() as u64).max(FIRST_SAMPLES);
            let share = self.state.skipped as f64 / (read as f64 + self.state.skipped as f64);
            if share > max_skipped {
                bail!(
                    "{} items of the first {read} could not be read, more than the share data.max_skipped {max_skipped} allows; they are named in {}",
                    self.state.skipped,
                    log.skipped_path().display()
                )
            }
        }
        Ok(samples)
    }

    fn save(&self) -> Result<PathBuf> {
        let metadata = self.model.stitch_metadata()?;
        checkpoint::save(self.output, self.settings.keep, &self.optimizer, metadata, &self.state, self.config)
            .context("cannot save a checkpoint")
    }
}

/// The loss of a step as it is logged: by all its tokens, or as the original means it.
fn mean_loss(micros: &[Micro], normalise: Normalise) -> f64 {
    match normalise {
        Normalise::Step => {
            micros.iter().map(|m| m.loss).sum::<f64>() / micros.iter().map(|m| m.targets).sum::<usize>() as f64
        }
        Normalise::Original { .. } => {
            micros.iter().map(|m| m.loss / m.targets as f64).sum::<f64>() / micros.len() as f64
        }
    }
}

/// The seed of a micro-batch's dropout.
fn dropout_seed(seed: u64, step: usize, micro: usize) -> u64 {
    let hash = Sha256::new()
        .chain_update(b"dropout")
        .chain_update(seed.to_le_bytes())
        .chain_update((step as u64).to_le_bytes())
        .chain_update((micro as u64).to_le_bytes())
        .finalize();
    hash.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}
