//! Data sets of images and captions: what lies where, in which order it is read, and reading ahead of the step.
//!
//! A data set is listed first (names or offsets alone), so that a sample is found by its number: the order of an epoch
//! is a function of seed and epoch, and going on at any sample costs nothing.

mod ahead;
mod coco;
mod conversation;
mod elements;
pub mod features;
mod imagefolder;
mod loader;
mod magma;
mod matching;
mod order;
mod panicked;
mod parquet;
mod picture;
mod record;
mod records;
mod span;
mod table;
mod walk;
mod webdataset;

pub use ahead::Ahead;
pub use conversation::{Speaker, Turn};
pub use loader::{Loader, Reading, Sample, Tokens};
pub use matching::{IMAGE_ENDINGS, images_below, matching};
pub use order::Order;
pub use panicked::{Panicked, caught};
pub use picture::Picture;

use anyhow::{Result, bail};
use limber_config::{Data, DataFormat};
use record::Names;
use std::path::{Path, PathBuf};

/// One image with its captions, found but not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What messages and lists call it.
    pub name: String,
    /// Its number in the set.
    pub index: usize,
    /// What its features are called: the image's path in the data set, parts joined by `/`, none of them `..`.
    /// Items of one image share it.
    pub key: String,
    /// The image, or a file of features.
    pub image: Picture,
    /// The captions; none of them is empty.
    pub captions: Vec<String>,
    /// A conversation about the image, in place of captions.
    pub conversation: Vec<Turn>,
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
    let (path, names) = (base.join(&data.path), Names::of(data, base));
    let set: Box<dyn Dataset> = match data.format {
        DataFormat::Magma => Box::new(magma::open(&path)?),
        DataFormat::Coco => Box::new(coco::open(&path, names.folder.as_deref())?),
        DataFormat::Jsonl => Box::new(records::lines(&path, names)?),
        DataFormat::Csv => Box::new(table::open(&path, &names)?),
        DataFormat::Webdataset => Box::new(webdataset::open(&data.path, base)?),
        DataFormat::Llava => Box::new(records::conversations(&path, names)?),
        DataFormat::Imagefolder => imagefolder::open(&path, names)?,
        DataFormat::Parquet => Box::new(parquet::open(&path, names)?),
    };
    if set.is_empty() {
        bail!("{}: the data set holds no item", path.display())
    }
    Ok(set)
}

/// The format that a path has by its looks: what a folder holds, an ending, whether JSON is a list.
///
/// # Errors
/// A path that looks like none of them.
pub fn format_of(path: &str) -> Result<DataFormat> {
    let path_of_data = Path::new(path);
    if path_of_data.is_dir() {
        return Ok(match () {
            _ if path_of_data.join("image_data").is_dir() => DataFormat::Magma,
            _ if imagefolder::is_one(path_of_data) => DataFormat::Imagefolder,
            _ if parquet::is_one(path_of_data) => DataFormat::Parquet,
            _ => DataFormat::Webdataset,
        });
    }
    let ending = path_of_data.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    Ok(match ending.as_str() {
        "jsonl" => DataFormat::Jsonl,
        "json" if elements::find(path_of_data).is_ok() => DataFormat::Llava,
        "json" => DataFormat::Coco,
        "parquet" => DataFormat::Parquet,
        "csv" | "tsv" => DataFormat::Csv,
        "tar" => DataFormat::Webdataset,
        _ => bail!("{path:?} does not say how the data lie; name it with --format"),
    })
}

/// Captions without those that are empty.
fn captions(all: impl IntoIterator<Item = String>) -> Result<Vec<String>> {
    let kept: Vec<String> = all.into_iter().filter(|text| !text.trim().is_empty()).collect();
    if kept.is_empty() {
        bail!("it has no caption that is not empty")
    }
    Ok(kept)
}

/// An image that a list in `folder` names: a path, relative to the folder, or an address.
fn named(folder: &Path, text: &str) -> Picture {
    Picture::File(if is_address(text) { PathBuf::from(text) } else { folder.join(text) })
}

fn is_address(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// The key of an image that a list spells as `text`: two images of a list never share one.
fn key(text: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    if text.starts_with('/') {
        parts.push("@root".to_string());
    }
    // Backslashes part folders on Windows alone.
    let text = if cfg!(windows) { text.replace('\\', "/") } else { text.to_string() };
    for part in text.split('/').filter(|part| !matches!(*part, "" | ".")) {
        parts.push(match part {
            ".." => "@up".to_string(),
            // What we write ourselves begins with one @.
            _ if part.starts_with('@') => format!("@{part}"),
            _ => part.to_string(),
        });
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_in_their_folder_and_apart() {
        for (text, expected) in [
            ("a/b.jpg", "a/b.jpg"),
            ("./a//b.jpg", "a/b.jpg"),
            ("/a/b.jpg", "@root/a/b.jpg"),
            ("@root/a/b.jpg", "@@root/a/b.jpg"),
            ("../a/../b.jpg", "@up/a/@up/b.jpg"),
            ("https://x.org/b.jpg", "https:/x.org/b.jpg"),
        ] {
            assert_eq!(key(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_not_paths() {
        let folder = Path::new("/data");
        assert_eq!(named(folder, "a.jpg"), Picture::File("/data/a.jpg".into()));
        assert_eq!(named(folder, "http://x.org/a.jpg"), Picture::File("http://x.org/a.jpg".into()));
    }
}
