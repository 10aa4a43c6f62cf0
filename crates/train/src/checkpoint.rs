//! Checkpoints: all that a run needs to go on bit for bit, in one folder that appears whole or not at all.
//!
//! ```text
//! output/checkpoints/step-00000500/stitch.safetensors      the stitch, as `caption` reads it
//!                                  optimizer.safetensors   AdamW's moments; with standardised features, the variables
//!                                                          themselves, means and deviations
//!                                  state.json              step, seed, counts
//!                                  config.yaml             the resolved config, its paths absolute
//! ```
//!
//! The order of the data, the schedule and every random number are functions of the seed and the step, so the step says
//! where the run stands.

use super::learner::Learner;
use super::optimizer::Optimizer;
use super::standard::Standard;
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor, Var};
use limber_config::{self as config, Config};
use limber_config::{Difference, Schedule, differences};
use limber_core::WeightType;
use limber_core::weights::{FrozenData, Request, WeightSource, ZEROS};
use limber_pipeline::model::Model;
use limber_pipeline::run_folder::{CONFIG, STITCH, checkpoints, step, steps};
use limber_weights as weights;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// AdamW's moments.
const MOMENTS: &str = "optimizer.safetensors";

/// What `state.json` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: usize,
    /// The seed of the run.
    pub seed: u64,
    /// Items that were passed over so far.
    pub skipped: usize,
    /// Samples that were read so far.
    pub samples: u64,
    /// Processes that train together.
    #[serde(default = "one")]
    pub ranks: usize,
}

fn one() -> usize {
    1
}

/// Settings that may change between a run and its continuation.
const FREE: [&str; 12] = [
    "train.start",
    "device",
    "train.validate",
    "train.output",
    "train.save_every",
    "train.keep",
    "train.recompute",
    "data.workers",
    "data.path",
    "threads",
    "stitch.weights",
    "generate",
];

/// Tensors of the variables, as the stitch's file holds them.
pub fn tensors(variables: &BTreeMap<String, Var>) -> Result<BTreeMap<String, FrozenData>> {
    let data = |var: &Var| -> Result<FrozenData> {
        Ok(FrozenData::from_f32(var.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?, var.dims()))
    };
    variables.iter().map(|(name, var)| Ok((name.clone(), data(var)?))).collect()
}

/// Writes a checkpoint and drops all but the newest `keep`.
///
/// # Errors
/// A folder that cannot be written; earlier checkpoints stay.
pub fn save(
    output: &Path,
    keep: usize,
    optimizer: &Optimizer,
    learner: &Learner,
    state: &State,
    config: &Config,
) -> Result<PathBuf> {
    let folder = checkpoints(output);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let to = step(output, state.step);
    let part = tempfile::Builder::new()
        .prefix(".step-")
        .suffix(".part")
        .tempdir_in(&folder)
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    let metadata = learner.model.prefix_encoder().stitch_metadata().to_map()?;
    weights::save(&part.path().join(STITCH), &learner.export(optimizer.variables())?, &metadata)?;
    let mut moments = optimizer.state();
    if let Some(standard) = learner.standard() {
        // Folding rounds, so that what goes on bit for bit is kept beside it.
        moments.extend(tensors(optimizer.variables())?.into_iter().map(|(name, data)| (format!("value.{name}"), data)));
        let of = |(name, values): (&str, &[f32])| {
            (format!("standard.{name}"), FrozenData::from_f32(values.to_vec(), &[values.len()]))
        };
        moments.extend(standard.values().map(of));
    }
    weights::save(&part.path().join(MOMENTS), &moments, &BTreeMap::new())?;
    let write = |name: &str, text: &str| -> Result<()> {
        let path = part.path().join(name);
        weights::replace(&path, text.as_bytes())
    };
    write(CONFIG, &config::show(&config.absolute()?, false))?;
    write("state.json", &serde_json::to_string_pretty(state)?)?;
    // The same step again, after a resume that found it damaged: the newer one counts.
    if to.exists() {
        fs::remove_dir_all(&to).with_context(|| format!("cannot replace {}", to.display()))?;
    }
    let part = part.keep();
    fs::rename(&part, &to).with_context(|| format!("cannot rename {} to {}", part.display(), to.display()))?;
    fs::File::open(&folder).and_then(|f| f.sync_all()).ok();
    let all = steps(output)?;
    for (_, old) in all.iter().take(all.len().saturating_sub(keep.max(1))) {
        fs::remove_dir_all(old).with_context(|| format!("cannot remove the old checkpoint {}", old.display()))?;
    }
    Ok(to)
}

/// The checkpoint that a resumed run goes on from.
#[derive(Debug)]
pub struct Newest {
    /// Its folder.
    pub folder: PathBuf,
    /// Newer ones that cannot be read, each with the reason.
    pub damaged: Vec<(PathBuf, String)>,
}

/// The newest checkpoint that is whole; None where there is no checkpoint at all.
///
/// # Errors
/// A folder that cannot be listed, checkpoints none of which can be read.
pub fn newest(output: &Path) -> Result<Option<Newest>> {
    let mut damaged: Vec<(PathBuf, String)> = Vec::new();
    for (_, folder) in steps(output)?.into_iter().rev() {
        match check(&folder) {
            Ok(()) => return Ok(Some(Newest { folder, damaged })),
            Err(error) => damaged.push((folder, format!("{error:#}"))),
        }
    }
    let Some((folder, reason)) = damaged.first() else { return Ok(None) };
    bail!(
        "cannot resume from {}: {reason}; {} to begin anew remove {}, or name another train.output",
        folder.display(),
        if damaged.len() == 1 { "there is no other checkpoint:" } else { "nor can an earlier checkpoint be read:" },
        checkpoints(output).display()
    )
}

