//! `output/log.jsonl`, one line a step; `output/skipped.jsonl`, one line an item that was passed over; and
//! `output/validation.jsonl`, one line a look at the held-out data. TensorBoard's event files tell the same.
//!
//! A resumed run cuts both back to the steps that its checkpoint has behind it, so that no step stands twice.

use super::events::Events;
use anyhow::{Context, Result};
use limber_charts::{Colour, Curve, Frame, Key, Line, WIDE, curves, smoothed};
use limber_config::{self as config, Config};
use limber_pipeline::Thumbnail;
use serde::Serialize;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

const STEPS: &str = "log.jsonl";
const VALIDATION: &str = "validation.jsonl";

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

/// One line of `validation.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validated {
    /// Steps done before it.
    pub step: usize,
    /// Mean of -log p over the target tokens, without dropout.
    pub loss: f64,
    /// Target tokens.
    pub tokens: usize,
    /// Items.
    pub items: usize,
    /// What the model says of a few of their images.
    pub captions: Vec<Said>,
    /// Seconds in all.
    pub seconds: f64,
}

/// A caption of a held-out image.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Said {
    /// The item's name.
    pub item: String,
    /// Its own caption.
    pub caption: String,
    /// The model's.
    pub text: String,
    /// The image, small, where it can be shown and was not shown before.
    #[serde(skip)]
    pub image: Option<Thumbnail>,
}

/// The files of a run.
pub struct Log {
    steps: File,
    skipped: File,
    validation: File,
    events: Events,
}

impl Log {
    /// Opens the files of `output`, without lines of step `from` and later; TensorBoard is told the config.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(output: &Path, from: usize, config: &Config) -> Result<Self> {
        let within = if from == 0 { 0 } else { from + 1 };
        let mut events = Events::open(&output.join("tensorboard"), within)?;
        events.settings(config)?;
        events.text(0, "config", &format!("```yaml\n{}\n```\n", config::show(config, false)))?;
        Ok(Self {
            steps: cut(&output.join(STEPS), from)?,
            skipped: cut(&output.join("skipped.jsonl"), from)?,
            // A line counts the steps before it, so that the one of the checkpoint itself stays.
            validation: cut(&output.join(VALIDATION), within)?,
            events,
        })
    }

    /// Adds a step.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn step(&mut self, record: &Record) -> Result<()> {
        line(&self.steps, &serde_json::to_value(record)?).context("cannot write log.jsonl")?;
        let numbers = [
            ("train/loss", record.loss),
            ("train/lr", record.lr),
            ("train/grad_norm", record.grad_norm),
            ("train/samples_per_second", record.samples as f64 / record.step_s.max(1e-9)),
        ];
        // TensorBoard counts the steps done, as a validation does.
        self.events.numbers(record.step + 1, &numbers)
    }

    /// Adds a look at the held-out data.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn validated(&mut self, validated: &Validated) -> Result<()> {
        line(&self.validation, &serde_json::to_value(validated)?).context("cannot write validation.jsonl")?;
        self.events.numbers(validated.step, &[("validation/loss", validated.loss)])?;
        if validated.captions.is_empty() {
            return Ok(());
        }
        for (n, said) in validated.captions.iter().enumerate() {
            if let Some(image) = &said.image {
                let tag = format!("validation/image {}", n + 1);
                self.events.image(validated.step, &tag, &format!("{}. {}", n + 1, said.caption), image)?;
            }
        }
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let row = |(n, said): (usize, &Said)| {
            format!("| {} | {} | {} | {} |\n", n + 1, cell(&said.caption), cell(&said.text), cell(&said.item))
        };
        let rows: String = validated.captions.iter().enumerate().map(row).collect();
        let table = format!("| image | its caption | the model's | item |\n|---|---|---|---|\n{rows}");
        self.events.text(validated.step, "validation/captions", &table)
    }

    /// The run has finished.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn end(&mut self, steps: usize) -> Result<()> {
        self.events.end(steps)
    }

    /// Adds an item that was passed over.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn skipped(&self, step: usize, item: &str, reason: &str) -> Result<()> {
        line(&self.skipped, &json!({"step": step, "item": item, "reason": reason}))
            .context("cannot write skipped.jsonl")
    }
}

/// Draws the losses that the files of `output` tell of to `loss.svg`.
///
/// # Errors
/// A file that cannot be read or written.
pub fn draw(output: &Path) -> Result<()> {
    // A line counts the steps before it, a step's loss is known when it is done.
    let losses = |name: &str, ahead: f64| -> Result<Vec<(f64, f64)>> {
        let path = output.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let point = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            Some((line.get("step")?.as_u64()? as f64 + ahead, line.get("loss")?.as_f64()?))
        };
        Ok(text.lines().filter_map(point).collect())
    };
    let picture = picture(losses(STEPS, 1.0)?, losses(VALIDATION, 0.0)?);
    limber_weights::replace(&output.join("loss.svg"), picture.as_bytes())
}

fn picture(steps: Vec<(f64, f64)>, validation: Vec<(f64, f64)>) -> String {
    let curve = |name, colour, line, points| Curve { key: Key { name, colour }, line, points };
    let smooth = smoothed(&steps);
    let mut all = vec![
        curve("loss of a step", Colour::Blue, Line::Faint, steps),
        curve("smoothed", Colour::Blue, Line::Full, smooth),
    ];
    if !validation.is_empty() {
        all.push(curve("validation", Colour::Vermillion, Line::Dots, validation));
    }
    let frame = Frame { title: "Loss while training", x: "optimiser steps", y: "nats per target token", width: WIDE };
    curves(&frame, &all)
}

/// A line in one write, so that a kill leaves whole lines or one cut at the end.
fn line(mut file: &File, value: &Value) -> Result<()> {
    Ok(file.write_all(format!("{value}\n").as_bytes())?)
}

/// The file with the whole lines of steps before `from`, open for more.
fn cut(path: &Path, from: usize) -> Result<File> {
    let context = || format!("cannot open {}", path.display());
    if path.exists() {
        let text = fs::read(path).with_context(context)?;
        let text = String::from_utf8_lossy(&text);
        let before = |line: &&str| {
            let step = serde_json::from_str::<Value>(line).ok().and_then(|v| v.get("step")?.as_u64());
            step.is_some_and(|step| (step as usize) < from)
        };
        let kept: String = text.lines().filter(before).map(|line| format!("{line}\n")).collect();
        limber_weights::replace(path, kept.as_bytes())?;
    }
    OpenOptions::new().create(true).append(true).open(path).with_context(context)
}
