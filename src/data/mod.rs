//! Data sets of images and captions: what lies where, in which order it is read, and reading ahead of the step.
//!
//! A data set is listed first (names alone), so that a sample is found by its number: the order of an epoch is a
//! function of seed and epoch, and going on at any sample costs nothing.

mod coco;
mod jsonl;
mod loader;
mod magma;
mod order;
mod table;

pub use loader::{Loader, Reading, Sample};
pub use order::Order;

use crate::config::{Data, DataFormat};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// One image with its captions, found but not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What messages and lists call it.
    pub name: String,
    /// The image file, or a file of features.
    pub image: PathBuf,
    /// The captions; none of them is empty.
    pub captions: Vec<String>,
}

/// A list of items.
pub trait Dataset: Send + Sync {
    /// Number of items.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Item `index`.
    ///
    /// # Errors
    /// What is wrong with this item alone: the data set goes on without it.
    fn item(&self, index: usize) -> Result<Item>;

    /// What messages call item `index`, whether or not it can be read.
    fn name(&self, index: usize) -> String;
}

/// Opens the data set of a config's section, whose folder is `base`.
///
/// # Errors
/// A path that is not there, a format that does not fit, a set without items.
pub fn open(data: &Data, base: &Path) -> Result<Box<dyn Dataset>> {
    let path = base.join(&data.path);
    let set: Box<dyn Dataset> = match data.format {
        DataFormat::Magma => Box::new(magma::open(&path)?),
        DataFormat::Coco => Box::new(coco::open(&path)?),
        DataFormat::Jsonl => Box::new(jsonl::open(&path)?),
        DataFormat::Csv => Box::new(table::open(&path)?),
        DataFormat::Webdataset => {
            bail!("{}: format \"webdataset\" cannot be read yet; allowed are magma, coco, jsonl, csv", path.display())
        }
    };
    if set.is_empty() {
        bail!("{}: the data set holds no item", path.display())
    }
    Ok(set)
}

/// Captions without those that are empty.
fn captions(all: impl IntoIterator<Item = String>) -> Result<Vec<String>> {
    let kept: Vec<String> = all.into_iter().filter(|text| !text.trim().is_empty()).collect();
    if kept.is_empty() {
        bail!("it has no caption that is not empty")
    }
    Ok(kept)
}
