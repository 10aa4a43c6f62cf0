//! A run under way: the step over all processes, what it logs, and its checkpoints.

use super::checkpoint::{self, State};
use super::learner::Learner;
use super::log::{self, Log, Record};
use super::optimizer::{self, Gradients, Optimizer};
use super::ranks::Ranks;
use super::schedule::learning_rate;
use super::step::{Micro, Normalise, micro_batch};
use anyhow::{Context, Result, bail};
use limber_config::{Compat, Config, Train};
use limber_core::Mode;
use limber_core::hash;
use limber_data::{Loader, Sample};
use limber_pipeline::run_folder;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Samples that are read before a share of corrupt items counts: a first bad item is no share.
const FIRST_SAMPLES: u64 = 100;

/// A run under way.
pub struct Run<'a> {
    /// The config, with its start filled in.
    pub config: &'a Config,
    /// Its section `train`.
    pub settings: &'a Train,
    /// What is trained.
    pub learner: &'a Learner<'a>,
    /// The processes that train together.
    pub ranks: &'a dyn Ranks,
    /// The stitch's variables and their moments, alike in all processes.
    pub optimizer: Optimizer,
    /// Where the run stands.
    pub state: State,
    /// Folder of log and checkpoints.
    pub output: &'a Path,
}

/// What the processes add up beside the gradients.
struct Together {
    loss: f64,
    tokens: f64,
    samples: f64,
    skipped: f64,
}

