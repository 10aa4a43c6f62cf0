//! The original's own config files: one flat map of keys such as `encoder_name`, read as they are.
//!
//! Facts, not text, of the format of <https://github.com/jmerullo/limber> (`config.py`, `image_prefix.py`). A key whose
//! meaning is kept becomes a key of ours; a key that has no effect here gives a [`Note`]; a value that asks for what
//! does not exist here is a problem.

use super::problem::{Note, Problem, did_you_mean};
use super::reader::{Range, Reader, or};
use serde_json::{Map, Value, json};

/// What tells a flat file: any of these without a section of ours beside it, or `encoder_name` in any company.
const TELLTALE: [&str; 9] = [
    "pretrained_img_encoder",
    "freeze_img_encoder",
    "image_seq_len",
    "image_embed_dropout_prob",
    "use_image_embed_layernorm",
    "lm_name",
    "train_steps",
    "batch_size",
    "train_dataset_dir",
];

/// Sections of ours that no flat file has.
const OURS: [&str; 6] = ["encoder", "stitch", "decoder", "train", "data", "extends"];

/// The configs that were published, whose checkpoints are found by their names.
pub const PUBLISHED: [&str; 6] = [
    "clip_linear",
    "beit_linear",
    "beit_ft_linear",
    "beit_random_linear",
    "nfrn50_4096_linear",
    "nfrn50_4096_random_linear",
];

/// The seed of randomly initialised encoders: the original seeds its program with 0.
const ENCODER_SEED: u64 = 0;

/// The seed that the original hands to its trainer.
const TRAIN_SEED: u64 = 42;

/// An encoder that the original accepts.
struct Known {
    name: &'static str,
    kind: &'static str,
    model: &'static str,
    weights: &'static str,
    /// Side S of the image where the encoder decides it.
    side: Option<u64>,
    /// Visual tokens N of a patch encoder, none for a pooled one.
    tokens: Option<u64>,
}

#[rustfmt::skip]
const ENCODERS: [Known; 8] = [
    Known { name: "clip", kind: "clip-vit", model: "ViT-B/32", weights: "hf:openai/clip-vit-base-patch32", side: Some(224), tokens: None },
    Known { name: "clip_resnet", kind: "clip-resnet", model: "RN50x4", weights: "hf:timm/resnet50x4_clip.openai", side: Some(288), tokens: Some(81) },
    Known { name: "clip_resnet_large", kind: "clip-resnet", model: "RN50x16", weights: "hf:timm/resnet50x16_clip.openai", side: Some(384), tokens: Some(144) },
    Known { name: "nfresnet50", kind: "nf-resnet", model: "nf_resnet50", weights: "hf:timm/nf_resnet50.ra2_in1k", side: None, tokens: None },
    Known { name: "microsoft/beit-large-patch16-224-pt22k", kind: "beit", model: "beit-large-patch16-224-pt22k", weights: "hf:microsoft/beit-large-patch16-224-pt22k", side: Some(224), tokens: Some(196) },
    Known { name: "microsoft/beit-large-patch16-224-pt22k-ft22k", kind: "beit", model: "beit-large-patch16-224-pt22k-ft22k", weights: "hf:microsoft/beit-large-patch16-224-pt22k-ft22k", side: Some(224), tokens: Some(196) },
    Known { name: "clr_identity", kind: "features", model: "", weights: "", side: None, tokens: Some(144) },
    Known { name: "nfresnet50_identity", kind: "features", model: "", weights: "", side: None, tokens: Some(2) },
];

