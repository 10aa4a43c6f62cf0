//! Checkpoints: all that a run needs to go on bit for bit, in one folder that appears whole or not at all.
//!
//! ```text
//! output/checkpoints/step-00000500/stitch.safetensors      the stitch, as `caption` reads it
//!                                  optimizer.safetensors   AdamW's moments
//!                                  state.json              step, seed, counts
//!                                  config.yaml             the resolved config
//! ```
//!
//! The order of the data, the schedule and every random number are functions of the seed and the step, so the step says
//! where the run stands.

use super::optimizer::Optimizer;
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor, Var};
use limber_config::{self as config, Config};
use limber_config::{Difference, differences};
use limber_core::WeightType;
use limber_core::weights::{FrozenData, Request, WeightSource, ZEROS};
use limber_pipeline::stitch_file::StitchMetadata;
use limber_weights as weights;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

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
const FREE: [&str; 11] = [
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

/// The folder of checkpoints under an output folder.
pub fn folder(output: &Path) -> PathBuf {
    output.join("checkpoints")
}

/// Where the checkpoint after `step` steps is.
pub fn context(output: &Path, step: usize) -> PathBuf {
    folder(output).join(format!("step-{step:08}"))
}

/// The checkpoints there are, oldest first.
///
/// # Errors
/// A folder that cannot be listed.
pub fn list(output: &Path) -> Result<Vec<(usize, PathBuf)>> {
    let folder = folder(output);
    let mut found = Vec::new();
    if folder.is_dir() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let name = entry.file_name();
            let step = name.to_str().and_then(|name| name.strip_prefix("step-")).and_then(|n| n.parse().ok());
            found.extend(step.map(|step| (step, entry.path())));
        }
    }
    found.sort();
    Ok(found)
}

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
    metadata: &StitchMetadata,
    state: &State,
    config: &Config,
) -> Result<PathBuf> {
    let folder = folder(output);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let to = context(output, state.step);
    let part = tempfile::Builder::new()
        .prefix(".step-")
        .suffix(".part")
        .tempdir_in(&folder)
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    weights::save(&part.path().join("stitch.safetensors"), &tensors(optimizer.variables())?, &metadata.to_map()?)?;
    weights::save(&part.path().join("optimizer.safetensors"), &optimizer.state(), &BTreeMap::new())?;
    let write = |name: &str, text: &str| -> Result<()> {
        let path = part.path().join(name);
        weights::replace(&path, text.as_bytes())
    };
    write("config.yaml", &config::show(config, false))?;
    write("state.json", &serde_json::to_string_pretty(state)?)?;
    // The same step again, after a resume that found it damaged: the newer one counts.
    if to.exists() {
        fs::remove_dir_all(&to).with_context(|| format!("cannot replace {}", to.display()))?;
    }
    let part = part.keep();
    fs::rename(&part, &to).with_context(|| format!("cannot rename {} to {}", part.display(), to.display()))?;
    fs::File::open(&folder).and_then(|f| f.sync_all()).ok();
    let all = list(output)?;
    for (_, old) in all.iter().take(all.len().saturating_sub(keep.max(1))) {
        fs::remove_dir_all(old).with_context(|| format!("cannot remove the old checkpoint {}", old.display()))?;
    }
    Ok(to)
}

/// Takes up the newest checkpoint: variables and moments are set, the state is given back.
///
/// # Errors
/// No checkpoint, one that cannot be read, or one of a run with other settings.
pub fn restore(output: &Path, optimizer: &mut Optimizer, config: &Config, ranks: usize) -> Result<State> {
    let Some((_, newest)) = list(output)?.pop() else {
        bail!("{} holds no checkpoint to resume from", folder(output).display())
    };
    let context = || format!("cannot resume from {}", newest.display());
    let text = fs::read_to_string(newest.join("state.json")).with_context(context)?;
    let state: State = serde_json::from_str(&text).with_context(context)?;
    if state.ranks != ranks {
        bail!(
            "{}: it trained with {} processes and has {ranks} now; a resumed run keeps their number",
            context(),
            state.ranks
        )
    }
    let saved = config::load(&newest.join("config.yaml"), &[]).with_context(context)?;
    let is_free = |key: &str| {
        let below = |free: &str| key.strip_prefix(free).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        FREE.iter().any(|free| below(free))
    };
    let differing = differences(&saved.config.to_value(), &config.to_value());
    if let Some(Difference { key, before, now }) = differing.iter().find(|found| !is_free(&found.key)) {
        bail!(
            "{}: {key} was {before} and is {now} now; a resumed run keeps its settings (allowed to change: {})",
            context(),
            FREE.join(", ")
        )
    }
    let open = |name: &str| weights::open(&path_spec(&newest.join(name))?, &[], Path::new(""));
    let stitch = open("stitch.safetensors").with_context(context)?;
    for (name, var) in optimizer.variables() {
        let values = read(stitch.as_ref(), name, var.dims()).with_context(context)?;
        var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
    }
    let moments = open("optimizer.safetensors").with_context(context)?;
    optimizer.restore(state.step as u64, |name, shape| read(moments.as_ref(), name, shape)).with_context(context)?;
    Ok(state)
}

fn path_spec(path: &Path) -> Result<weights::WeightSpec> {
    let Some(text) = path.to_str() else { bail!("the path {path:?} is not UTF-8") };
    Ok(weights::WeightSpec::Local(text.to_string()))
}

fn read(source: &dyn WeightSource, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let data = source.read(&Request { name, shape, init: ZEROS, dtype: WeightType::F32 })?;
    Ok(data.to_f32(0..data.elements()))
}
