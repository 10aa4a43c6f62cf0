//! JSON lines: `{"image": path, "caption": text}` or `{"image": path, "captions": [texts]}`, paths relative to the file.
//!
//! The file stays where it is: only the beginnings of its lines are kept.

use super::span::{self, read_at};
use super::{Dataset, Item, captions, key, named};
use anyhow::{Context, Result, bail};
use limber_core::bounded::{LINE_LIMIT, MARK, next_line};
use serde::Deserialize;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// The lines of a file, by where they begin.
pub struct Lines {
    path: PathBuf,
    folder: PathBuf,
    file: File,
    /// First byte and length of every line that is not blank.
    spans: Vec<(u64, u64)>,
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
    let context = || format!("cannot read {}", path.display());
    let file = span::open(path)?;
    let mut reader = BufReader::with_capacity(1 << 20, &file);
    let (mut spans, mut start, mut line) = (Vec::new(), 0u64, Vec::new());
    loop {
        let length = next_line(&mut reader, &mut line, LINE_LIMIT).with_context(context)?;
        if length == 0 {
            break;
        }
        let mark = if start == 0 && line.starts_with(MARK) { MARK.len() } else { 0 };
        if line[mark..].iter().any(|b| !b.is_ascii_whitespace()) {
            spans.push((start + mark as u64, length - mark as u64));
        }
        start += length;
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
            bail!("{name}: a line of {length} bytes, expected at most {LINE_LIMIT}")
        }
        let mut bytes = vec![0; length as usize];
        read_at(&self.file, &mut bytes, start).with_context(|| name.clone())?;
        let line: Line = serde_json::from_slice(&bytes)
            .with_context(|| format!("{name}: not {{\"image\": path, \"caption\": text}} or \"captions\": [texts]"))?;
        let all = line.captions.unwrap_or_default().into_iter().chain(line.caption);
        let captions = captions(all).with_context(|| name.clone())?;
        Ok(Item { index, name, key: key(&line.image), image: named(&self.folder, &line.image), captions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::sparse;
    use std::io::Write;

    fn keys_of(text: &str) -> Vec<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let set = open(file.path()).unwrap();
        (0..set.len()).map(|at| set.item(at).unwrap().key).collect()
    }

    #[test]
    fn a_byte_order_mark_costs_no_item() {
        let line = |name: &str| format!("{{\"image\": \"{name}\", \"caption\": \"c\"}}\n");
        assert_eq!(keys_of(&format!("\u{feff}{}\n{}", line("a.jpg"), line("b.jpg"))), ["a.jpg", "b.jpg"]);
        assert!(keys_of("\u{feff}\n\n").is_empty());
    }

    #[test]
    fn a_line_beyond_the_limit_is_an_item_that_cannot_be_read() {
        let file =
            sparse("{\"image\": \"a.jpg\", \"caption\": \"", "\"}\n{\"image\": \"b.jpg\", \"caption\": \"c\"}\n");
        let set = open(file.path()).unwrap();
        assert_eq!(set.len(), 2);
        let message = set.item(0).unwrap_err().to_string();
        assert!(message.ends_with("item 1: a line of 67108867 bytes, expected at most 16777216"), "{message}");
        assert_eq!(set.item(1).unwrap().key, "b.jpg");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_no_list() {
        let message = open(Path::new("/dev/zero")).err().unwrap().to_string();
        assert_eq!(message, "/dev/zero is no regular file");
    }
}