/// Keys that are read nowhere here, and what stands in their place.
const WITHOUT_EFFECT: [(&str, &str); 16] = [
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

/// Whether a tree is one of the original's.
pub(super) fn is_flat(tree: &Map<String, Value>) -> bool {
    let ours = OURS.iter().any(|key| tree.contains_key(*key));
    tree.contains_key("encoder_name") || (!ours && TELLTALE.iter().any(|key| tree.contains_key(*key)))
}

/// A flat tree as one of ours. `name` is the file's name without its extension.
pub(super) fn convert(tree: Map<String, Value>, name: &str) -> (Map<String, Value>, Vec<Note>, Vec<Problem>) {
    let mixed: Vec<&str> = OURS.into_iter().filter(|key| tree.contains_key(*key)).collect();
    if !mixed.is_empty() {
        let message = "unknown key; the original's flat keys and limber's sections do not mix";
        return (Map::new(), Vec::new(), mixed.into_iter().map(|key| Problem::new("", key, message)).collect());
    }
    let mut problems = Vec::new();
    let mut flat = Flat { notes: Vec::new(), r: Reader::new("", Value::Object(tree), &mut problems) };
    flat.unsupported();
    let (encoder, known) = flat.encoder();
    let mut ours = Map::new();
    ours.insert("encoder".into(), encoder);
    let (weights, output) = flat.checkpoints(name);
    ours.insert("stitch".into(), flat.stitch(known, weights));
    ours.insert(
        "decoder".into(),
        json!({"kind": "gptj", "weights": "hf:EleutherAI/gpt-j-6b@float16", "dtype": "bf16"}),
    );
    ours.insert("train".into(), flat.train(output));
    if let Some(data) = flat.data(known) {
        ours.insert("data".into(), data);
    }
    for (key, why) in WITHOUT_EFFECT {
        flat.no_effect(key, why);
    }
    let Flat { r, notes } = flat;
    r.finish();
    (ours, notes, problems)
}

struct Flat<'a> {
    r: Reader<'a>,
    notes: Vec<Note>,
}

