//! JSON lines: `{"image": path, "caption": text}` or `{"image": path, "captions": [texts]}`, paths relative to the file.
//!
//! The file stays where it is: only the beginnings of its lines are kept.

use super::span::read_at;
use super::{Dataset, Item, captions, key, named};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Longest line that is read.
const LINE_LIMIT: usize = 16 << 20;

/// The lines of a file, by where they begin.
pub struct Lines {
    path: PathBuf,
    folder: PathBuf,
    file: File,
    /// First byte and length of every line that is not blank.
    spans: Vec<(u64, usize)>,
}

#[derive(Deserialize)]
struct Line {
    image: String,
    #[serde(default)]
    caption: Option<String>,
    #[serde(default)]
    captions: Option<Vec<String>>,
}

/// Finds the lines of `path`.
///
/// # Errors
/// A file that cannot be read.
pub fn open(path: &Path) -> Result<Lines> {
    let place = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(place)?;
    let mut reader = BufReader::with_capacity(1 << 20, &file);
    let (mut spans, mut start, mut line) = (Vec::new(), 0u64, Vec::new());
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line).with_context(place)?;
        if length == 0 {
            break;
        }
        if line.iter().any(|b| !b.is_ascii_whitespace()) {
            spans.push((start, length));
        }
        start += length as u64;
    }
    drop(reader);
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(Lines { path: path.to_path_buf(), folder, file, spans })
}

impl Dataset for Lines {
    fn len(&self) -> usize {
        self.spans.len()
    }

    fn name(&self, index: usize) -> String {
        format!("{}, item {}", self.path.display(), index + 1)
    }

    fn item(&self, index: usize) -> Result<Item> {
        let (start, length) = self.spans[index];
        let name = self.name(index);
        if length > LINE_LIMIT {
            bail!("{name}: a line of {length} bytes, allowed are {LINE_LIMIT}")
        }
        let mut bytes = vec![0; length];
        read_at(&self.file, &mut bytes, start).with_context(|| name.clone())?;
        let line: Line = serde_json::from_slice(&bytes)
            .with_context(|| format!("{name}: not {{\"image\": path, \"caption\": text}} or \"captions\": [texts]"))?;
        let all = line.captions.unwrap_or_default().into_iter().chain(line.caption);
        let captions = captions(all).with_context(|| name.clone())?;
        Ok(Item { index, name, key: key(&line.image), image: named(&self.folder, &line.image), captions })
    }
}
