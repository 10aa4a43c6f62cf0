//! Training of the stitch between two frozen components: the loop, its log and its checkpoints.
//!
//! A run is a function of its config: order of the data, captions drawn, dropout and schedule come from the seed and the
//! step alone, so that a run that was cut short goes on bit for bit.

mod best;
mod checkpoint;
mod events;
pub mod fit;
mod learner;
mod log;
mod memory;
mod open;
mod optimizer;
mod ranks;
mod run;
mod schedule;
mod standard;
mod start;
mod started;
mod step;
mod validation;

pub use checkpoint::tensors;
pub use log::{Record, Said, Validated};
pub use open::Trainer;
pub use ranks::{Alone, Ranks, Told, launched, told};
pub use schedule::learning_rate;
pub use start::Norms;
pub use started::Started;

use anyhow::{Context, Result, bail};
use best::Best;
use checkpoint::State;
use learner::Learner;
use limber_config::{self as config, Config, DeviceSpec, Start};
use limber_core::Registry;
use limber_data::{self as data, Loader, Order};
use limber_pipeline::Reader;
use limber_pipeline::model::Model;
use limber_pipeline::run_folder::{self, CONFIG, STITCH};
use limber_weights::{self as weights, WeightSpec};
use log::Log;
use optimizer::{AdamW, Optimizer};
use run::Run;
use sha2::{Digest, Sha256};
use start::Ground;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use validation::Validation;

/// What a run is told from outside.
pub struct Options<'a> {
    /// Go on from the newest checkpoint.
    pub resume: bool,
    /// Reads no image from an address.
    pub offline: bool,
    /// Set when the run shall end after its step, with a checkpoint.
    pub stop: &'a AtomicBool,
    /// The processes that train together.
    pub ranks: &'a dyn Ranks,
}

