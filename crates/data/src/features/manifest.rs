//! What a folder of features says of itself: `manifest.json`, with the encoder that made them and how they lie.
//!
//! ```text
//! safetensors   DIR/manifest.json  DIR/000000.safetensors ...            one tensor [N, E] an image, named by its key
//! npy           DIR/manifest.json  DIR/<sub>/<name>.jpg.npy  DIR/done/000000.json ...      the original's layout
//! ```
//!
//! Items are encoded in blocks; a block's file appears whole or not at all, and says which of its items have no features.

use anyhow::{Context, Result, bail};
use limber_config::{Difference, differences};
use limber_core::{FeatureSpec, WeightType};
use limber_weights as weights;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file's name.
pub const NAME: &str = "manifest.json";
/// The form that is written and read.
const VERSION: u32 = 1;

/// How features lie in their folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One safetensors file a block of items.
    Safetensors,
    /// The original's: one `.npy` an image.
    Npy,
}

impl Layout {
    /// Every layout under its name in flags, with its explanation in the help.
    pub const NAMED: [(&str, Layout, &str); 2] = [
        ("safetensors", Layout::Safetensors, "One safetensors file per shard of items"),
        ("npy", Layout::Npy, "The original's layout: one .npy file per image"),
    ];
}

/// The type of the stored numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// As computed.
    F32,
    /// 10 bits of fraction: relative error of 2^-11, up to 65504.
    F16,
    /// 7 bits of fraction, f32's range.
    Bf16,
}

impl Precision {
    /// Every type under its name in flags, with its explanation in the help.
    pub const NAMED: [(&str, Precision, &str); 3] = [
        ("f32", Precision::F32, "As computed"),
        ("f16", Precision::F16, "11 significant bits, up to 65504"),
        ("bf16", Precision::Bf16, "8 significant bits, the range of f32"),
    ];

    /// As the type of a tensor.
    pub fn weight_type(self) -> WeightType {
        match self {
            Precision::F32 => WeightType::F32,
            Precision::F16 => WeightType::F16,
            Precision::Bf16 => WeightType::Bf16,
        }
    }
}

/// The manifest of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The form of the folder.
    pub version: u32,
    /// How features lie in it.
    pub layout: Layout,
    /// The type of the numbers.
    pub dtype: Precision,
    /// Visual tokens N.
    pub tokens: usize,
    /// Encoder width E.
    pub width: usize,
    /// The encoder's kind.
    pub encoder: String,
    /// A hash of all that decides its features.
    pub fingerprint: String,
    /// Items of the data set.
    pub items: usize,
    /// Items of a block.
    pub block: usize,
}

/// What a block says of the items that have no features: key, or name where it has none, and reason.
pub type Skipped = BTreeMap<String, String>;

/// What stands for a finished block of the original's layout.
#[derive(Serialize, Deserialize)]
pub struct Done {
    /// Items without features.
    pub skipped: Skipped,
}

impl Manifest {
    /// The manifest of features that an encoder is about to make.
    pub fn new(
        (layout, dtype): (Layout, Precision),
        features: FeatureSpec,
        (encoder, fingerprint): (String, String),
        (items, block): (usize, usize),
    ) -> Self {
        let FeatureSpec { tokens, width, .. } = features;
        Self { version: VERSION, layout, dtype, tokens, width, encoder, fingerprint, items, block }
    }

    /// The manifest in `folder`; None where there is none.
    ///
    /// # Errors
    /// A file that is not one, or is a later version's.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
        };
        let value: Value = serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
        if value["version"] != VERSION {
            bail!("{}: version {} cannot be read, expected {VERSION}", path.display(), value["version"])
        }
        let manifest: Self =
            serde_json::from_value(value).with_context(|| format!("{} is no manifest of features", path.display()))?;
        if manifest.block == 0 || manifest.items == 0 {
            bail!("{}: items and block are at least 1", path.display())
        }
        Ok(Some(manifest))
    }

    /// Writes the manifest of a folder, or compares it with the one that is there, so that a second run goes on with
    /// the first one's work and not with another's.
    ///
    /// # Errors
    /// Another manifest, naming what differs, both sides; a folder that cannot be written.
    pub fn claim(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let Some(there) = Self::read(folder)? else {
            let text = serde_json::to_string_pretty(self)? + "\n";
            return weights::replace(&folder.join(NAME), text.as_bytes());
        };
        let (before, now) = (serde_json::to_value(&there)?, serde_json::to_value(self)?);
        match differences(&before, &now).into_iter().next() {
            None => Ok(()),
            Some(Difference { key, before, now }) => bail!(
                "{}: holds features whose {key} is {before}, asked for is {now}; give another folder, or empty this one",
                folder.display()
            ),
        }
    }

    /// Blocks in all.
    pub fn blocks(&self) -> usize {
        self.items.div_ceil(self.block)
    }

    /// Items of block `at`.
    pub fn range(&self, at: usize) -> std::ops::Range<usize> {
        at * self.block..self.items.min((at + 1) * self.block)
    }

    /// The file that stands for block `at`: its features, or that they are done.
    pub fn file(&self, folder: &Path, at: usize) -> PathBuf {
        match self.layout {
            Layout::Safetensors => folder.join(format!("{at:06}.safetensors")),
            Layout::Npy => folder.join("done").join(format!("{at:06}.json")),
        }
    }
}

/// The `.npy` file of an image.
pub fn npy_file(folder: &Path, key: &str) -> PathBuf {
    folder.join(format!("{key}.npy"))
}
