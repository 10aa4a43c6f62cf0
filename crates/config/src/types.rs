//! The typed config: the one definition of which keys a config has, what they may hold and what they are by default.
//!
//! Reading, `describe`, the JSON Schema of a file and the tables in the documentation all come from these types.

use super::data::Data;
use super::device::DeviceSpec;
use super::eval::Eval;
use super::merge;
use super::plugin::Plugin;
use super::problem::Problem;
use super::schema;
use super::section::{self, Section};
use super::train::Train;
use limber_core::registry::Role;
use limber_core::{CacheType, settings};
use limber_weights::{WebFile, WeightSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Text after the image by default, as in the paper.
pub const DEFAULT_PROMPT: &str = "A picture of";

/// Most threads that compute: more than the processors of any machine, and few enough that all of them can be started.
pub const MAX_THREADS: usize = 1024;

/// A model and what is done with it: an encoder, a stitch, a decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The image encoder.
    #[serde(deserialize_with = "section::encoder::deserialize")]
    #[schemars(schema_with = "section::encoder::schema")]
    pub encoder: Section,
    /// What lies between the two, the projector: the one component that is trained.
    #[serde(deserialize_with = "section::stitch::deserialize")]
    #[schemars(schema_with = "section::stitch::schema")]
    pub stitch: Section,
    /// The language model.
    #[serde(deserialize_with = "section::decoder::deserialize")]
    #[schemars(schema_with = "section::decoder::schema")]
    pub decoder: Section,
    /// Text given after the image at inference.
    #[serde(default = "prompt")]
    pub prompt: String,
    /// How text is sampled.
    #[serde(default)]
    pub generate: Generate,
    /// How the stitch is trained.
    pub train: Option<Train>,
    /// What it is trained on.
    pub data: Option<Data>,
    /// How data become prompts where a model is evaluated.
    pub eval: Option<Eval>,
    /// Dynamic libraries with further components: each a path, or a map of `path` and `sha256`.
    #[serde(default)]
    pub plugins: Vec<Plugin>,
    /// Whose published behaviour is kept where it differs from ours.
    pub compat: Option<Compat>,
    /// How images are read.
    #[serde(default)]
    pub images: Images,
    /// The device that holds the tensors: `cpu`, `cuda:N` or `metal`.
    #[serde(default)]
    pub device: DeviceSpec,
    /// Threads; by default one a core.
    #[schemars(range(min = 1, max = MAX_THREADS))]
    pub threads: Option<usize>,
    /// The config's folder, from which relative paths count. Not part of the tree.
    #[serde(skip)]
    pub folder: PathBuf,
}

fn prompt() -> String {
    DEFAULT_PROMPT.to_string()
}

/// How text is sampled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Generate {
    /// Maximum number of tokens to generate.
    #[schemars(range(min = 1))]
    pub max_tokens: usize,
    /// 0 is greedy.
    #[schemars(range(min = 0))]
    pub temperature: f64,
    /// Share of probability that the nucleus holds; 1 keeps all.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub top_p: f64,
    /// Most likely tokens that are kept; 0 keeps all.
    pub top_k: usize,
    /// Least probability of a token, as a share of the most likely one's; 0 keeps all.
    #[schemars(range(min = 0, max = 1))]
    pub min_p: f64,
    /// Divides the scores of tokens that were generated before, where they are positive, and multiplies negative ones; 1
    /// changes nothing.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub repetition_penalty: f64,
    /// Texts before which generated text ends.
    #[schemars(inner(length(min = 1)))]
    pub stop: Vec<String>,
    /// Puts prompts into the chat template of the tokenizer, as what a user says.
    pub chat: bool,
    /// Seed of the sampling.
    pub seed: u64,
    /// Batch size: images that are captioned together.
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// The type that keys and values of earlier positions are kept in.
    pub cache: CacheType,
}

impl Default for Generate {
    fn default() -> Self {
        Self {
            max_tokens: 64,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            stop: Vec::new(),
            chat: false,
            seed: 0,
            batch: 1,
            cache: CacheType::default(),
        }
    }
}

/// Published behaviour that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compat {
    /// The original LiMBeR code.
    Original,
}

/// How images are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Most pixels an image may have; by default Pillow's limit.
    #[schemars(range(min = 1))]
    pub max_pixels: u64,
    /// Rotates images as their EXIF orientation says; the original does not.
    pub exif_orientation: bool,
}

impl Default for Images {
    fn default() -> Self {
        Self { max_pixels: 178_956_970, exif_orientation: false }
    }
}

impl Config {
    /// The config of `tree`.
    ///
    /// # Errors
    /// Unknown keys, missing keys, values of another type or out of range: all of them.
    pub fn from_tree(tree: Value, folder: &Path) -> Result<Self, Vec<Problem>> {
        match Self::read(tree, folder) {
            (Some(config), problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(problems),
        }
    }

    /// The config with defaults in place of what cannot be read, None where that is not enough, and all that is wrong.
    pub(super) fn read(tree: Value, folder: &Path) -> (Option<Self>, Vec<Problem>) {
        let (config, violations) = settings::read_as::<Self>(tree, schema::config());
        let config = config.map(|config| Self { folder: folder.to_path_buf(), ..config });
        let mut problems: Vec<Problem> = violations.into_iter().map(Problem::from).collect();
        let train = config.as_ref().and_then(|config| config.train.as_ref());
        if problems.iter().all(|problem| problem.section != "train") {
            problems.extend(train.into_iter().flat_map(Train::conflicts));
        }
        (config, problems)
    }

    /// The config as a tree that [`Self::from_tree`] reads back, defaults filled in, what is not set left out.
    pub fn to_value(&self) -> Value {
        // Every key is text, so that this cannot fail.
        settings::to_value(self).unwrap_or_default()
    }

    /// The section of a role.
    pub fn section(&self, role: Role) -> &Section {
        match role {
            Role::Encoder => &self.encoder,
            Role::Stitch => &self.stitch,
            Role::Decoder => &self.decoder,
        }
    }

    /// The same config with absolute paths, which mean the same in any folder.
    ///
    /// # Errors
    /// A working folder that cannot be told.
    pub fn absolute(&self) -> std::io::Result<Self> {
        let folder =
            std::path::absolute(if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder })?;
        let mut config = self.clone();
        // Weights that are in the working folder alone are meant there.
        for section in [&mut config.encoder, &mut config.stitch, &mut config.decoder] {
            let path = match &mut section.weights {
                Some(WeightSpec::Local(path)) => path,
                Some(WeightSpec::Web(WebFile { local: Some(path), .. })) => path,
                _ => continue,
            };
            if !folder.join(&*path).exists() && Path::new(path).exists() {
                *path = std::path::absolute(&*path)?.to_string_lossy().into_owned();
            }
        }
        let mut tree = config.to_value();
        tree.as_object_mut().into_iter().for_each(|tree| merge::rebase(tree, &folder));
        // The keys are those that were read before, so that all of them are read again.
        Ok(Self::read(tree, &self.folder).0.unwrap_or(config))
    }

    /// `path` seen from the config's folder.
    pub fn resolve(&self, path: impl AsRef<Path>) -> PathBuf {
        self.folder.join(path)
    }
}
