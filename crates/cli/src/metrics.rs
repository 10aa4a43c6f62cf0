//! `limber metrics PREDICTIONS REFERENCES`: scores of files, without a model.

use super::options::Network;
use super::output;
use anyhow::{Context, Result, bail};
use clap::Args;
use limber_eval::clip::Clip;
use limber_eval::files;
use limber_eval::metrics::statistics::{Comparison, Resampling};
use limber_eval::metrics::{Frequencies, Measure, WordClasses};
use limber_eval::score::{Scored, Scoring, score};
use limber_pipeline::needs;
use limber_weights::{self as weights, WeightSpec};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct Arguments {
    /// Predictions: results of COCO captions or VQA, or JSON lines with id and text
    predictions: PathBuf,
    /// References: COCO or NoCaps captions, VQA annotations, or JSON lines with id and captions or answers
    references: PathBuf,
    /// Compare with the predictions of another run over the same items: differences, confidence intervals, p-values
    #[arg(long, value_name = "PREDICTIONS")]
    compare: Option<PathBuf>,
    #[command(flatten)]
    pub(super) scoring: Flags,
    #[command(flatten)]
    clip: ClipFlags,
    /// Folder of the images, for --clip
    #[arg(long, value_name = "DIR", requires = "clip")]
    images: Option<PathBuf>,
    #[command(flatten)]
    network: Network,
    /// Write the scores of each item to a file of JSON lines
    #[arg(long, value_name = "FILE")]
    items: Option<PathBuf>,
    /// Write the document frequencies of the references to a file, for --frequencies
    #[arg(long, value_name = "FILE")]
    save_frequencies: Option<PathBuf>,
    /// Score only items that have a prediction [default: every item must have one]
    #[arg(long)]
    subset: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Flags that `eval` has, too.
#[derive(Debug, Clone, Args)]
pub(super) struct Flags {
    /// Word classes whose precision and recall in captions are scored: {"nouns": ["circle", ["sofa", "couch"]]}
    #[arg(long, value_name = "FILE")]
    words: Option<PathBuf>,
    /// Document frequencies for CIDEr [default: those of the references]
    #[arg(long, value_name = "FILE")]
    frequencies: Option<PathBuf>,
    /// Number of bootstrap resamples for confidence intervals and tests; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    resamples: u32,
    /// Seed of the resampling
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    resample_seed: u64,
    /// Confidence level
    #[arg(long, value_name = "LEVEL", default_value_t = 0.95)]
    level: f64,
}

/// CLIPScore.
#[derive(Debug, Clone, Args)]
pub(super) struct ClipFlags {
    /// Add CLIPScore and RefCLIPScore of the CLIP model in a folder, a file or hf:owner/name
    #[arg(long, value_name = "WEIGHTS")]
    clip: Option<String>,
    /// Preset of clip-vit for weights without a config.json
    #[arg(long, value_name = "MODEL", requires = "clip")]
    clip_model: Option<String>,
}

impl ClipFlags {
    /// Whether a CLIP is named.
    pub fn is_asked(&self) -> bool {
        self.clip.is_some()
    }

    /// The CLIP that the flags name, after what the cache lacks of it was downloaded.
    ///
    /// # Errors
    /// Weights that cannot be had, or are no CLIP with both towers.
    pub fn load(&self, network: &Network) -> Result<Option<Clip>> {
        let Some(weights) = &self.clip else { return Ok(None) };
        let spec: WeightSpec = weights.parse()?;
        if spec.is_remote() {
            network.ensure(&[needs::of_clip(spec)])?;
        }
        Ok(Some(Clip::load(weights, self.clip_model.as_deref(), Path::new("."))?))
    }
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
            resampling: Resampling {
                draws: self.resamples as usize,
                seed: self.resample_seed,
                level: self.level,
                ..Resampling::default()
            },
            subset,
            keep_frequencies: false,
        })
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut scoring = arguments.scoring.scoring(arguments.subset)?;
    scoring.keep_frequencies = arguments.save_frequencies.is_some();
    let references = files::references(&arguments.references)?;
    let scored = |path: &Path| score(&references, files::predictions(path)?, &path.display().to_string(), &scoring);
    let mut run = scored(&arguments.predictions)?;
    let mut other = arguments.compare.as_deref().map(scored).transpose()?;
    if let Some(clip) = arguments.clip.load(&arguments.network)? {
        let Some(images) = &arguments.images else { bail!("--clip needs --images, the folder of the images") };
        let image = |id: &str, item: &files::Captions| images.join(item.file.as_deref().unwrap_or(id));
        for run in std::iter::once(&mut run).chain(&mut other) {
            clip.add_scores(run, &references, &image)?;
        }
    }
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
    let one = |((name, measure), found): ((&String, &Measure), &Comparison)| {
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
        for (name, group) in groups {
            output::line("")?;
            output::line(&format!("{by} {name}, {} items", group.indices.len()))?;
            for (name, measure) in &group.scores {
                output::line(&format!("{name:<24} {:>10.4}", measure.value()))?;
            }
        }
    }
    Ok(())
}
