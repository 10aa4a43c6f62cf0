//! The original's own config files: one flat map of keys such as `encoder_name`, read as they are.
//!
//! Facts, not text, of the format of <https://github.com/jmerullo/limber> (`config.py`, `image_prefix.py`). A key whose
//! meaning is kept becomes a key of ours; a key that has no effect here gives a [`Note`]; a value that asks for what
//! does not exist here is a problem.

mod encoders;
mod keys;

use super::problem::{Note, Problem};
use encoders::{ENCODERS, Known};
use keys::{Keys, SCHEMA, WITHOUT_EFFECT};
use limber_core::settings;
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

/// Those of them whose projection was released and fits an encoder that anyone has.
const RELEASED: [&str; 4] = ["clip_linear", "beit_linear", "beit_ft_linear", "nfrn50_4096_linear"];

/// Where the released projections are.
const RELEASE: &str = "https://raw.githubusercontent.com/jmerullo/limber/main/limber_weights";

/// The seed of randomly initialised encoders: the original seeds its program with 0.
const ENCODER_SEED: u64 = 0;

/// The seed that the original hands to its trainer.
const TRAIN_SEED: u64 = 42;

/// Whether a tree is one of the original's.
pub(super) fn is_flat(tree: &Map<String, Value>) -> bool {
    let ours = OURS.iter().any(|key| tree.contains_key(*key));
    tree.contains_key("encoder_name") || (!ours && TELLTALE.iter().any(|key| tree.contains_key(*key)))
}

/// [`is_flat`] as a schema.
pub(super) fn is_flat_schema() -> Value {
    let any = |keys: &[&str]| json!({"anyOf": keys.iter().map(|key| json!({"required": [key]})).collect::<Vec<_>>()});
    json!({"anyOf": [{"required": ["encoder_name"]}, {"allOf": [{"not": any(&OURS)}, any(&TELLTALE)]}]})
}

/// The JSON Schema of a flat file.
pub(super) fn schema() -> Value {
    let mut schema = SCHEMA.clone();
    schema.as_object_mut().and_then(|map| map.shift_remove("$schema"));
    schema
}

/// A flat tree as one of ours. `name` is the file's name without its extension.
pub(super) fn convert(mut tree: Map<String, Value>, name: &str) -> (Map<String, Value>, Vec<Note>, Vec<Problem>) {
    let mixed: Vec<&str> = OURS.into_iter().filter(|key| tree.contains_key(*key)).collect();
    if !mixed.is_empty() {
        let message = "unknown key; the original's flat keys and limber's sections do not mix";
        return (Map::new(), Vec::new(), mixed.into_iter().map(|key| Problem::new("", key, message)).collect());
    }
    tree.retain(|_, value| !value.is_null());
    let mut ignored = Map::new();
    for (key, _) in WITHOUT_EFFECT {
        ignored.extend(tree.shift_remove(key).map(|value| (key.to_string(), value)));
    }
    let (keys, violations) = settings::read_as::<Keys>(tree.into(), &SCHEMA);
    let problems: Vec<Problem> = violations.into_iter().map(Problem::from).collect();
    let (Some(keys), true) = (keys, problems.is_empty()) else { return (Map::new(), Vec::new(), problems) };
    let Some(known) = ENCODERS.iter().find(|known| known.name == keys.encoder_name) else {
        return (Map::new(), Vec::new(), vec![Problem::new("", "encoder_name", "unknown encoder")]);
    };
    let mut flat = Flat { keys, known, ignored, notes: Vec::new() };
    let mut ours = Map::new();
    ours.insert("encoder".into(), flat.encoder());
    let (weights, output, start) = flat.checkpoints(name);
    ours.insert("stitch".into(), flat.stitch(weights));
    ours.insert(
        "decoder".into(),
        json!({"kind": "gptj", "weights": "hf:EleutherAI/gpt-j-6b@float16", "dtype": "bf16"}),
    );
    ours.insert("train".into(), flat.train(output, start));
    match flat.data() {
        Err(problem) => return (Map::new(), Vec::new(), vec![problem]),
        Ok(data) => ours.extend(data.map(|data| ("data".to_string(), data))),
    }
    for (key, why) in WITHOUT_EFFECT {
        if let Some(value) = flat.ignored.shift_remove(key) {
            flat.note(key, value, why);
        }
    }
    (ours, flat.notes, Vec::new())
}

struct Flat {
    keys: Keys,
    known: &'static Known,
    /// What stands under keys without effect.
    ignored: Map<String, Value>,
    notes: Vec<Note>,
}

impl Flat {
    fn note(&mut self, key: &str, value: impl Into<Value>, why: impl Into<String>) {
        self.notes.push(Note { file: String::new(), key: key.into(), value: value.into(), why: why.into() });
    }

