//! The keys of the original's files, with the original's own defaults, which are not all ours.

use super::encoders::ENCODERS;
use limber_core::settings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Keys that are read nowhere here, and what replaces them.
pub const WITHOUT_EFFECT: [(&str, &str); 16] = [
    ("seq_len", "the decoder's own context length counts"),
    ("lr_decay_iters", "the decay ends at train_steps, as it does under the original's trainer"),
    ("image_enc_lr", "the encoder is frozen"),
    ("zero_stage", "frozen weights are mapped into memory and shared, not partitioned"),
    ("load_optimizer", "`limber train --resume` restores the optimiser, a fresh run does not"),
    ("train_dataset_name", "a label; data.format and data.path say what is read"),
    ("eval_every", "`limber eval` is a command of its own"),
    ("eval_steps", "`limber eval` is a command of its own"),
    ("eval_dataset_name", "`limber eval` is a command of its own"),
    ("eval_dataset_dir", "`limber eval` is a command of its own"),
    ("eval_dataset_pct", "`limber eval` is a command of its own"),
    ("name", "a label of the original's log"),
    ("log_every", "every step is logged, in train.output"),
    ("wandb_project", "the log is a file in train.output"),
    ("encs_dir", "read for the identity encoders alone; for others set data.features"),
    ("fine_tune", "the original's program does not read it either"),
];

/// A config in the original's flat format.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// The image encoder.
    #[schemars(schema_with = "encoders")]
    pub encoder_name: String,
    /// Whether the encoder's weights are read or drawn.
    pub pretrained_img_encoder: bool,
    /// Whether the encoder stays as it is.
    #[schemars(extend("const" = true, "errorMessage" = "expected true: only the stitch is trained"))]
    freeze_img_encoder: bool,
    /// Whether the language model stays as it is.
    #[schemars(extend("const" = true, "errorMessage" = "expected true: only the stitch is trained"))]
    freeze_lm: bool,
    /// Whether the image is left out.
    #[schemars(extend("const" = false, "errorMessage" = "expected false: the image is always seen"))]
    run_blind: bool,
    /// Side of the image in pixels.
    #[schemars(range(min = 1))]
    pub image_size: Option<u64>,
    /// Tokens of the prefix.
    #[schemars(range(min = 1))]
    pub image_seq_len: Option<u64>,
    /// Dropout of the projection.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub image_embed_dropout_prob: f64,
    /// Whether the projection ends in a layer norm.
    pub use_image_embed_layernorm: bool,
    /// Adapters in the language model.
    #[schemars(schema_with = "no_adapters")]
    adapter_config: Value,
    /// Classifier heads.
    #[schemars(schema_with = "no_classes")]
    class_dict: Value,
    /// The tokenizer.
    #[serde(deserialize_with = "gpt2")]
    #[schemars(with = "String")]
    tokenizer_name: (),
    /// The language model.
    #[serde(deserialize_with = "gptj")]
    #[schemars(with = "String")]
    lm_name: (),
    /// The optimiser.
    #[serde(deserialize_with = "adamw")]
    #[schemars(with = "String")]
    optimizer_name: (),
    /// Optimiser steps.
    #[schemars(range(min = 1))]
    pub train_steps: Option<u64>,
    /// Samples of one micro-batch.
    #[schemars(range(min = 1))]
    pub batch_size: Option<u64>,
    /// Micro-batches of one step.
    #[schemars(range(min = 1))]
    pub gradient_accumulation_steps: u64,
    /// Highest learning rate.
    #[schemars(range(min = 0))]
    pub lr: f64,
    /// Learning rate at which the warm-up starts.
    #[schemars(range(min = 0))]
    pub min_lr: f64,
    /// Steps of warm-up.
    pub warmup_num_steps: u64,
    /// Largest global norm of the gradient.
    #[schemars(range(min = 0))]
    pub gradient_clipping: f64,
    /// AdamW's decoupled weight decay.
    #[schemars(range(min = 0))]
    pub weight_decay: f64,
    /// Steps between two checkpoints.
    #[schemars(range(min = 1))]
    pub save_every: u64,
    /// Folder of checkpoints that are written.
    #[schemars(length(min = 1))]
    pub save: Option<String>,
    /// Folder or file of the projection that is read.
    #[schemars(length(min = 1))]
    pub load: Option<String>,
    /// Folder of the training data.
    #[schemars(length(min = 1))]
    pub train_dataset_dir: Option<String>,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            encoder_name: "clip".to_string(),
            pretrained_img_encoder: true,
            freeze_img_encoder: true,
            freeze_lm: true,
            run_blind: false,
            image_size: None,
            image_seq_len: None,
            image_embed_dropout_prob: 0.0,
            use_image_embed_layernorm: false,
            adapter_config: Value::Null,
            class_dict: Value::Null,
            tokenizer_name: (),
            lm_name: (),
            optimizer_name: (),
            train_steps: None,
            batch_size: None,
            gradient_accumulation_steps: 1,
            lr: 8e-4,
            min_lr: 0.0,
            warmup_num_steps: 100,
            gradient_clipping: 1.0,
            weight_decay: 0.0,
            save_every: 500,
            save: None,
            load: None,
            train_dataset_dir: None,
        }
    }
}

/// The one name that a key takes here, in capitals or not.
fn only<'de, D: Deserializer<'de>>(deserializer: D, expected: &str) -> Result<(), D::Error> {
    let found = String::deserialize(deserializer)?;
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(D::Error::custom(format_args!("value {found:?} is not supported, expected {expected:?}")))
}

fn gpt2<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    only(deserializer, "gpt2")
}

fn gptj<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    only(deserializer, "EleutherAI/gpt-j-6B")
}

fn adamw<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    only(deserializer, "AdamW")
}

fn encoders(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ENCODERS.map(|known| known.name)})
}

fn empty(what: &str) -> Schema {
    let message = format!("expected null or {{}}: {what} are not supported");
    json_schema!({"type": ["object", "null"], "maxProperties": 0, "errorMessage": message})
}

fn no_adapters(_: &mut SchemaGenerator) -> Schema {
    empty("adapters in the decoder")
}

fn no_classes(_: &mut SchemaGenerator) -> Schema {
    empty("classifier heads")
}

/// The schema of a flat file: the keys that are read, and those without effect.
pub static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut schema = settings::schema::<Keys>();
    for (key, why) in WITHOUT_EFFECT {
        schema["properties"][key] = json!({"description": format!("Has no effect: {why}.")});
    }
    schema
});
