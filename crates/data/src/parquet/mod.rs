//! Parquet files of Hugging Face data sets: an image's bytes (`image: {bytes, path}`, as `datasets` writes it) or its path, and
//! captions or conversations, in columns under the usual names.
//!
//! Opening reads the footers alone; a row is found in its row group by passing over pages that end before it.

mod columns;
mod shard;

pub use shard::Cell;

use super::record::Names;
use super::{Dataset, Item, Picture, captions, caught, conversation, key, matching, named, walk};
use anyhow::{Context, Result, bail};
use columns::{Said, Seen};
use serde_json::json;
use shard::Shard;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The rows of all files, in their order.
pub struct Parquet {
    folder: PathBuf,
    shards: Vec<Arc<Shard>>,
    /// Rows up to the end of each file.
    ends: Vec<usize>,
}

/// Whether a folder, or one below it, has Parquet files.
pub fn is_one(root: &Path) -> bool {
    walk::files(root, &is_parquet).is_ok_and(|found| !found.is_empty())
}

fn is_parquet(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("parquet"))
}

/// Opens the file, the folder or the pattern `path`.
///
/// # Errors
/// No file, a folder of several splits, a file that is none of Parquet's, columns of other names.
pub fn open(path: &Path, names: Names) -> Result<Parquet> {
    let files = files(path)?;
    let Some(first) = files.first() else { bail!("{}: found no .parquet file", path.display()) };
    let folder = names.folder(first);
    let shard = |file: &PathBuf| {
        let opened = caught(|| file.display().to_string(), || Shard::open(file, &names));
        opened.map(Arc::new).with_context(|| format!("cannot read {}", file.display()))
    };
    let shards: Vec<Arc<Shard>> = files.iter().map(shard).collect::<Result<_>>()?;
    let mut total = 0;
    let ends = shards.iter().map(|shard| {
        total += shard.rows();
        total
    });
    let set = Parquet { folder, ends: ends.collect(), shards };
    // A column that this program cannot decompress is no matter of one row.
    if set.len() > 0 {
        set.shards[0].values(set.shards[0].columns.said_first(), 0).context(set.name(0))?;
    }
    Ok(set)
}

/// The files that a path names.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    if !path.is_dir() {
        let text = path.to_str().with_context(|| format!("the path {path:?} is not UTF-8"))?;
        return match matching(text)? {
            Some(files) => Ok(files),
            None => bail!("{text}: no such file or folder"),
        };
    }
    let mut below = walk::files(path, &is_parquet)?;
    below.sort();
    // As the hub names them: data/train-00000-of-00002.parquet.
    let split = |file: &PathBuf| {
        let stem = file.file_stem()?.to_str()?;
        let (front, _) = stem.split_once("-of-")?;
        Some(front.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches('-').to_string())
    };
    let splits: BTreeSet<String> = below.iter().filter_map(split).collect();
    if splits.len() > 1 {
        let names: Vec<&str> = splits.iter().map(String::as_str).collect();
        let above = below[0].parent().unwrap_or(Path::new(""));
        let example = path.join(above).join(format!("{}-*.parquet", names[names.len() - 1]));
        bail!("{}: found the splits {}, expected one, such as {}", path.display(), names.join(", "), example.display())
    }
    Ok(below.into_iter().map(|file| path.join(file)).collect())
}

impl Parquet {
    /// The file of row `index`, and the row's number in it.
    fn locate(&self, index: usize) -> (&Arc<Shard>, usize) {
        let at = self.ends.partition_point(|end| *end <= index);
        let shard = &self.shards[at];
        (shard, index - (self.ends[at] - shard.rows()))
    }

    fn read(&self, index: usize) -> Result<Item> {
        let (shard, row) = self.locate(index);
        let mut item = Item {
            name: self.name(index),
            index,
            key: String::new(),
            image: Picture::File(PathBuf::new()),
            captions: Vec::new(),
            conversation: Vec::new(),
        };
        (item.key, item.image) = match shard.columns.seen {
            // The names in a table need not be apart: the row is.
            Seen { bytes: Some(column), .. } => {
                (format!("{}/{row:08}", key(&shard.label)), Picture::Cell(Cell::new(shard.clone(), column, row)))
            }
            Seen { path: Some(column), .. } => match shard.texts(column, row)?.pop() {
                Some(path) if !path.is_empty() => (key(&path), named(&self.folder, &path)),
                _ => bail!("the image's column is empty"),
            },
            _ => bail!("there is no column of images"),
        };
        match shard.columns.said {
            Said::Captions(column) => item.captions = captions(shard.texts(column, row)?)?,
            Said::Turns { speaker, text } => {
                let (speakers, texts) = (shard.texts(speaker, row)?, shard.texts(text, row)?);
                if speakers.len() != texts.len() {
                    bail!("its conversation has {} speakers and {} texts", speakers.len(), texts.len())
                }
                let turns = speakers.iter().zip(&texts).map(|(from, value)| json!({"from": from, "value": value}));
                item.conversation = conversation::read(&turns.collect::<Vec<_>>())?;
            }
        }
        Ok(item)
    }
}

impl Dataset for Parquet {
    fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn name(&self, index: usize) -> String {
        let (shard, row) = self.locate(index);
        format!("{}, row {}", shard.path.display(), row + 1)
    }

    fn item(&self, index: usize) -> Result<Item> {
        self.read(index).with_context(|| self.name(index))
    }
}