impl Flat<'_> {
    fn note(&mut self, key: &str, value: Value, why: impl Into<String>) {
        self.notes.push(Note { file: String::new(), key: key.into(), value, why: why.into() });
    }

    fn no_effect(&mut self, key: &'static str, why: &str) {
        if let Some(value) = self.r.take(key) {
            self.note(key, value, why);
        }
    }

    /// Values that ask for what does not exist here.
    fn unsupported(&mut self) {
        for (key, allowed) in [("freeze_lm", true), ("freeze_img_encoder", true), ("run_blind", false)] {
            if self.r.flag(key) == Some(!allowed) {
                let why = if allowed { "only the stitch is trained" } else { "the image is always seen" };
                self.r.problem(key, format!("value {} is not supported, must be {allowed}: {why}", !allowed));
            }
        }
        for (key, what) in [("adapter_config", "adapters in the decoder"), ("class_dict", "classifier heads")] {
            let value = self.r.take(key);
            if value.is_some_and(|v| v.as_object().is_none_or(|map| !map.is_empty())) {
                self.r.problem(key, format!("{what} are not supported, must be null or {{}}"));
            }
        }
        for (key, allowed) in
            [("tokenizer_name", "gpt2"), ("lm_name", "EleutherAI/gpt-j-6B"), ("optimizer_name", "AdamW")]
        {
            if let Some(value) = self.r.text(key).filter(|v| !v.eq_ignore_ascii_case(allowed)) {
                self.r.problem(key, format!("value {value:?} is not supported, must be {allowed:?}"));
            }
        }
    }

    fn encoder(&mut self) -> (Value, &'static Known) {
        let name = self.r.name("encoder_name").unwrap_or_else(|| "clip".to_string());
        let pretrained = self.r.flag("pretrained_img_encoder").unwrap_or(true);
        let image_size = self.r.count("image_size", 1);
        let Some(known) = ENCODERS.iter().find(|known| known.name == name) else {
            let names = ENCODERS.map(|known| known.name);
            let hint = did_you_mean(&name, &names);
            self.r.problem("encoder_name", format!("value {name:?} is not allowed{hint}, must be {}", or(&names)));
            return (Value::Null, &ENCODERS[0]);
        };
        if let (Some(given), true) = (image_size, known.kind != "nf-resnet" && image_size != known.side) {
            let why = match known.side {
                Some(side) => format!("encoder {name:?} takes images of side {side}, in the original too"),
                None => format!("encoder {name:?} reads features, not images"),
            };
            self.note("image_size", given.into(), why);
        }
        if !pretrained && (known.kind.starts_with("clip") || known.kind == "features") {
            let why =
                format!("encoder {name:?} is never randomly initialised, in the original neither; set encoder.weights");
            self.note("pretrained_img_encoder", false.into(), why);
        }
        let random = format!("random:{ENCODER_SEED}");
        let weights = if pretrained || known.kind.starts_with("clip") { known.weights } else { &random };
        let encoder = match (known.kind, known.tokens) {
            ("features", tokens) => {
                let width = if name == "clr_identity" { 3072 } else { 2048 };
                json!({"kind": "features", "tokens": tokens, "width": width})
            }
            ("nf-resnet", _) => {
                let side = image_size.unwrap_or(256);
                json!({"kind": known.kind, "model": known.model, "image_size": side, "pool": true, "weights": weights})
            }
            (kind, None) => json!({"kind": kind, "model": known.model, "pool": true, "weights": weights}),
            (kind, Some(_)) => json!({"kind": kind, "model": known.model, "weights": weights}),
        };
        (encoder, known)
    }

    fn stitch(&mut self, known: &Known, weights: String) -> Value {
        let dropout = self.r.number("image_embed_dropout_prob", Range::BELOW_ONE).unwrap_or(0.0);
        let mut stitch = json!({"kind": "linear", "dropout": dropout, "weights": weights});
        if self.r.flag("use_image_embed_layernorm") == Some(true) {
            stitch["layer_norm"] = true.into();
        }
        match (self.r.count("image_seq_len", 1), known.tokens) {
            (given, None) => stitch["tokens"] = given.unwrap_or(2).into(),
            (Some(given), Some(tokens)) if given != tokens => {
                let why = format!("encoder {:?} gives {tokens} tokens, and each becomes one of the prefix", known.name);
                self.note("image_seq_len", given.into(), why);
            }
            _ => {}
        }
        stitch
    }

    /// Where the projection lies and where training writes.
    fn checkpoints(&mut self, name: &str) -> (String, String) {
        let own = format!("checkpoints/{name}");
        let (save, load) = (self.r.name("save"), self.r.name("load"));
        if PUBLISHED.contains(&name) {
            // The original finds these by the name of the config and reads neither key.
            if let Some(save) = save.filter(|save| *save != own) {
                self.note("save", save.into(), format!("a published config has its own folder; train.output is {own}"));
            }
            if let Some(load) = load.filter(|load| *load != own) {
                self.note(
                    "load",
                    load.into(),
                    format!("the released projection is looked for in {own}; set stitch.weights"),
                );
            }
            return (format!("{own}/proj.ckpt"), own);
        }
        let weights = match load {
            Some(file) if file.ends_with(".ckpt") || file.ends_with(".pt") || file.ends_with(".safetensors") => file,
            folder => format!("{}/proj.ckpt", folder.as_deref().unwrap_or(&own).trim_end_matches('/')),
        };
        (weights, save.unwrap_or(own))
    }

    fn train(&mut self, output: String) -> Value {
        // Absent keys have the original's defaults, which are not all ours.
        let decays = self.r.peek("lr_decay_iters");
        let mut train = json!({
            "accumulate": self.r.count("gradient_accumulation_steps", 1).unwrap_or(1),
            "lr": self.r.number("lr", Range::NOT_NEGATIVE).unwrap_or(8e-4),
            "min_lr": self.r.number("min_lr", Range::NOT_NEGATIVE).unwrap_or(0.0),
            "warmup": self.r.count("warmup_num_steps", 0).unwrap_or(100),
            "schedule": if decays { "warmup-decay" } else { "warmup" },
            "clip": self.r.number("gradient_clipping", Range::NOT_NEGATIVE).unwrap_or(1.0),
            "weight_decay": self.r.number("weight_decay", Range::NOT_NEGATIVE).unwrap_or(0.0),
            "save_every": self.r.count("save_every", 1).unwrap_or(500),
            "seed": TRAIN_SEED,
            "output": output,
        });
        for (theirs, ours) in [("train_steps", "steps"), ("batch_size", "batch")] {
            if let Some(count) = self.r.count(theirs, 1) {
                train[ours] = count.into();
            }
        }
        train
    }

    fn data(&mut self, known: &Known) -> Option<Value> {
        let mut data = json!({"format": "magma", "path": self.r.name("train_dataset_dir")?});
        if known.kind == "features"
            && let Some(folder) = self.r.name("encs_dir")
        {
            data["features"] = folder.into();
        }
        Some(data)
    }
}
