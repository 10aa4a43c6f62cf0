//! Comma- or tab-separated columns with a header that names `image` and `caption` (or the names that are common for them).
//!
//! RFC 4180 quoting, by the `csv` crate; a file that ends in `.tsv` is split at tabs. Paths are relative to the file.
//! The file stays where it is: only the beginnings of its rows are kept.

use super::span::read_at;
use super::{Dataset, Item, captions, key, named};
use anyhow::{Context, Result, bail};
use csv::{ByteRecord, ReaderBuilder, StringRecord};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Longest row that is read.
const ROW_LIMIT: u64 = 16 << 20;

/// Headers that name the image, and those that name the caption.
const IMAGE: [&str; 6] = ["image", "image_path", "filepath", "file", "path", "file_name"];
const CAPTION: [&str; 4] = ["caption", "title", "text", "captions"];

/// The rows of a table.
pub struct Table {
    path: PathBuf,
    folder: PathBuf,
    file: File,
    tabs: bool,
    /// Columns of image and caption.
    columns: (usize, usize),
    /// Where every row begins, and where the last one ends.
    starts: Vec<u64>,
}

fn builder(tabs: bool) -> ReaderBuilder {
    let mut builder = ReaderBuilder::new();
    builder.delimiter(if tabs { b'\t' } else { b',' }).flexible(true);
    builder
}

/// Finds the rows of the table `path`.
///
/// # Errors
/// A file that cannot be read, a header without the two columns.
pub fn open(path: &Path) -> Result<Table> {
    let place = || format!("cannot read {}", path.display());
    let tabs = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tsv"));
    let file = File::open(path).with_context(place)?;
    let mut reader = builder(tabs).buffer_capacity(1 << 20).from_reader(&file);
    let header = reader.headers().with_context(place)?.clone();
    let column = |names: &[&str]| header.iter().position(|h| names.iter().any(|n| h.trim().eq_ignore_ascii_case(n)));
    let (Some(image), Some(caption)) = (column(&IMAGE), column(&CAPTION)) else {
        bail!(
            "{}: the header {:?} names no image and caption; allowed are {} and {}",
            path.display(),
            header.iter().collect::<Vec<_>>(),
            IMAGE.join(", "),
            CAPTION.join(", ")
        )
    };
    let (mut starts, mut record) = (Vec::new(), ByteRecord::new());
    loop {
        starts.push(reader.position().byte());
        if !reader.read_byte_record(&mut record).with_context(place)? {
            break;
        }
    }
    drop(reader);
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(Table { path: path.to_path_buf(), folder, file, tabs, columns: (image, caption), starts })
}

impl Dataset for Table {
    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    fn name(&self, index: usize) -> String {
        format!("{}, row {}", self.path.display(), index + 1)
    }

    fn item(&self, index: usize) -> Result<Item> {
        let name = self.name(index);
        let (start, end) = (self.starts[index], self.starts[index + 1]);
        if end - start > ROW_LIMIT {
            bail!("{name}: {} bytes, allowed are {ROW_LIMIT}", end - start)
        }
        let mut bytes = vec![0; (end - start) as usize];
        read_at(&self.file, &mut bytes, start).with_context(|| name.clone())?;
        let mut record = StringRecord::new();
        let mut reader = builder(self.tabs).has_headers(false).from_reader(bytes.as_slice());
        reader.read_record(&mut record).with_context(|| name.clone())?;
        let field = |at: usize| record.get(at).unwrap_or_default();
        let (image, caption) = (field(self.columns.0), field(self.columns.1));
        if image.is_empty() {
            bail!("{name}: the image's column is empty")
        }
        let captions = captions([caption.to_string()]).with_context(|| name.clone())?;
        Ok(Item { index, key: key(image), image: named(&self.folder, image), name, captions })
    }
}
