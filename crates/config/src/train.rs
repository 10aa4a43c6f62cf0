//! The sections `train` and `data`: how a stitch is trained, and on what. Defaults are the paper's where it has one.

use super::problem::Problem;
use super::reader::{Range, Reader};
use serde::{Serialize, Serializer};
use serde_json::Value;

/// How the learning rate moves over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Logarithmic warm-up, then linear decay to 0 at the last step.
    WarmupDecay,
    /// Logarithmic warm-up, then constant.
    Warmup,
    /// Warm-up, then half a cosine down to `min_lr`.
    Cosine,
    /// `lr` at every step.
    Constant,
}

const SCHEDULES: [(&str, Schedule); 4] = [
    ("warmup-decay", Schedule::WarmupDecay),
    ("warmup", Schedule::Warmup),
    ("cosine", Schedule::Cosine),
    ("constant", Schedule::Constant),
];

/// The curve of the warm-up, as DeepSpeed names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Warmup {
    /// Logarithmic: DeepSpeed's default, and so the original's.
    Log,
    /// Linear.
    Linear,
}

const WARMUPS: [(&str, Warmup); 2] = [("log", Warmup::Log), ("linear", Warmup::Linear)];

/// The section `train`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Train {
    /// Optimiser steps.
    pub steps: usize,
    /// Samples of one micro batch of this process.
    pub batch: usize,
    /// Micro batches that make one step.
    pub accumulate: usize,
    /// Highest learning rate.
    pub lr: f64,
    /// Learning rate at which the warm-up starts.
    pub min_lr: f64,
    /// Steps of warm-up.
    pub warmup: usize,
    /// The curve of the warm-up.
    pub warmup_type: Warmup,
    /// How the learning rate moves.
    pub schedule: Schedule,
    /// Largest global norm of the gradient; 0 does not clip.
    pub clip: f64,
    /// AdamW's decay of the two moments.
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    pub eps: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// Steps between two checkpoints.
    pub save_every: usize,
    /// Checkpoints that are kept, the newest ones.
    pub keep: usize,
    /// Seed of the stitch's start, the dropout and the order of the data.
    pub seed: u64,
    /// What of each block of the decoder is computed again in the backward pass.
    pub recompute: Recompute,
    /// Held-out data that are looked at now and then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate: Option<Validate>,
    /// Folder of log and checkpoints; `limber train` needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl Train {
    /// The section of a tree.
    pub(super) fn read(value: Value, problems: &mut Vec<Problem>) -> Self {
        let mut r = Reader::new("train", value, problems);
        let train = Self {
            steps: r.size("steps", 1).unwrap_or(15_000),
            batch: r.size("batch", 1).unwrap_or(8),
            accumulate: r.size("accumulate", 1).unwrap_or(1),
            lr: r.number("lr", Range::NOT_NEGATIVE).unwrap_or(8e-4),
            min_lr: r.number("min_lr", Range::NOT_NEGATIVE).unwrap_or(0.0),
            warmup: r.size("warmup", 0).unwrap_or(100),
            warmup_type: r.choice("warmup_type", &WARMUPS).unwrap_or(Warmup::Log),
            schedule: r.choice("schedule", &SCHEDULES).unwrap_or(Schedule::WarmupDecay),
            clip: r.number("clip", Range::NOT_NEGATIVE).unwrap_or(1.0),
            betas: r.pair("betas", Range::BELOW_ONE).unwrap_or([0.9, 0.95]),
            eps: r.number("eps", Range::POSITIVE).unwrap_or(1e-8),
            weight_decay: r.number("weight_decay", Range::NOT_NEGATIVE).unwrap_or(0.0),
            save_every: r.size("save_every", 1).unwrap_or(500),
            keep: r.size("keep", 1).unwrap_or(1),
            seed: r.count("seed", 0).unwrap_or(0),
            recompute: r.flag_or("recompute", "cheap", Recompute::Cheap, Recompute::from).unwrap_or_default(),
            validate: r.take("validate").map(|value| Validate::read(value, r.problems())),
            output: r.name("output"),
        };
        if train.min_lr > train.lr {
            r.problem("min_lr", format!("value {} is not allowed, must be at most lr, {}", train.min_lr, train.lr));
        }
        r.finish();
        train
    }
}

/// The key `train.recompute`: what of a block's activations is computed again when its gradient comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Recompute {
    /// `true`: all; activations of one block alone are kept.
    #[default]
    All,
    /// `cheap`: all but the matrix products, which are kept.
    Cheap,
    /// `false`: nothing; all activations are kept.
    Nothing,
}

impl From<bool> for Recompute {
    fn from(all: bool) -> Self {
        if all { Self::All } else { Self::Nothing }
    }
}

