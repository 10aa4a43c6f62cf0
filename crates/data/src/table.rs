//! Comma- or tab-separated columns with a header that names `image` and `caption` (or the names that are common for them).
//!
//! RFC 4180 quoting, by the `csv` crate; a file that ends in `.tsv` is split at tabs. Paths are relative to the file.
//! The file stays where it is: only the beginnings of its rows are kept.

use super::record::{CAPTION, IMAGE, Names};
use super::span::{self, read_at};
use super::{Dataset, Item, captions, key, named};
use anyhow::{Context, Result, bail};
use csv::{ReaderBuilder, StringRecord};
use csv_core::ReadRecordResult::{End, InputEmpty, OutputEndsFull, OutputFull, Record};
use limber_core::bounded::LINE_LIMIT;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

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

/// The fields of one row.
fn fields(bytes: &[u8], tabs: bool) -> Result<StringRecord> {
    let delimiter = if tabs { b'\t' } else { b',' };
    let mut reader = ReaderBuilder::new().delimiter(delimiter).flexible(true).has_headers(false).from_reader(bytes);
    let mut record = StringRecord::new();
    reader.read_record(&mut record)?;
    Ok(record)
}

/// Passes over the next row, whose fields are not kept, and says how many bytes it has; None behind the last one.
fn next_row(parser: &mut csv_core::Reader, reader: &mut impl BufRead) -> std::io::Result<Option<u64>> {
    let (mut output, mut ends) = ([0; 4096], [0; 64]);
    let mut length = 0;
    loop {
        let (result, read, ..) = parser.read_record(reader.fill_buf()?, &mut output, &mut ends);
        reader.consume(read);
        length += read as u64;
        match result {
            InputEmpty | OutputFull | OutputEndsFull => {}
            Record => return Ok(Some(length)),
            End => return Ok(None),
        }
    }
}

/// Finds the rows of the table `path`.
///
/// # Errors
/// A file that cannot be read, a header without the two columns.
pub fn open(path: &Path, names: &Names) -> Result<Table> {
    let context = || format!("cannot read {}", path.display());
    let tabs = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tsv"));
    let file = span::open(path)?;
    let mut parser = csv_core::ReaderBuilder::new().delimiter(if tabs { b'\t' } else { b',' }).build();
    let mut reader = BufReader::with_capacity(1 << 20, &file);
    let first = next_row(&mut parser, &mut reader).with_context(context)?.unwrap_or(0);
    if first > LINE_LIMIT {
        bail!("{}: a header of {first} bytes, expected at most {LINE_LIMIT}", path.display())
    }
    let mut bytes = vec![0; first as usize];
    read_at(&file, &mut bytes, 0).with_context(context)?;
    let header = fields(&bytes, tabs).with_context(context)?;
    let column = |own: &Option<String>, usual: &[&str]| match own {
        Some(name) => header.iter().position(|h| h.trim() == name),
        None => header.iter().position(|h| usual.iter().any(|n| h.trim().eq_ignore_ascii_case(n))),
    };
    let (Some(image), Some(caption)) = (column(&names.image, &IMAGE), column(&names.caption, &CAPTION)) else {
        bail!(
            "{}: the header {:?} names no image and caption; {}",
            path.display(),
            header.iter().collect::<Vec<_>>(),
            names.expected()
        )
    };
    let mut starts = vec![first];
    let mut end = first;
    while let Some(length) = next_row(&mut parser, &mut reader).with_context(context)? {
        end += length;
        starts.push(end);
    }
    drop(reader);
    let folder = names.folder(path);
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
        if end - start > LINE_LIMIT {
            bail!("{name}: {} bytes, expected at most {LINE_LIMIT}", end - start)
        }
        let mut bytes = vec![0; (end - start) as usize];
        read_at(&self.file, &mut bytes, start).with_context(|| name.clone())?;
        let record = fields(&bytes, self.tabs).with_context(|| name.clone())?;
        let field = |at: usize| record.get(at).unwrap_or_default();
        let (image, caption) = (field(self.columns.0), field(self.columns.1));
        if image.is_empty() {
            bail!("{name}: the image's column is empty")
        }
        let captions = captions([caption.to_string()]).with_context(|| name.clone())?;
        let image = (key(image), named(&self.folder, image));
        Ok(Item { index, key: image.0, image: image.1, name, captions, conversation: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::sparse;

    /// The image and the caption, or what is wrong, of each row of a table.
    fn rows(name: &str, text: &str) -> Vec<Result<(String, String), String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let table = open(&path, &Names::default()).unwrap();
        let item = |at| table.item(at).map(|item| (item.key, item.captions.concat())).map_err(|e| format!("{e:#}"));
        (0..table.len()).map(item).collect()
    }

    #[test]
    fn rows_are_found_whatever_ends_them() {
        let row = |key: &str, caption: &str| Ok((key.to_string(), caption.to_string()));
        for end in ["\n", "\r\n"] {
            let lines = ["\u{feff}image,caption", "a.jpg,one", "", "b.jpg,\"two, and\nthree\"", "c.jpg,last"];
            let expected = [row("a.jpg", "one"), row("b.jpg", "two, and\nthree"), row("c.jpg", "last")];
            assert_eq!(rows("t.csv", &lines.join(end)), expected, "{end:?}");
            assert_eq!(rows("t.csv", &(lines.join(end) + end + end)), expected, "{end:?}");
        }
        assert_eq!(rows("t.tsv", "caption\tfile\nan a\ta.jpg"), [row("a.jpg", "an a")]);
        assert_eq!(rows("t.csv", "image,caption"), []);
        let wide = format!("image,caption,{}\na.jpg,one,{}\n", "x,".repeat(200), "y".repeat(20_000));
        assert_eq!(rows("t.csv", &wide), [row("a.jpg", "one")]);
    }

    #[test]
    fn a_row_beyond_the_limit_is_an_item_that_cannot_be_read() {
        let file = sparse("image,caption\na.jpg,", "\nb.jpg,c\n");
        let table = open(file.path(), &Names::default()).unwrap();
        assert_eq!(table.len(), 2);
        let message = table.item(0).unwrap_err().to_string();
        assert!(message.ends_with("row 1: 67108851 bytes, expected at most 16777216"), "{message}");
        assert_eq!(table.item(1).unwrap().key, "b.jpg");
        // The header as well.
        file.as_file().set_len(0).unwrap();
        file.as_file().set_len(64 << 20).unwrap();
        let message = open(file.path(), &Names::default()).err().unwrap().to_string();
        assert!(message.ends_with("a header of 67108864 bytes, expected at most 16777216"), "{message}");
    }
}