    fn encoder(&mut self) -> Value {
        let Known { name, kind, model, weights, side, tokens } = *self.known;
        if let (Some(given), true) = (self.keys.image_size, kind != "nf-resnet" && self.keys.image_size != side) {
            let why = match side {
                Some(side) => format!("encoder {name:?} takes images of side {side}, in the original too"),
                None => format!("encoder {name:?} reads features, not images"),
            };
            self.note("image_size", given, why);
        }
        let pretrained = self.keys.pretrained_img_encoder;
        if !pretrained && (kind.starts_with("clip") || kind == "features") {
            let why =
                format!("encoder {name:?} is never randomly initialised, in the original neither; set encoder.weights");
            self.note("pretrained_img_encoder", false, why);
        }
        let random = format!("random:{ENCODER_SEED}");
        let weights = if pretrained || kind.starts_with("clip") { weights } else { &random };
        match (kind, tokens) {
            ("features", tokens) => {
                let width = if name == "clr_identity" { 3072 } else { 2048 };
                json!({"kind": kind, "tokens": tokens, "width": width})
            }
            ("nf-resnet", _) => {
                let side = self.keys.image_size.unwrap_or(256);
                json!({"kind": kind, "model": model, "image_size": side, "pool": true, "weights": weights})
            }
            (kind, None) => json!({"kind": kind, "model": model, "pool": true, "weights": weights}),
            (kind, Some(_)) => json!({"kind": kind, "model": model, "weights": weights}),
        }
    }

    fn stitch(&mut self, weights: Map<String, Value>) -> Value {
        let dropout = self.keys.image_embed_dropout_prob;
        let mut stitch = json!({"kind": "linear", "dropout": dropout});
        stitch.as_object_mut().into_iter().for_each(|map| map.extend(weights.clone()));
        if self.keys.use_image_embed_layernorm {
            stitch["layer_norm"] = true.into();
        }
        match (self.keys.image_seq_len, self.known.tokens) {
            (given, None) => stitch["tokens"] = given.unwrap_or(2).into(),
            (Some(given), Some(tokens)) if given != tokens => {
                let name = self.known.name;
                let why = format!("encoder {name:?} gives {tokens} tokens, and each becomes one of the prefix");
                self.note("image_seq_len", given, why);
            }
            _ => {}
        }
        stitch
    }

    /// Where the projection lies, where training writes, and whether it starts from the projection.
    fn checkpoints(&mut self, name: &str) -> (Map<String, Value>, String, &'static str) {
        let at = |weights: String| Map::from_iter([("weights".to_string(), weights.into())]);
        let own = format!("checkpoints/{name}");
        let (save, load) = (self.keys.save.take(), self.keys.load.take());
        if limber_configs::PUBLISHED.contains(&name) {
            // The original finds these by the name of the config and reads neither key.
            if let Some(save) = save.filter(|save| *save != own) {
                self.note("save", save, format!("a published config has its own folder; train.output is {own}"));
            }
            if let Some(load) = load.filter(|load| *load != own) {
                self.note("load", load, format!("the released projection is looked for in {own}; set stitch.weights"));
            }
            let file = format!("{own}/proj.ckpt");
            if !RELEASED.contains(&name) {
                return (at(file), own, "random");
            }
            let mut weights = at(format!("{RELEASE}/{name}/proj.ckpt"));
            weights.insert("local".into(), file.into());
            return (weights, own, "random");
        }
        let start = if load.is_some() { "stitch" } else { "random" };
        let weights = match load {
            Some(file) if file.ends_with(".ckpt") || file.ends_with(".pt") || file.ends_with(".safetensors") => file,
            folder => format!("{}/proj.ckpt", folder.as_deref().unwrap_or(&own).trim_end_matches('/')),
        };
        (at(weights), save.unwrap_or(own), start)
    }

    fn train(&self, output: String, start: &str) -> Value {
        let keys = &self.keys;
        let decays = self.ignored.contains_key("lr_decay_iters");
        let mut train = json!({
            "start": start,
            "accumulate": keys.gradient_accumulation_steps,
            "lr": keys.lr,
            "min_lr": keys.min_lr,
            "warmup": keys.warmup_num_steps,
            "schedule": if decays { "warmup-decay" } else { "warmup" },
            "clip": keys.gradient_clipping,
            "weight_decay": keys.weight_decay,
            "save_every": keys.save_every,
            "seed": TRAIN_SEED,
            "output": output,
        });
        for (key, count) in [("steps", keys.train_steps), ("batch", keys.batch_size)] {
            if let Some(count) = count {
                train[key] = count.into();
            }
        }
        train
    }

    fn data(&mut self) -> Result<Option<Value>, Problem> {
        let Some(path) = self.keys.train_dataset_dir.take() else { return Ok(None) };
        let mut data = json!({"format": "magma", "path": path});
        if self.known.kind == "features"
            && let Some(folder) = self.ignored.shift_remove("encs_dir")
        {
            if folder.as_str().is_none_or(str::is_empty) {
                let message = format!("value {} is not allowed, expected a folder", settings::shown(&folder));
                return Err(Problem::new("", "encs_dir", message));
            }
            data["features"] = folder;
        }
        Ok(Some(data))
    }
}
