//! Tar shards as img2dataset and the package webdataset write them: members with one name and several endings, side by
//! side, are one sample (`000000001.jpg`, `000000001.json`, `000000001.txt`).
//!
//! Opening seeks from header to header and keeps where each sample begins, so that any of them is read on its own;
//! nothing is written. What cannot be read of a shard is an item like a corrupt image: passed over, counted and named.

mod braces;
mod index;
mod shards;

use super::{Dataset, Item, Picture, captions, key};
use anyhow::{Context, Result, bail};
use index::{Field, Shard};
use limber_core::bounded::without_mark;
use serde::Deserialize;
use std::path::Path;

/// Endings of images, and of features in their place, the likeliest first.
const IMAGES: [&str; 9] = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "npy"];
/// Endings of texts that are captions.
const TEXTS: [&str; 3] = ["txt", "caption", "cls"];
/// Most bytes of a text or a description.
const TEXT_LIMIT: u64 = 16 << 20;

/// What is read of a `.json`: img2dataset's `caption` beside its many other entries.
#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    caption: Option<String>,
    #[serde(default)]
    captions: Option<Vec<String>>,
}

/// The samples of all shards, in their order.
pub struct Webdataset {
    shards: Vec<Shard>,
    /// Samples up to the end of each shard.
    ends: Vec<usize>,
}

/// Finds the shards that `path` names, seen from `base`, and their samples.
///
/// # Errors
/// A name that stands for nothing, a shard that is not there or is compressed.
pub fn open(path: &str, base: &Path) -> Result<Webdataset> {
    let files = shards::find(path, base)?;
    let labels = shards::labels(&files);
    let shards = index::read(files.into_iter().zip(labels).collect())?;
    let mut total = 0;
    let ends = shards.iter().map(|shard| {
        total += shard.len();
        total
    });
    Ok(Webdataset { ends: ends.collect(), shards })
}

impl Webdataset {
    /// The shard of sample `index`, and the sample's number in it.
    fn locate(&self, index: usize) -> (&Shard, usize) {
        let at = self.ends.partition_point(|end| *end <= index);
        let shard = &self.shards[at];
        (shard, index - (self.ends[at] - shard.len()))
    }
}

impl Dataset for Webdataset {
    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn name(&self, index: usize) -> String {
        let (shard, at) = self.locate(index);
        match shard.name(at) {
            Some(name) => format!("{}, sample {name}", shard.path.display()),
            None => format!("{}, sample {}", shard.path.display(), at + 1),
        }
    }

    fn item(&self, index: usize) -> Result<Item> {
        let (shard, at) = self.locate(index);
        let name = self.name(index);
        let sample = shard.sample(at).with_context(|| name.clone())?;
        let field = |ending: &&str| sample.fields.iter().find(|field| field.ending == **ending);
        let Some(image) = IMAGES.iter().find_map(field) else {
            bail!("{name}: no image in it; its endings are {}, images are {}", sample.endings(), IMAGES.join(", "))
        };
        let texts = all_texts(shard, &sample.fields).with_context(|| name.clone())?;
        let captions = captions(texts).with_context(|| name.clone())?;
        let picture = Picture::Member {
            shard: shard.path.clone(),
            name: format!("{}.{}", sample.name, image.ending),
            start: image.start,
            length: image.length,
        };
        let key = format!("{}/{}.{}", shard.label, key(&sample.name), image.ending);
        Ok(Item { index, name, key, image: picture, captions, conversation: Vec::new() })
    }
}

/// The captions of a sample: those of its text files, else of its description.
fn all_texts(shard: &Shard, fields: &[Field]) -> Result<Vec<String>> {
    let read = |field: &Field| -> Result<Vec<u8>> {
        if field.length > TEXT_LIMIT {
            bail!("its .{} has {} bytes, expected at most {TEXT_LIMIT}", field.ending, field.length)
        }
        Ok(without_mark(&shard.read(field)?).to_vec())
    };
    for ending in TEXTS {
        let Some(field) = fields.iter().find(|field| field.ending == ending) else { continue };
        let Ok(text) = String::from_utf8(read(field)?) else { bail!("its .{ending} is not UTF-8") };
        let text = text.trim_matches(['\n', '\r']);
        // A class's number says nothing; its name does.
        if !text.trim().is_empty() && (ending != "cls" || text.trim().parse::<i64>().is_err()) {
            return Ok(vec![text.to_string()]);
        }
    }
    let Some(field) = fields.iter().find(|field| field.ending == "json") else { return Ok(Vec::new()) };
    let description: Description = serde_json::from_slice(&read(field)?).context("its .json is no description")?;
    Ok(description.captions.unwrap_or_default().into_iter().chain(description.caption).collect())
}
