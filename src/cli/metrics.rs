//! `limber metrics PREDICTIONS REFERENCES`: scores of files, without a model.

use super::output;
use crate::eval::files;
use crate::eval::metrics::statistics::{Comparison, Resampling};
use crate::eval::metrics::{Frequencies, WordClasses};
use crate::eval::score::{Scored, Scoring, score};
use crate::weights;
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Results of COCO captions or VQA, or JSON lines with id and text
    predictions: PathBuf,
    /// COCO or NoCaps captions, VQA annotations, or JSON lines with id and captions or answers
    references: PathBuf,
    /// Another run over the same items: differences with intervals and p-values
    #[arg(long, value_name = "PREDICTIONS")]
    compare: Option<PathBuf>,
    #[command(flatten)]
    pub(super) scoring: Flags,
    /// Writes one JSON line an item, with its scores
    #[arg(long, value_name = "FILE")]
    items: Option<PathBuf>,
    /// Writes the references' document frequencies, for --frequencies
    #[arg(long, value_name = "FILE")]
    save_frequencies: Option<PathBuf>,
    /// Scores the items that have a prediction; without it every item must have one
    #[arg(long)]
    subset: bool,
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// Flags that `eval` has, too.
#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Classes of words that are looked for in captions: {"nouns": ["circle", ["sofa", "couch"]]}
    #[arg(long, value_name = "FILE")]
    words: Option<PathBuf>,
    /// Document frequencies for CIDEr; the references' where nothing is said
    #[arg(long, value_name = "FILE")]
    frequencies: Option<PathBuf>,
    /// Sets drawn for confidence intervals and tests; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1000)]
    resamples: usize,
    /// Seed of those draws
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    resample_seed: u64,
    /// Share of the drawn scores within an interval
    #[arg(long, value_name = "SHARE", default_value_t = 0.95)]
    level: f64,
}

impl Flags {
    /// What the flags ask for.
    ///
    /// # Errors
    /// Files that cannot be read, a level out of range.
    pub fn scoring(&self, subset: bool) -> Result<Scoring> {
        if !(self.level > 0.0 && self.level < 1.0) {
            bail!("--level {} is not allowed, it lies between 0 and 1", self.level)
        }
        Ok(Scoring {
            frequencies: self.frequencies.as_deref().map(Frequencies::read).transpose()?,
            words: self.words.as_deref().map(WordClasses::read).transpose()?,
            resampling: Resampling { draws: self.resamples, seed: self.resample_seed, level: self.level },
            subset,
        })
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let scoring = arguments.scoring.scoring(arguments.subset)?;
    let references = files::references(&arguments.references)?;
    let scored = |path: &Path| score(&references, files::predictions(path)?, &path.display().to_string(), &scoring);
    let run = scored(&arguments.predictions)?;
    let other = arguments.compare.as_deref().map(scored).transpose()?;
    let compared = match &other {
        Some(other) => Some((other, run.compare(other, scoring.resampling)?)),
        None => None,
    };
    if let Some(path) = &arguments.items {
        let mut text = String::new();
        for item in run.items() {
            text.push_str(&item.to_string());
            text.push('\n');
        }
        weights::replace(path, text.as_bytes())?;
    }
    if let Some(path) = &arguments.save_frequencies {
        let own = run.frequencies.as_ref().context("--save-frequencies: the references are no captions")?;
        weights::replace(path, &serde_json::to_vec(own)?)?;
    }
    if arguments.json {
        let mut value = run.to_value(scoring.resampling);
        if let (Some((other, found)), Value::Object(map)) = (&compared, &mut value) {
            map.insert("compare".into(), comparison(other, &run, found));
        }
        return output::json(&value);
    }
    print(&run, scoring.resampling)?;
    if let Some((other, found)) = &compared {
        output::line("")?;
        output::line(&format!(
            "{:<24} {:>10} {:>10} {:>21} {:>8}",
            "against the other", "other", "difference", "interval", "p"
        ))?;
        for (((name, measure), found), _) in other.scores.iter().zip(found).zip(&run.scores) {
            let interval = format!("[{:.4}, {:.4}]", found.interval.low, found.interval.high);
            let value = measure.value();
            output::line(&format!(
                "{name:<24} {value:>10.4} {:>+10.4} {interval:>21} {:>8.4}",
                found.difference, found.p
            ))?;
        }
    }
    Ok(())
}

fn comparison(other: &Scored, run: &Scored, found: &[Comparison]) -> Value {
    let one = |((name, measure), found): ((&String, _), &Comparison)| {
        let measure: &crate::eval::metrics::Measure = measure;
        let interval = [found.interval.low, found.interval.high];
        let value =
            json!({"other": measure.value(), "difference": found.difference, "interval": interval, "p": found.p});
        (name.clone(), value)
    };
    let pairs = run.scores.iter().map(|(name, _)| name).zip(other.scores.iter().map(|(_, measure)| measure));
    Value::Object(pairs.zip(found).map(one).collect())
}

/// A table of all scores on stdout.
pub(super) fn print(run: &Scored, resampling: Resampling) -> Result<()> {
    for ((name, measure), interval) in run.scores.iter().zip(run.intervals(resampling)) {
        let interval = interval.map_or(String::new(), |i| format!("[{:.4}, {:.4}]", i.low, i.high));
        output::line(format!("{name:<24} {:>10.4} {interval:>21}", measure.value()).trim_end())?;
    }
    output::line(&format!("{:<24} {:>10}", "items", run.ids.len()))?;
    for (by, groups) in &run.groups {
        for (group, scores) in groups {
            output::line("")?;
            output::line(&format!("{by} {group}, {} items", scores.first().map_or(0, |(_, m)| m.len())))?;
            for (name, measure) in scores {
                output::line(&format!("{name:<24} {:>10.4}", measure.value()))?;
            }
        }
    }
    Ok(())
}