impl Serialize for Recompute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_bool(true),
            Self::Cheap => serializer.serialize_str("cheap"),
            Self::Nothing => serializer.serialize_bool(false),
        }
    }
}

/// The key `train.validate`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Validate {
    /// The held-out data, as the section `data` says it.
    pub data: Data,
    /// Steps between two looks; there is one before the first step and one after the last, too.
    pub every: usize,
    /// Items whose loss is taken, the first ones of the data's order.
    pub items: usize,
    /// Items whose images are captioned.
    pub captions: usize,
}

impl Validate {
    fn read(value: Value, problems: &mut Vec<Problem>) -> Self {
        const SECTION: &str = "train.validate";
        let is_map = value.is_object();
        let mut r = Reader::new(SECTION, value, problems);
        let data = r.take("data");
        if data.is_none() && is_map {
            r.problem("data", "missing key; it says which data are held out, with the keys of the section \"data\"");
        }
        let validate = Self {
            data: Data::read_in("train.validate.data", data.unwrap_or_default(), r.problems()),
            every: r.size("every", 1).unwrap_or(500),
            items: r.size("items", 1).unwrap_or(256),
            captions: r.size("captions", 0).unwrap_or(4),
        };
        r.finish();
        validate
    }
}

/// How a data set is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataFormat {
    /// The original's: `images/<sub>/<name>.jpg` and `image_data/<sub>/<name>.json`.
    Magma,
    /// COCO's captions JSON.
    Coco,
    /// One JSON object a line, with `image` and `caption` or `captions`.
    Jsonl,
    /// Comma- or tab-separated columns of image and caption.
    Csv,
    /// Tar shards as img2dataset writes them; the path may hold brace ranges.
    Webdataset,
}

impl DataFormat {
    /// Every format under its name in configs and flags.
    pub const NAMED: [(&str, DataFormat); 5] = [
        ("magma", DataFormat::Magma),
        ("coco", DataFormat::Coco),
        ("jsonl", DataFormat::Jsonl),
        ("csv", DataFormat::Csv),
        ("webdataset", DataFormat::Webdataset),
    ];
}

/// Most threads that read ahead: more than a machine has processors, since a disk far away answers many at once.
pub const MAX_WORKERS: usize = 256;

/// The section `data`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Data {
    /// How it is laid out.
    pub format: DataFormat,
    /// File, folder or shards.
    pub path: String,
    /// Folder of features that were computed before; images are then not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<String>,
    /// Varies images anew in every epoch, where the encoder says how (NF-ResNet: random crop and flip); absent, as the
    /// original does under `compat: original`, else not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub augment: Option<bool>,
    /// A new order each epoch, a function of seed and epoch.
    pub shuffle: bool,
    /// Threads that read and decode ahead of the step, at most [`MAX_WORKERS`]; 0 reads in the step's own.
    pub workers: usize,
    /// Largest share of items that may be corrupt or missing; they are passed over and named in a file.
    pub max_skipped: f64,
}

impl Data {
    /// A data set with every other key at its default.
    pub fn new(format: DataFormat, path: impl Into<String>) -> Self {
        Self { format, path: path.into(), features: None, augment: None, shuffle: true, workers: 2, max_skipped: 0.05 }
    }

    /// The section of a tree.
    pub(super) fn read(value: Value, problems: &mut Vec<Problem>) -> Self {
        Self::read_in("data", value, problems)
    }

    /// As [`Self::read`], for data that stand in another place.
    fn read_in(section: &str, value: Value, problems: &mut Vec<Problem>) -> Self {
        let (before, is_map) = (problems.len(), value.is_object());
        let mut r = Reader::new(section, value, problems);
        let format = r.choice("format", &DataFormat::NAMED);
        let path = r.name("path");
        let usual = Self::new(format.unwrap_or(DataFormat::Magma), path.clone().unwrap_or_default());
        let data = Self {
            features: r.name("features"),
            augment: r.flag("augment"),
            shuffle: r.flag("shuffle").unwrap_or(usual.shuffle),
            workers: r.within("workers", 0, MAX_WORKERS).unwrap_or(usual.workers),
            max_skipped: r.number("max_skipped", Range::SHARE_OR_NONE).unwrap_or(usual.max_skipped),
            ..usual
        };
        r.finish();
        let names = DataFormat::NAMED.map(|(name, _)| name).join(", ");
        let missing = [
            ("format", format.is_none(), format!("missing key; allowed: {names}")),
            ("path", path.is_none(), "missing key; it says where the data lie".to_string()),
        ];
        for (key, absent, message) in missing {
            if absent && is_map && !problems[before..].iter().any(|p| p.key == key) {
                problems.push(Problem::new(section, key, message));
            }
        }
        data
    }
}
