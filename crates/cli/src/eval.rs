//! `limber eval caption|vqa --config C --data D`: captions or answers of a data set, and their scores.

use super::images::Images;
use super::metrics::{ClipFlags, Flags, print};
use super::options::{SamplingFlags, Shared};
use super::output;
use super::progress::Progress;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use limber_eval::data::{Set, Task};
use limber_eval::prompts::{Options, Prompts};
use limber_eval::run::Evaluation;
use limber_pipeline::generation::Sampling;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    task: Asked,
}

#[derive(Debug, Subcommand)]
enum Asked {
    /// Caption every image: COCO or NoCaps captions, or a data set of `limber shapes`
    Caption(Common),
    /// Answer every question: VQA questions with their annotations, or a data set of `limber shapes`
    Vqa(Common),
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    shared: Shared,
    #[command(flatten)]
    sampling: SamplingFlags,
    #[command(flatten)]
    scoring: Flags,
    #[command(flatten)]
    clip: ClipFlags,
    /// Captions or questions: a file, or a folder of `limber shapes`
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// VQA annotations [default: beside the questions]
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// Folder of the images [default: beside the data]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Output folder for predictions, manifest and scores
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of few-shot examples before each prompt, drawn from the training split
    #[arg(long, value_name = "N", default_value_t = 0)]
    shots: usize,
    /// Training split that examples are drawn from, as --data
    #[arg(long, value_name = "PATH")]
    train: Option<PathBuf>,
    /// VQA annotations of the training split [default: beside its questions]
    #[arg(long, value_name = "FILE", requires = "train")]
    train_annotations: Option<PathBuf>,
    /// Folder of the images of the training split [default: beside it]
    #[arg(long, value_name = "DIR", requires = "train")]
    train_images: Option<PathBuf>,
    /// Use the same examples before every prompt; their prefix is computed once
    #[arg(long)]
    same_examples: bool,
    /// Seed of few-shot examples and of the shuffled-image control
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    examples_seed: u64,
    /// No-image control: prompts without images
    #[arg(long, conflicts_with = "shuffle_images")]
    blind: bool,
    /// Shuffled-image control: each prompt has another item's image
    #[arg(long)]
    shuffle_images: bool,
    /// Use only the first N items
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Resume from the predictions in --out
    #[arg(long)]
    resume: bool,
    /// Write predictions without scoring them
    #[arg(long)]
    predict_only: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let (task, a) = match &arguments.task {
        Asked::Caption(common) => (Task::Caption, common),
        Asked::Vqa(common) => (Task::Vqa, common),
    };
    let config = a.shared.load(Some(&a.sampling))?;
    Sampling::of(&config).check()?;
    if a.sampling.stream {
        bail!("--stream is not allowed here: predictions go to a file")
    }
    let scoring = a.scoring.scoring(false)?;
    if task == Task::Vqa && a.clip.is_asked() {
        bail!("--clip is not allowed here: CLIPScore is of captions")
    }
    let mut set = Set::open(task, &a.data, a.annotations.as_deref(), a.images.as_deref())?;
    if let Some(limit) = a.limit {
        if limit == 0 {
            bail!("--limit 0 is not allowed, it is 1 or above")
        }
        set = set.first(limit);
    }
    let open = |path: &PathBuf| Set::open(task, path, a.train_annotations.as_deref(), a.train_images.as_deref());
    let examples = a.train.as_ref().map(open).transpose()?;
    let options = Options {
        shots: a.shots,
        same_examples: a.same_examples,
        seed: a.examples_seed,
        blind: a.blind,
        shuffle_images: a.shuffle_images,
    };
    // What does not fit is said before any weight is read.
    Prompts::new(&config, &set, examples.as_ref(), options)?.fill(0)?;
    let model = a.shared.model(&config, Images::OfData)?;
    let evaluation = Evaluation { config: &config, set: &set, examples: examples.as_ref(), options, out: &a.out };
    let mut progress = Progress::new(set.items.len() as u64, if task == Task::Vqa { "answers" } else { "captions" });
    evaluation.predict(&model, a.resume, &mut |done| progress.at(done as u64))?;
    progress.finish();
    if a.predict_only {
        return output::line(&evaluation.predictions().display().to_string());
    }
    let clip = a.clip.load(&a.shared.network)?;
    let scored = evaluation.score(&scoring, clip.as_ref())?;
    if a.shared.json {
        return output::json(&scored.to_value(scoring.resampling));
    }
    print(&scored, scoring.resampling)
}
