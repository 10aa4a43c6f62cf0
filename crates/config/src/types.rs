//! The typed config: what a tree says, checked for names, types and ranges, with every default filled in.

use super::eval::Eval;
use super::problem::Problem;
use super::reader::{Range, Reader, shown};
use super::section::Section;
use super::train::{Data, Train};
use limber_core::CacheType;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Text after the image where a config says nothing, as in the paper.
pub const DEFAULT_PROMPT: &str = "A picture of";

/// Most threads that compute: more than the processors of any machine, and few enough that all of them can be started.
pub const MAX_THREADS: usize = 1024;

/// A whole config.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The image encoder.
    pub encoder: Section,
    /// What lies between the two.
    pub stitch: Section,
    /// The language model.
    pub decoder: Section,
    /// Text given after the image at inference.
    pub prompt: String,
    /// How text is sampled.
    pub generate: Generate,
    /// How the stitch is trained.
    pub train: Option<Train>,
    /// What it is trained on.
    pub data: Option<Data>,
    /// How data become prompts where a model is evaluated.
    pub eval: Option<Eval>,
    /// Dynamic libraries with further parts.
    pub plugins: Vec<Plugin>,
    /// Whose published behaviour is kept where it differs from ours.
    pub compat: Option<Compat>,
    /// How images are read.
    pub images: Images,
    /// `cpu`, `cuda:N` or `metal`.
    pub device: String,
    /// Threads, at most [`MAX_THREADS`]; absent means one a core.
    pub threads: Option<usize>,
    /// The config's folder, from which relative paths count. Not part of the tree.
    pub folder: PathBuf,
}

/// The section `generate`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generate {
    /// Most tokens of one text.
    pub max_tokens: usize,
    /// 0 is greedy.
    pub temperature: f64,
    /// Share of probability that the nucleus holds; 1 keeps all.
    pub top_p: f64,
    /// Most likely tokens that are kept; 0 keeps all.
    pub top_k: usize,
    /// Seed of the sampling.
    pub seed: u64,
    /// Images that are captioned together.
    pub batch: usize,
    /// The type that keys and values of earlier positions are kept in.
    pub cache: CacheType,
}

const CACHES: [(&str, CacheType); 3] = [("f32", CacheType::F32), ("f16", CacheType::F16), ("bf16", CacheType::Bf16)];

/// Published behaviour that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compat {
    /// The original LiMBeR code.
    Original,
}

/// The section `images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Images {
    /// Most pixels an image may have; Pillow's limit.
    pub max_pixels: u64,
    /// Turns images as their EXIF orientation says; the original does not.
    pub exif_orientation: bool,
}

/// One dynamic library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// The file, relative to the config's folder.
    pub path: String,
    /// What its bytes must hash to, in lower case.
    pub sha256: Option<String>,
}

impl Config {
    /// The config of `tree`.
    ///
    /// # Errors
    /// Unknown keys, missing keys, values of another type or out of range: all of them.
    pub fn from_tree(tree: Value, folder: &Path) -> Result<Self, Vec<Problem>> {
        let (config, problems) = Self::read(tree, folder);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// As much of the config as can be read, and what is wrong with the rest.
    pub(super) fn read(tree: Value, folder: &Path) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut r = Reader::new("", tree, &mut problems);
        let encoder = r.take("encoder");
        let stitch = r.take("stitch");
        let decoder = r.take("decoder");
        let config = Self {
            encoder: Section::read("encoder", encoder, r.problems()),
            stitch: Section::read("stitch", stitch, r.problems()),
            decoder: Section::read("decoder", decoder, r.problems()),
            prompt: r.text("prompt").unwrap_or_else(|| DEFAULT_PROMPT.to_string()),
            generate: Generate::read(r.take("generate").unwrap_or_default(), r.problems()),
            train: r.take("train").map(|value| Train::read(value, r.problems())),
            data: r.take("data").map(|value| Data::read(value, r.problems())),
            eval: r.take("eval").map(|value| Eval::read(value, r.problems())),
            plugins: read_plugins(&mut r),
            compat: r.choice("compat", &[("original", Compat::Original)]),
            images: Images::read(r.take("images").unwrap_or_default(), r.problems()),
            device: read_device(&mut r),
            threads: r.within("threads", 1, MAX_THREADS),
            folder: folder.to_path_buf(),
        };
        r.finish();
        (config, problems)
    }

