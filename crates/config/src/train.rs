//! The section `train`: how a stitch is trained. Defaults are the paper's where it has one.

use super::checkpointing;
use super::data::Data;
use super::problem::Problem;
use limber_core::Checkpointing;
use limber_core::settings::shown;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Learning rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Warm-up, then linear decay to 0 at the last step.
    WarmupDecay,
    /// Warm-up, then constant.
    Warmup,
    /// Warm-up, then half a cosine down to `min_lr`.
    Cosine,
    /// `lr` at every step.
    Constant,
}

/// The curve of the warm-up, as DeepSpeed names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Warmup {
    /// Logarithmic: DeepSpeed's default, and so the original's.
    Log,
    /// Linear.
    Linear,
}

/// Where training starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// `stitch.weights`; random where none is named, an error where they are missing.
    #[default]
    Stitch,
    /// Random from `train.seed`, whatever `stitch.weights` says.
    Random,
    /// Least squares, as `limber fit` solves them, over the first items of the data.
    Fit,
}

/// Most optimiser steps of a run, samples of a micro-batch, micro-batches of a step: their product counts samples, and each is
/// far beyond what a run could make.
const MAX_STEPS: usize = 1_000_000_000;
const MAX_BATCH: usize = 65_536;
const MAX_ACCUMULATE: usize = 65_536;

/// How the stitch is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Train {
    /// Where training starts.
    pub start: Start,
    /// Trains on standardised features: from each of the E numbers its mean is subtracted and it is divided by its standard
    /// deviation, both measured on 256 items. They are folded into the saved stitch.
    #[serde(skip_serializing_if = "is_off")]
    #[schemars(extend("default" = false))]
    pub standardise: bool,
    /// Scales a start that is random or fitted so that the mean norm of a prefix token is that of the captions' word
    /// embeddings.
    #[serde(skip_serializing_if = "is_off")]
    #[schemars(extend("default" = false))]
    pub match_norm: bool,
    /// Text between prefix and caption, without a loss of its own; by default none, as in the original.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Puts conversations, and captions behind `prompt`, into the chat template of the tokenizer.
    #[serde(skip_serializing_if = "is_off")]
    #[schemars(extend("default" = false))]
    pub chat: bool,
    /// Optimiser steps.
    #[schemars(range(min = 1, max = MAX_STEPS))]
    pub steps: usize,
    /// Samples of one micro-batch of this process.
    #[schemars(range(min = 1, max = MAX_BATCH))]
    pub batch: usize,
    /// Micro-batches that make one step.
    #[schemars(range(min = 1, max = MAX_ACCUMULATE))]
    pub accumulate: usize,
    /// Highest learning rate.
    #[schemars(range(min = 0))]
    pub lr: f64,
    /// Learning rate at which the warm-up starts; at most `lr`.
    #[schemars(range(min = 0))]
    pub min_lr: f64,
    /// Steps of warm-up.
    pub warmup: usize,
    /// The curve of the warm-up.
    pub warmup_type: Warmup,
    /// Learning rate schedule.
    pub schedule: Schedule,
    /// Largest global norm of the gradient; 0 does not clip.
    #[schemars(range(min = 0))]
    pub clip: f64,
    /// AdamW's decay of the two moments.
    #[schemars(schema_with = "betas")]
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub eps: f64,
    /// AdamW's decoupled weight decay.
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// Steps between two checkpoints.
    #[schemars(range(min = 1))]
    pub save_every: usize,
    /// Checkpoints that are kept, the newest ones.
    #[schemars(range(min = 1))]
    pub keep: usize,
    /// Seed of the stitch's start, the dropout and the order of the data.
    pub seed: u64,
    /// Activation checkpointing: what of each block of the decoder is computed again in the backward pass.
    #[serde(serialize_with = "checkpointing::serialize", deserialize_with = "checkpointing::deserialize")]
    #[schemars(schema_with = "checkpointing::schema")]
    pub recompute: Checkpointing,
    /// Held-out data on which the stitch is validated periodically.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validate: Option<Validate>,
    /// Folder of log and checkpoints; `limber train` needs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1), extend("format" = "path"))]
    pub output: Option<String>,
}

fn is_off(on: &bool) -> bool {
    !on
}

fn betas(_: &mut SchemaGenerator) -> Schema {
    let beta = json_schema!({"type": "number", "minimum": 0, "exclusiveMaximum": 1});
    json_schema!({"type": "array", "items": beta, "minItems": 2, "maxItems": 2})
}

impl Default for Train {
    fn default() -> Self {
        Self {
            start: Start::default(),
            standardise: false,
            match_norm: false,
            prompt: None,
            chat: false,
            steps: 15_000,
            batch: 8,
            accumulate: 1,
            lr: 8e-4,
            min_lr: 0.0,
            warmup: 100,
            warmup_type: Warmup::Log,
            schedule: Schedule::WarmupDecay,
            clip: 1.0,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.0,
            save_every: 500,
            keep: 1,
            seed: 0,
            recompute: Checkpointing::Full,
            validate: None,
            output: None,
        }
    }
}

impl Train {
    /// Keys that do not fit each other.
    pub(super) fn conflicts(&self) -> Vec<Problem> {
        if self.min_lr <= self.lr {
            return Vec::new();
        }
        let (found, lr) = (shown(&self.min_lr.into()), self.lr);
        let message = format!("value {found} is not allowed, expected at most lr, which is {lr}");
        vec![Problem::new("train", "min_lr", message)]
    }
}

/// Validation on held-out data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Validate {
    /// The held-out data, with the keys of the section `data`.
    pub data: Data,
    /// Steps between two validations; there is one before the first step and one after the last, too.
    #[serde(default = "every")]
    #[schemars(range(min = 1))]
    pub every: usize,
    /// Items whose loss is taken, the first ones of the data's order.
    #[serde(default = "items")]
    #[schemars(range(min = 1))]
    pub items: usize,
    /// Items whose images are captioned.
    #[serde(default = "captions")]
    pub captions: usize,
}

fn every() -> usize {
    500
}

fn items() -> usize {
    256
}

fn captions() -> usize {
    4
}
