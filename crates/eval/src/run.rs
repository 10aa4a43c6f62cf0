//! A whole evaluation in a folder: predictions as they come, what they were made with, scores.
//!
//! ```text
//! OUT/manifest.json        config, options, hashes of the data, fingerprint of the encoder, versions
//! OUT/predictions.jsonl    one line an item, appended as it comes
//! OUT/scores.json          scores with intervals
//! OUT/items.jsonl          the scores of each item
//! ```
//!
//! A run that was cut short leaves whole lines and perhaps a broken one, which the next run drops before it goes on.

use super::clip::Clip;
use super::data::Set;
use super::files::{self, Predictions};
use super::predict::{Prediction, predict};
use super::prompts::Options;
use super::score::{Scored, Scoring, score};
use anyhow::{Context, Result, bail, ensure};
use limber_config::{Config, Difference, differences};
use limber_core::hash;
use limber_pipeline::model::Model;
use limber_weights::{self as weights, WeightSpec};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Everything an evaluation is made of.
pub struct Evaluation<'a> {
    /// The config the model came from.
    pub config: &'a Config,
    /// What is asked.
    pub set: &'a Set,
    /// The training split, for examples.
    pub examples: Option<&'a Set>,
    /// Controls and examples.
    pub options: Options,
    /// The folder of the results; made where it is missing.
    pub out: &'a Path,
}

impl Evaluation<'_> {
    /// The file of predictions.
    pub fn predictions(&self) -> PathBuf {
        self.out.join("predictions.jsonl")
    }

    /// Predicts what is not yet predicted; `progress` hears how many items there are after each.
    ///
    /// # Errors
    /// A folder with predictions where `resume` is not asked for, or with those of another evaluation; what the model
    /// reports.
    pub fn predict(&self, model: &Model, resume: bool, progress: &mut dyn FnMut(usize)) -> Result<()> {
        let manifest = self.manifest(model)?;
        let path = self.predictions();
        std::fs::create_dir_all(self.out).with_context(|| format!("cannot make folder {}", self.out.display()))?;
        let done = match path.exists() {
            false => 0,
            true if !resume => {
                bail!("{} holds predictions; --resume goes on with them, or name another folder", self.out.display())
            }
            true => {
                self.check_same(&manifest)?;
                self.whole_lines(&path)?
            }
        };
        weights::replace(&self.out.join("manifest.json"), &pretty(&manifest)?)?;
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        progress(done);
        if done == self.set.items.len() {
            return Ok(());
        }
        let mut count = done;
        predict(model, self.config, self.set, self.examples, self.options, done, &mut |prediction| {
            // One write a line: a kill leaves whole lines, a power cut at most one broken one.
            let line = format!("{}\n", serde_json::to_string(&prediction)?);
            file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
            count += 1;
            progress(count);
            Ok(())
        })?;
        file.sync_all().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Scores the predictions, by `clip` too where it is given, and writes `scores.json` and `items.jsonl`.
    ///
    /// # Errors
    /// Data without references, predictions that do not fit, images that CLIP cannot read.
    pub fn score(&self, scoring: &Scoring, clip: Option<&Clip>) -> Result<Scored> {
        let path = self.predictions();
        let Some(references) = &self.set.references else {
            bail!(
                "the data tell no answers to score against; --predict-only leaves the predictions in {}",
                path.display()
            )
        };
        let mut scored = score(references, files::predictions(&path)?, &path.display().to_string(), scoring)?;
        if let Some(clip) = clip {
            let images: HashMap<&str, &PathBuf> =
                self.set.items.iter().map(|item| (item.id.as_str(), &item.image)).collect();
            clip.add_scores(&mut scored, references, &|id, _| images[id].clone())?;
        }
        weights::replace(&self.out.join("scores.json"), &pretty(&scored.to_value(scoring.resampling))?)?;
        let lines: Vec<String> = scored.items().iter().map(Value::to_string).collect();
        weights::replace(&self.out.join("items.jsonl"), (lines.join("\n") + "\n").as_bytes())?;
        Ok(scored)
    }

    /// What the predictions are made with.
    fn manifest(&self, model: &Model) -> Result<Value> {
        let stitch = model.prefix_encoder().stitch_metadata();
        let mut hashes = serde_json::Map::new();
        let examples = self.examples.filter(|_| self.options.shots > 0);
        for file in self.set.files.iter().chain(examples.iter().flat_map(|set| &set.files)) {
            hashes.insert(file.display().to_string(), json!(sha256(file)?));
        }
        // The stitch is small and what a run is about; the frozen components are told by their names and the
        // fingerprint.
        if let Some(file) = self.config.stitch.weights.as_ref().and_then(WeightSpec::local) {
            let path = self.config.resolve(file);
            let path = if path.exists() { path } else { file.to_path_buf() };
            if path.is_file() {
                hashes.insert(file.display().to_string(), json!(sha256(&path)?));
            }
        }
        Ok(json!({
            "limber": env!("CARGO_PKG_VERSION"),
            "task": self.set.task.name(),
            "items": self.set.items.len(),
            "options": self.options,
            "config": self.config.to_value(),
            "encoder": {"kind": stitch.encoder, "features": stitch.features, "fingerprint": stitch.fingerprint},
            "prefix": stitch.prefix,
            "sha256": hashes,
        }))
    }

    /// Refuses to go on with the predictions of another evaluation.
    fn check_same(&self, manifest: &Value) -> Result<()> {
        let path = self.out.join("manifest.json");
        let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let there: Value = serde_json::from_slice(&text).with_context(|| format!("{}: not JSON", path.display()))?;
        // Threads, device and batch do not change what is said, so they may differ.
        let stable = |manifest: &Value| {
            let mut manifest = manifest.clone();
            for pointer in ["", "/generate"] {
                if let Some(Value::Object(map)) = manifest["config"].pointer_mut(pointer) {
                    for key in ["threads", "device", "batch"] {
                        map.shift_remove(key);
                    }
                }
            }
            manifest
        };
        let (there, here) = (stable(&there), stable(manifest));
        if let Some(Difference { key, before, now }) = differences(&there, &here).into_iter().next() {
            bail!(
                "{}: the predictions there were made with {key} {before}, now it is {now}; name another folder",
                self.out.display()
            )
        }
        Ok(())
    }

    /// How many predictions are there; a broken last line is dropped.
    fn whole_lines(&self, path: &Path) -> Result<usize> {
        let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut count = 0;
        for line in text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let context = || format!("{}, line {}", path.display(), count + 1);
            let prediction: Prediction = serde_json::from_slice(line).with_context(context)?;
            let item = self.set.items.get(count).with_context(|| format!("{}: more lines than items", context()))?;
            ensure!(
                prediction.id == item.id,
                "{}: it is of item {:?}, where the data have {:?}; name another folder",
                context(),
                prediction.id,
                item.id
            );
            count += 1;
        }
        if whole < text.len() {
            let file = OpenOptions::new().write(true).open(path);
            file.and_then(|file| file.set_len(whole as u64))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(count)
    }
}

/// Predictions as the scorer takes them.
pub fn by_id(predictions: &[Prediction]) -> Predictions {
    predictions.iter().map(|p| (p.id.clone(), p.text.clone())).collect()
}

fn pretty(value: &Value) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

fn sha256(path: &Path) -> Result<String> {
    File::open(path).and_then(hash::sha256).with_context(|| format!("cannot read {}", path.display()))
}