impl Run<'_> {
    /// One optimiser step over `accumulate` micro-batches of every process; `log` is there in rank 0 alone. None where `asked`
    /// says between two micro-batches that the run shall end: the step has not been made then, and a resumed run makes it.
    ///
    /// # Errors
    /// A value that is not finite, too many corrupt items, what the components report.
    pub fn step(
        &mut self,
        loader: &Loader,
        log: Option<&mut Log>,
        max_skipped: f64,
        asked: &dyn Fn() -> Result<bool>,
    ) -> Result<Option<Record>> {
        let (step, settings, ranks) = (self.state.step, self.settings, self.ranks);
        let context = || format!("step {step}");
        let normalise = match self.config.compat {
            Some(Compat::Original) => Normalise::Original { micro_batches: settings.accumulate * ranks.size() },
            None => Normalise::Step,
        };
        let start = Instant::now();
        let mut gradients = Gradients::new();
        let (mut micros, mut names, mut skipped, mut data_s) = (Vec::new(), Vec::new(), Vec::new(), 0.0);
        for micro in 0..settings.accumulate {
            if asked()? {
                return Ok(None);
            }
            let waiting = Instant::now();
            let samples = self.samples(loader, names.len(), &mut skipped, max_skipped).with_context(context);
            if let (Err(_), Some(log)) = (&samples, &log) {
                skipped.iter().try_for_each(|(name, reason)| log.skipped(step, name, reason))?;
            }
            let samples = samples?;
            data_s += waiting.elapsed().as_secs_f64();
            names.extend(samples.iter().map(|sample| sample.name.clone()));
            // As if one process had taken all micro-batches in turn.
            let micro = micro * ranks.size() + ranks.rank();
            let mode = Mode::Training { seed: dropout_seed(settings.seed, step, micro) };
            let (learner, optimizer) = (self.learner, &self.optimizer);
            let run = micro_batch(learner, optimizer, &samples, mode, normalise, settings.recompute, &mut gradients);
            micros.push(run.with_context(context)?);
        }
        let own = optimizer::norm(&gradients);
        if !own.is_finite() {
            bail!("step {step}: the gradient's norm is {own}, which is not finite; the items are {}", names.join("; "))
        }
        let all = self.together(&micros, names.len(), &skipped, log.as_deref(), normalise, &mut gradients)?;
        if normalise == Normalise::Step {
            optimizer::scale(&mut gradients, 1.0 / all.tokens as f32);
        }
        let grad_norm = optimizer::clip(&mut gradients, settings.clip);
        if !grad_norm.is_finite() {
            bail!("step {step}: the norm of all processes' gradients together is {grad_norm}, which is not finite")
        }
        let lr = learning_rate(settings, step);
        self.optimizer.step(&gradients, lr).with_context(context)?;
        self.state.step += 1;
        self.state.samples += all.samples as u64;
        self.state.skipped += all.skipped as usize;
        let record = Record {
            step,
            loss: all.loss,
            lr,
            grad_norm,
            tokens: all.tokens as usize,
            samples: all.samples as usize,
            data_s,
            forward_s: micros.iter().map(|m| m.forward_s).sum(),
            backward_s: micros.iter().map(|m| m.backward_s).sum(),
            step_s: start.elapsed().as_secs_f64(),
        };
        if let Some(log) = log {
            log.step(&record)?;
        }
        Ok(Some(record))
    }

    /// Sums gradients and counts over the processes; rank 0 hears of what each of them passed over.
    fn together(
        &self,
        micros: &[Micro],
        samples: usize,
        skipped: &[(String, String)],
        log: Option<&Log>,
        normalise: Normalise,
        gradients: &mut Gradients,
    ) -> Result<Together> {
        let tokens: usize = micros.iter().map(|m| m.targets).sum();
        let loss: f64 = match normalise {
            Normalise::Step => micros.iter().map(|m| m.loss).sum(),
            Normalise::Original { .. } => micros.iter().map(|m| m.loss / m.targets as f64).sum(),
        };
        let mut sums = [loss, tokens as f64, samples as f64, skipped.len() as f64];
        self.ranks.sum_exact(&mut sums)?;
        for values in gradients.values_mut() {
            self.ranks.sum(values)?;
        }
        let [loss, tokens, samples, skips] = sums;
        if skips > 0.0 {
            let told = self.ranks.gather(&serde_json::to_string(skipped)?)?;
            if let Some(log) = log {
                for text in told {
                    let items: Vec<(String, String)> = serde_json::from_str(&text)?;
                    items.iter().try_for_each(|(name, reason)| log.skipped(self.state.step, name, reason))?;
                }
            }
        }
        let loss = match normalise {
            Normalise::Step => loss / tokens,
            Normalise::Original { micro_batches } => loss / micro_batches as f64,
        };
        Ok(Together { loss, tokens, samples, skipped: skips })
    }

    /// The samples of a micro-batch, `before` of this step having been read; what was passed over is added to `skipped`.
    fn samples(
        &self,
        loader: &Loader,
        before: usize,
        skipped: &mut Vec<(String, String)>,
        max_skipped: f64,
    ) -> Result<Vec<Sample>> {
        let mut samples = Vec::with_capacity(self.settings.batch);
        for _ in 0..self.settings.batch {
            let sample = loader.next()?;
            skipped.extend(sample.skipped.iter().cloned());
            samples.push(sample);
            let read = (self.state.samples + (before + samples.len()) as u64).max(FIRST_SAMPLES);
            let bad = self.state.skipped + skipped.len();
            if bad as f64 / (read as f64 + bad as f64) > max_skipped {
                let (name, reason) = skipped.last().cloned().unwrap_or_default();
                bail!(
                    "{bad} items of the first {read} could not be read, more than the share data.max_skipped {max_skipped} allows; they are named in {}, the last is {name}: {reason}",
                    self.output.join("skipped.jsonl").display()
                )
            }
        }
        Ok(samples)
    }

    /// Writes a checkpoint and the picture of the losses, in rank 0; where the checkpoint is.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn save(&self) -> Result<PathBuf> {
        if self.ranks.rank() != 0 {
            return Ok(run_folder::step(self.output, self.state.step));
        }
        let saved =
            checkpoint::save(self.output, self.settings.keep, &self.optimizer, self.learner, &self.state, self.config)
                .context("cannot save a checkpoint")?;
        log::draw(self.output)?;
        Ok(saved)
    }
}

/// The seed of a micro-batch's dropout.
fn dropout_seed(seed: u64, step: usize, micro: usize) -> u64 {
    hash::number(&[b"dropout", &seed.to_le_bytes(), &(step as u64).to_le_bytes(), &(micro as u64).to_le_bytes()])
}
