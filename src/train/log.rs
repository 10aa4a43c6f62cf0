//! `output/log.jsonl`, one line a step, and `output/skipped.jsonl`, one line an item that was passed over.
//!
//! A resumed run cuts both back to the steps that its checkpoint has behind it, so that no step stands twice.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// One line of `log.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// The step, from 0.
    pub step: usize,
    /// Mean of -log p over the step's target tokens.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Target tokens.
    pub tokens: usize,
    /// Samples.
    pub samples: usize,
    /// Seconds of waiting for data.
    pub data_s: f64,
    /// Seconds forward.
    pub forward_s: f64,
    /// Seconds backward.
    pub backward_s: f64,
    /// Seconds in all.
    pub step_s: f64,
}

/// The two files of a run.
pub struct Log {
    steps: File,
    skipped: File,
    skipped_path: PathBuf,
}

impl Log {
    /// Opens the files of `output`, without lines of step `from` and later.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(output: &Path, from: usize) -> Result<Self> {
        let skipped_path = output.join("skipped.jsonl");
        Ok(Self { steps: cut(&output.join("log.jsonl"), from)?, skipped: cut(&skipped_path, from)?, skipped_path })
    }

    /// Adds a step.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn step(&mut self, record: &Record) -> Result<()> {
        line(&mut self.steps, &serde_json::to_value(record)?).context("cannot write log.jsonl")
    }

    /// Adds an item that was passed over.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn skipped(&mut self, step: usize, item: &str, reason: &str) -> Result<()> {
        line(&mut self.skipped, &json!({"step": step, "item": item, "reason": reason}))
            .context("cannot write skipped.jsonl")
    }

    /// The file that names what was passed over.
    pub fn skipped_path(&self) -> &Path {
        &self.skipped_path
    }
}

/// A line in one write, so that a kill leaves whole lines or one cut at the end.
fn line(file: &mut File, value: &Value) -> Result<()> {
    Ok(file.write_all(format!("{value}\n").as_bytes())?)
}

/// The file with the whole lines of steps before `from`, open for more.
fn cut(path: &Path, from: usize) -> Result<File> {
    let place = || format!("cannot open {}", path.display());
    if path.exists() {
        let text = fs::read(path).with_context(place)?;
        let text = String::from_utf8_lossy(&text);
        let before = |line: &&str| {
            let step = serde_json::from_str::<Value>(line).ok().and_then(|v| v.get("step")?.as_u64());
            step.is_some_and(|step| (step as usize) < from)
        };
        let kept: String = text.lines().filter(before).map(|line| format!("{line}\n")).collect();
        crate::weights::replace(path, kept.as_bytes())?;
    }
    OpenOptions::new().create(true).append(true).open(path).with_context(place)
}