/// What a run tells while it is under way, in every process.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// Items that a start is fitted to have been read: so many of so many.
    Fitting(usize, usize),
    /// All is ready for the first step.
    Started(&'a Started),
    /// A step is done.
    Step(&'a Record),
    /// The stitch was validated on the held-out data.
    Validated(&'a Validated),
}

/// The run was asked to stop, in all its processes, and left a checkpoint.
#[derive(Debug, thiserror::Error)]
#[error("interrupted after step {step}; --resume goes on from {}", at.display())]
pub struct Interrupted {
    /// Steps done.
    pub step: usize,
    /// The checkpoint.
    pub at: PathBuf,
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

/// Trains the stitch of `config`; `watch` hears of every step and validation.
///
/// # Errors
/// A config without the sections `train` and `data` or without `train.output`; a value that is not finite; too many
/// corrupt items; whatever the components, the data or the disk report. The last checkpoint stays.
pub fn train(config: &Config, registry: &Registry, options: &Options, watch: &mut dyn FnMut(Event)) -> Result<Outcome> {
    let settings = config.train.clone().context("the config has no section \"train\"")?;
    let data = config.data.clone().context("the config has no section \"data\"")?;
    let output =
        settings.output.as_ref().context("section \"train\" names no output, the folder of log and checkpoints")?;
    let output = config.resolve(output);
    if !options.resume && !run_folder::steps(&output)?.is_empty() {
        bail!(
            "{} holds the checkpoints of an earlier run: give --resume to go on with it, or another train.output",
            output.display()
        )
    }
    std::fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let set = data::open(&data, &config.folder).context("section \"data\"")?;
    let ranks = options.ranks;
    let validation = Validation::open(config)?;
    let own = config;
    let mut config = starting(own, options.resume)?;
    if ranks.size() > 1 {
        config.device = ranks::own_device(config.device, ranks.local());
    }
    let config = &config;
    let mut model = Model::load(config, registry)?;
    model.offline(options.offline || limber_hub::is_offline());
    let adam = AdamW { betas: settings.betas, eps: settings.eps, weight_decay: settings.weight_decay };
    let mut optimizer = Optimizer::new(adam, model.stitch().variables());
    let mut state = State { step: 0, seed: settings.seed, skipped: 0, samples: 0, ranks: ranks.size() };
    let reading = Reader::new(&model, config, &data, set.len())?;
    let ground = Ground { model: &model, config, settings: &settings, set: set.as_ref(), reading: &reading, ranks };
    let standard;
    let mut damaged = Vec::new();
    if options.resume {
        let Some(newest) = checkpoint::newest(&output)? else {
            bail!("{} holds no checkpoint to resume from", run_folder::checkpoints(&output).display())
        };
        let from = (output.as_path(), newest.folder.as_path());
        (state, standard) = checkpoint::restore(from, &mut optimizer, config, ranks.size(), &model)?;
        damaged = newest.damaged;
    } else {
        standard = ground.prepare(&mut |done, of| watch(Event::Fitting(done, of)))?;
    }
    let learner = &Learner::new(&model, standard);
    let mut started = Started::new(&ground, learner, state.step)?;
    let step = state.step;
    started.notes.extend(damaged.iter().map(|(folder, reason)| {
        format!(
            "the checkpoint {} cannot be read, so that the run goes on from step {step}: {reason}",
            folder.display()
        )
    }));
    watch(Event::Started(&started));
    agree(ranks, config, &optimizer, step)?;
    if ranks.rank() == 0 {
        checkpoint::set_aside(&damaged)?;
        write_config(&output, own)?;
    }
    let mut best = Best::open(&output, settings.validate.as_ref(), options.resume);
    let mut log = (ranks.rank() == 0).then(|| Log::open(&output, state.step, config)).transpose()?;
    let order = Order::new(set.len(), settings.seed, data.shuffle).share(ranks.rank(), ranks.size(), settings.batch);
    let per_step = (settings.batch * settings.accumulate) as u64;
    let positions = (state.step as u64 * per_step, settings.steps as u64 * per_step);
    // Micro-batches are read ahead: a whole step may be thousands of images.
    let loader = Loader::new(set.as_ref(), order, &reading, positions, (settings.batch, data.workers));
    let mut run = Run { config, settings: &settings, learner, ranks, optimizer, state, output: &output };
    let mut look = |run: &Run, log: &mut Option<Log>, watch: &mut dyn FnMut(Event)| -> Result<()> {
        let step = run.state.step;
        let Some(validation) = validation.as_ref().filter(|v| v.is_due(step, settings.steps)) else { return Ok(()) };
        let validated = validation.run(config, learner, ranks, step);
        let validated = validated.with_context(|| format!("validation after step {step}"))?;
        if let Some(log) = log {
            log.validated(&validated)?;
            let stitch = || learner.export(run.optimizer.variables());
            best.offer(&validated, stitch, model.prefix_encoder().stitch_metadata())?;
        }
        watch(Event::Validated(&validated));
        Ok(())
    };
    // One process that is asked to stop stops all of them after the same micro-batch.
    let asked = || -> Result<bool> {
        let mut stop = [f64::from(u8::from(options.stop.load(Ordering::Relaxed)))];
        ranks.sum_exact(&mut stop)?;
        Ok(stop[0] > 0.0)
    };
    loader.run(|| {
        if run.state.step == 0 {
            look(&run, &mut log, watch)?;
        }
        while run.state.step < settings.steps {
            let Some(record) = run.step(&loader, log.as_mut(), data.max_skipped, &asked)? else {
                return Err(Interrupted { step: run.state.step, at: run.save()? }.into());
            };
            watch(Event::Step(&record));
            // Before the checkpoint, so that a resumed run has every look that lies behind it.
            look(&run, &mut log, watch)?;
            if run.state.step.is_multiple_of(settings.save_every) || run.state.step == settings.steps {
                run.save()?;
            }
        }
        Ok(())
    })?;
    let stitch = output.join(STITCH);
    if ranks.rank() == 0 {
        if let Some(log) = &mut log {
            log.end(run.state.step)?;
        }
        weights::save(
            &stitch,
            &learner.export(run.optimizer.variables())?,
            &model.prefix_encoder().stitch_metadata().to_map()?,
        )?;
    }
    Ok(Outcome { stitch: Some(stitch), steps: run.state.step, skipped: run.state.skipped })
}

/// Writes the config that uses what the run trains.
fn write_config(output: &Path, config: &Config) -> Result<()> {
    let mut config = config.absolute()?;
    config.stitch.weights = Some(WeightSpec::Local(STITCH.to_string()));
    weights::replace(&output.join(CONFIG), config::show(&config, false).as_bytes())
}

/// Refuses processes that do not train the same: other settings, another checkpoint, another start.
fn agree(ranks: &dyn Ranks, config: &Config, optimizer: &Optimizer, step: usize) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    let mut hash =
        Sha256::new_with_prefix(config::show(&Config { device: DeviceSpec::default(), ..config.clone() }, false));
    hash.update((step as u64).to_le_bytes());
    for data in checkpoint::tensors(optimizer.variables())?.values() {
        hash.update(data.bytes());
    }
    let own = hash.finalize().iter().take(4).fold(0u32, |n, b| n << 8 | u32::from(*b));
    // All are equal exactly where each is the mean.
    let mut sum = [f64::from(own)];
    ranks.sum_exact(&mut sum)?;
    if sum[0] != f64::from(own) * ranks.size() as f64 {
        bail!("the processes differ in config, checkpoint or starting stitch; all of them need the same files")
    }
    Ok(())
}

/// The config with the weights that the stitch is built from before the first step: those that `train.start` says, those of
/// the newest checkpoint where a run is resumed.
///
/// # Errors
/// A folder of checkpoints that cannot be listed, checkpoints none of which can be read.
pub fn starting(config: &Config, resume: bool) -> Result<Config> {
    let Some(settings) = &config.train else { return Ok(config.clone()) };
    let mut config = config.clone();
    let newest = match &settings.output {
        Some(output) if resume => checkpoint::newest(&config.resolve(output))?,
        _ => None,
    };
    let random = Some(WeightSpec::Random(settings.seed));
    config.stitch.weights = match (newest, settings.start) {
        (Some(newest), _) => Some(checkpoint::path_spec(&std::path::absolute(newest.folder.join(STITCH))?)?),
        (None, Start::Stitch) => config.stitch.weights.or(random),
        (None, Start::Random | Start::Fit) => random,
    };
    Ok(config)
}