    /// The config as a tree that [`Self::from_tree`] reads back, defaults filled in, what is not set left out.
    pub fn to_value(&self) -> Value {
        let value = json!({
            "encoder": self.encoder.to_value(),
            "stitch": self.stitch.to_value(),
            "decoder": self.decoder.to_value(),
            "prompt": self.prompt,
            "generate": self.generate,
            "train": self.train,
            "data": self.data,
            "eval": self.eval,
            "plugins": self.plugins.iter().map(Plugin::to_value).collect::<Vec<_>>(),
            "compat": self.compat,
            "images": self.images,
            "device": self.device,
            "threads": self.threads,
        });
        match value {
            Value::Object(map) => Value::Object(map.into_iter().filter(|(_, v)| !v.is_null()).collect()),
            other => other,
        }
    }

    /// The section of a role: `encoder`, `stitch` or `decoder`.
    pub fn section(&self, role: &str) -> Option<&Section> {
        match role {
            "encoder" => Some(&self.encoder),
            "stitch" => Some(&self.stitch),
            "decoder" => Some(&self.decoder),
            _ => None,
        }
    }

    /// `path` seen from the config's folder.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join(path)
    }
}

impl Generate {
    fn read(value: Value, problems: &mut Vec<Problem>) -> Self {
        let mut r = Reader::new("generate", value, problems);
        let generate = Self {
            max_tokens: r.size("max_tokens", 1).unwrap_or(64),
            temperature: r.number("temperature", Range::NOT_NEGATIVE).unwrap_or(0.0),
            top_p: r.number("top_p", Range::SHARE).unwrap_or(1.0),
            top_k: r.size("top_k", 0).unwrap_or(0),
            seed: r.count("seed", 0).unwrap_or(0),
            batch: r.size("batch", 1).unwrap_or(1),
            cache: r.choice("cache", &CACHES).unwrap_or_default(),
        };
        r.finish();
        generate
    }
}

impl Default for Generate {
    fn default() -> Self {
        Self::read(Value::Null, &mut Vec::new())
    }
}

impl Images {
    fn read(value: Value, problems: &mut Vec<Problem>) -> Self {
        let mut r = Reader::new("images", value, problems);
        let images = Self {
            max_pixels: r.count("max_pixels", 1).unwrap_or(178_956_970),
            exif_orientation: r.flag("exif_orientation").unwrap_or(false),
        };
        r.finish();
        images
    }
}

impl Plugin {
    fn to_value(&self) -> Value {
        match &self.sha256 {
            None => Value::String(self.path.clone()),
            Some(sha256) => json!({"path": self.path, "sha256": sha256}),
        }
    }
}

fn read_plugins(r: &mut Reader) -> Vec<Plugin> {
    let list = match r.take("plugins") {
        None => return Vec::new(),
        Some(Value::Array(list)) => list,
        Some(other) => {
            r.problem("plugins", format!("value {} is not allowed, must be a list", shown(&other)));
            return Vec::new();
        }
    };
    let mut plugins = Vec::new();
    for (i, item) in list.into_iter().enumerate() {
        // A bare path is short for a map that holds it alone.
        let item = if item.is_string() { Value::Object(Map::from_iter([("path".into(), item)])) } else { item };
        let section = format!("plugins.{i}");
        let mut r = Reader::new(&section, item, r.problems());
        let path = r.name("path");
        let sha256 = r.name("sha256").map(|hash| hash.to_ascii_lowercase());
        if sha256.as_ref().is_some_and(|hash| hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit())) {
            r.problem(
                "sha256",
                format!("value {:?} is not allowed, must be 64 hexadecimal digits", sha256.as_deref().unwrap_or("")),
            );
        }
        r.finish();
        plugins.extend(path.map(|path| Plugin { path, sha256 }));
    }
    plugins
}

fn read_device(r: &mut Reader) -> String {
    let Some(device) = r.name("device") else { return "cpu".to_string() };
    let number = device.strip_prefix("cuda:").map(|n| n.parse::<usize>().is_ok());
    if !number.unwrap_or(matches!(device.as_str(), "cpu" | "cuda" | "metal")) {
        r.problem("device", format!("value {device:?} is not allowed, must be cpu, cuda:N or metal"));
    }
    device
}
