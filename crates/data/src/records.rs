//! Lists of JSON entries: JSON lines (`{"image": path, "caption": text}` or `"captions": [texts]`) and JSON lists such as
//! LLaVA's, paths relative to the file.
//!
//! The file stays where it is: only the beginnings of its entries are kept.

use super::record::{Names, Record};
use super::span::{self, read_at};
use super::{Dataset, Item, elements};
use anyhow::{Context, Result, bail};
use limber_core::bounded::{LINE_LIMIT, MARK, next_line};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Entries of which one must fit, for the list to be one of images and texts.
const LOOKED_AT: usize = 16;

/// The entries of a file, by where they begin.
pub struct Records {
    path: PathBuf,
    folder: PathBuf,
    names: Names,
    file: File,
    /// First byte and length of every entry.
    spans: Vec<(u64, u64)>,
}

/// The JSON lines of `path`.
///
/// # Errors
/// A file that cannot be read; lines that are no entries, told of the first one.
pub fn lines(path: &Path, names: Names) -> Result<Records> {
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
    Records::new(path, names, file, spans)
}

/// LLaVA's conversations in `path`: JSON lines where it ends so, else a JSON list. Conversations without an image, which its
/// lists of instructions have too, are left out.
///
/// # Errors
/// As [`lines`].
pub fn conversations(path: &Path, names: Names) -> Result<Records> {
    let mut all = match path.extension().is_some_and(|end| end.eq_ignore_ascii_case("jsonl")) {
        true => lines(path, names)?,
        false => {
            let (file, spans) = elements::find(path)?;
            Records::new(path, names, file, spans)?
        }
    };
    let before = all.spans.len();
    let mut kept = Vec::with_capacity(before);
    for (at, span) in all.spans.iter().enumerate() {
        // What is wrong with an entry is told when it is read.
        if all.bytes(at).map_or(true, |bytes| has_image(&bytes)) {
            kept.push(*span);
        }
    }
    all.spans = kept;
    let without = before - all.spans.len();
    if without > 0 {
        tracing::warn!("{}: {without} of {before} conversations have no image and are left out", path.display());
    }
    Ok(all)
}

/// Whether an entry has a key of an image.
fn has_image(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Entry {
        conversations: Option<IgnoredAny>,
        image: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Entry>(bytes).map_or(true, |entry| entry.conversations.is_none() || entry.image.is_some())
}

impl Records {
    /// The entries at `spans`, of the first of which one at least must fit.
    fn new(path: &Path, names: Names, file: File, spans: Vec<(u64, u64)>) -> Result<Self> {
        let all = Self { path: path.to_path_buf(), folder: names.folder(path), names, file, spans };
        let looked = all.spans.len().min(LOOKED_AT);
        if looked > 0 && (0..looked).all(|at| all.item(at).is_err()) {
            all.item(0)?;
        }
        Ok(all)
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let (start, length) = self.spans[index];
        if length > LINE_LIMIT {
            bail!("a line of {length} bytes, expected at most {LINE_LIMIT}")
        }
        let mut bytes = vec![0; length as usize];
        read_at(&self.file, &mut bytes, start)?;
        Ok(bytes)
    }

    fn read(&self, index: usize) -> Result<Item> {
        let value: Value = serde_json::from_slice(&self.bytes(index)?).context("it is no JSON")?;
        let record = Record::read(&value, &self.names)?;
        let Value::Object(map) = &value else { bail!("it is no map of keys") };
        record.item(index, self.name(index), &self.folder, map, &self.names)
    }
}

impl Dataset for Records {
    fn len(&self) -> usize {
        self.spans.len()
    }

    fn name(&self, index: usize) -> String {
        format!("{}, item {}", self.path.display(), index + 1)
    }

    fn item(&self, index: usize) -> Result<Item> {
        // One message, since a first entry that does not fit is told as it is.
        self.read(index).map_err(|error| anyhow::anyhow!("{}: {error:#}", self.name(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::sparse;
    use std::io::Write;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn keys_of(text: &str) -> Vec<String> {
        let set = lines(file(text).path(), Names::default()).unwrap();
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
        let set = lines(file.path(), Names::default()).unwrap();
        assert_eq!(set.len(), 2);
        let message = set.item(0).unwrap_err().to_string();
        assert!(message.ends_with("item 1: a line of 67108867 bytes, expected at most 16777216"), "{message}");
        assert_eq!(set.item(1).unwrap().key, "b.jpg");
    }

    #[test]
    fn lines_that_do_not_fit_are_told_of_the_first() {
        let line = "{\"img\": \"a.jpg\", \"text\": \"t\"}\n";
        let message = lines(file(&line.repeat(3)).path(), Names::default()).err().unwrap().to_string();
        assert!(
            message.contains(", item 1: found the keys \"img\", \"text\", expected an image (image, "),
            "{message}"
        );
        // One that fits among them makes the others items that cannot be read.
        let good = "{\"image\": \"b.jpg\", \"text\": \"t\"}\n";
        let set = lines(file(&(line.to_string() + good)).path(), Names::default()).unwrap();
        assert!(set.item(0).is_err() && set.item(1).is_ok());
        let message = lines(file("image,caption\na,b\n").path(), Names::default()).err().unwrap().to_string();
        assert!(message.contains("item 1: it is no JSON"), "{message}");
    }

    #[test]
    fn conversations_without_an_image_are_left_out() {
        let turns =
            "\"conversations\": [{\"from\": \"human\", \"value\": \"<image>\"}, {\"from\": \"gpt\", \"value\": \"A\"}]";
        let list = file(&format!("[{{\"id\": 1, {turns}}}, {{\"image\": \"a.jpg\", {turns}}}]"));
        let set = conversations(list.path(), Names::default()).unwrap();
        assert_eq!(set.len(), 1);
        let item = set.item(0).unwrap();
        assert_eq!((item.key.as_str(), item.captions.len(), item.conversation.len()), ("a.jpg", 0, 2));
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_no_list() {
        let message = lines(Path::new("/dev/zero"), Names::default()).err().unwrap().to_string();
        assert_eq!(message, "/dev/zero is no regular file");
    }
}
