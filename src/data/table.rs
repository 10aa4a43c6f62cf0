//! Comma- or tab-separated columns with a header that names `image` and `caption` (or the names that are common for them).
//!
//! RFC 4180 quoting, by the `csv` crate; a file that ends in `.tsv` is split at tabs. Paths are relative to the file.

use super::{Dataset, Item, captions};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Headers that name the image, and those that name the caption.
const IMAGE: [&str; 6] = ["image", "image_path", "filepath", "file", "path", "file_name"];
const CAPTION: [&str; 4] = ["caption", "title", "text", "captions"];

/// The rows of a table.
pub struct Table {
    path: PathBuf,
    folder: PathBuf,
    rows: Vec<(String, String)>,
}

/// Reads the table `path`.
///
/// # Errors
/// A file that cannot be read, a header without the two columns.
pub fn open(path: &Path) -> Result<Table> {
    let place = || format!("cannot read {}", path.display());
    let tabs = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tsv"));
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(if tabs { b'\t' } else { b',' })
        .flexible(true)
        .from_path(path)
        .with_context(place)?;
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
    let mut rows = Vec::new();
    for (number, record) in reader.records().enumerate() {
        let record = record.with_context(|| format!("{}: row {}", path.display(), number + 1))?;
        let field = |at: usize| record.get(at).unwrap_or_default().to_string();
        rows.push((field(image), field(caption)));
    }
    let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(Table { path: path.to_path_buf(), folder, rows })
}

impl Dataset for Table {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn name(&self, index: usize) -> String {
        format!("{}, row {}", self.path.display(), index + 1)
    }

    fn item(&self, index: usize) -> Result<Item> {
        let (image, caption) = &self.rows[index];
        let name = self.name(index);
        if image.is_empty() {
            bail!("{name}: the image's column is empty")
        }
        let captions = captions([caption.clone()]).with_context(|| name.clone())?;
        Ok(Item { name, image: self.folder.join(image), captions })
    }
}