/// Whether all files of a checkpoint can be read, as far as their headers tell.
fn check(folder: &Path) -> Result<()> {
    state(folder)?;
    config::load(&folder.join(CONFIG), &[])?;
    for name in [STITCH, MOMENTS] {
        weights::open(&path_spec(&folder.join(name))?, &[], Path::new(""))?;
    }
    Ok(())
}

fn state(folder: &Path) -> Result<State> {
    let path = folder.join("state.json");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// Puts damaged checkpoints aside, where no run looks for them, and says so.
///
/// # Errors
/// A folder that cannot be renamed.
pub fn set_aside(damaged: &[(PathBuf, String)]) -> Result<()> {
    for (from, _) in damaged {
        let to = from.with_added_extension("damaged");
        // One of that step was put aside before: what is in it is of no more use.
        if to.exists() {
            fs::remove_dir_all(&to).with_context(|| format!("cannot replace {}", to.display()))?;
        }
        fs::rename(from, &to).with_context(|| format!("cannot rename {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Takes up the checkpoint in the folder `newest` of the run in `output`: variables and moments are set, the state is given
/// back, and what features of width `width` are standardised by.
///
/// # Errors
/// A checkpoint of a run with other settings, or one that cannot be read.
pub fn restore(
    (output, newest): (&Path, &Path),
    optimizer: &mut Optimizer,
    config: &Config,
    ranks: usize,
    model: &Model,
) -> Result<(State, Option<Standard>)> {
    let context = || format!("cannot resume from {}", newest.display());
    let state = state(newest).with_context(context)?;
    if state.ranks != ranks {
        bail!(
            "{}: it trained with {} processes and has {ranks} now; a resumed run keeps their number",
            context(),
            state.ranks
        )
    }
    let saved = config::load(&newest.join(CONFIG), &[]).with_context(context)?;
    let is_free = |key: &str| {
        let below = |free: &str| key.strip_prefix(free).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        FREE.iter().any(|free| below(free))
    };
    let saved = saved.config.to_value();
    let differing = differences(&saved, &config.absolute()?.to_value());
    // Checkpoints of earlier versions hold paths as the config had them.
    let as_written = differences(&saved, &config.to_value());
    let is_other = |found: &&Difference| !is_free(&found.key) && as_written.iter().any(|other| other.key == found.key);
    if let Some(found) = differing.iter().filter(is_other).find(|found| found.key == "train.steps") {
        check_steps(found, config, output).with_context(context)?;
    }
    let is_wrong = |found: &&Difference| is_other(found) && found.key != "train.steps";
    if let Some(Difference { key, before, now }) = differing.iter().find(is_wrong) {
        bail!(
            "{}: {key} was {before} and is {now} now; a resumed run keeps its settings (allowed to change: {})",
            context(),
            FREE.join(", ")
        )
    }
    if let Some(steps) = config.train.as_ref().map(|train| train.steps).filter(|steps| state.step > *steps) {
        bail!("{}: it stands after step {}, beyond train.steps, which is {steps}", context(), state.step)
    }
    let open = |name: &str| weights::open(&path_spec(&newest.join(name))?, &[], Path::new(""));
    let stitch = open(STITCH).with_context(context)?;
    let moments = open(MOMENTS).with_context(context)?;
    let is_standardised = config.train.as_ref().is_some_and(|train| train.standardise);
    for (name, var) in optimizer.variables() {
        let values = match is_standardised {
            true => read(moments.as_ref(), &format!("value.{name}"), var.dims()),
            false => read(stitch.as_ref(), name, var.dims()),
        };
        var.set(&Tensor::from_vec(values.with_context(context)?, var.shape(), var.device())?)?;
    }
    optimizer.restore(state.step as u64, |name, shape| read(moments.as_ref(), name, shape)).with_context(context)?;
    let width = model.feature_spec().width;
    let of = |name: &str| read(moments.as_ref(), &format!("standard.{name}"), &[width]).with_context(context);
    let standard = match is_standardised {
        true => Some(Standard::new(of("mean")?, of("deviation")?, model.device()).with_context(context)?),
        false => None,
    };
    Ok((state, standard))
}

/// Refuses another number of steps where the steps that are done would have had other learning rates with it.
fn check_steps(steps: &Difference, config: &Config, output: &Path) -> Result<()> {
    let Difference { before, now, .. } = steps;
    let schedule = config.train.as_ref().map(|train| train.schedule);
    let Some(schedule @ (Schedule::WarmupDecay | Schedule::Cosine)) = schedule else { return Ok(()) };
    let name = serde_json::to_value(schedule)?;
    bail!(
        "train.steps was {before} and is {now} now, but the schedule {name} spreads its decay over train.steps, so that the \
         steps that are done would have had other learning rates; a run with the schedule \"constant\" or \"warmup\" goes on \
         with any number of steps, and a new run trains this stitch further: --set train.start=stitch \
         --set stitch.weights={} --set train.output=ANOTHER",
        output.join(STITCH).display()
    )
}

/// The file at `path` as weights.
///
/// # Errors
/// A path that is not UTF-8.
pub fn path_spec(path: &Path) -> Result<weights::WeightSpec> {
    let Some(text) = path.to_str() else { bail!("the path {path:?} is not UTF-8") };
    Ok(weights::WeightSpec::Local(text.to_string()))
}

fn read(source: &dyn WeightSource, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let data = source.read(&Request { name, shape, init: ZEROS, dtype: WeightType::F32 })?;
    Ok(data.to_f32(0..data.elements()))
}
