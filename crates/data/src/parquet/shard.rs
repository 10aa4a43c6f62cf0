//! One Parquet file: where its rows lie, and the values in a row's columns.

use super::columns::Columns;
use crate::record::Names;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use limber_core::weights::SharedBytes;
use limber_weights::map;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file, mapped, with its footer read.
pub struct Shard {
    /// Where it lies.
    pub path: PathBuf,
    /// What features of its rows are called by.
    pub label: String,
    /// The columns that are read.
    pub columns: Columns,
    reader: SerializedFileReader<Bytes>,
    /// Rows up to the end of each row group.
    ends: Vec<usize>,
}

/// Bytes that a file owns.
struct Mapped(SharedBytes);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl Shard {
    /// Opens the file `path`.
    ///
    /// # Errors
    /// A file that is none of Parquet's, columns of other names.
    pub fn open(path: &Path, names: &Names) -> Result<Self> {
        let reader = SerializedFileReader::new(Bytes::from_owner(Mapped(map(path)?))).map_err(plain)?;
        let metadata = reader.metadata();
        let columns = Columns::find(metadata.file_metadata().schema_descr(), names)?;
        let mut total = 0usize;
        let mut ends = Vec::with_capacity(metadata.num_row_groups());
        for group in metadata.row_groups() {
            let rows = usize::try_from(group.num_rows()).ok().and_then(|rows| total.checked_add(rows));
            total = rows.with_context(|| format!("found a row group of {} rows", group.num_rows()))?;
            ends.push(total);
        }
        let label = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let mut shard = Self { path: path.to_path_buf(), label, columns, reader, ends };
        // A set either holds its images or names them.
        if let (Some(bytes), Some(_), true) = (columns.seen.bytes, columns.seen.path, shard.rows() > 0)
            && shard.values(bytes, 0)?.first().is_none_or(ByteArray::is_empty)
        {
            shard.columns.seen.bytes = None;
        }
        Ok(shard)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The values of a column in a row: one, or none where it is null, or those of a list.
    ///
    /// # Errors
    /// A column that cannot be decompressed or is damaged.
    pub fn values(&self, column: usize, row: usize) -> Result<Vec<ByteArray>> {
        let group = self.ends.partition_point(|end| *end <= row);
        let first = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        let reader = self.reader.get_row_group(group).and_then(|group| group.get_column_reader(column));
        let ColumnReader::ByteArrayColumnReader(mut reader) = reader.map_err(plain)? else {
            bail!("column {column} holds no bytes")
        };
        let (skipped, mut values) = (reader.skip_records(row - first).map_err(plain)?, Vec::new());
        let (mut defined, mut repeated) = (Vec::new(), Vec::new());
        let read = reader.read_records(1, Some(&mut defined), Some(&mut repeated), &mut values);
        let (read, ..) = read.map_err(plain)?;
        if skipped != row - first || read != 1 {
            bail!("column {column} ends before row {}", row + 1)
        }
        Ok(values)
    }

    /// As [`Self::values`], of texts.
    ///
    /// # Errors
    /// As [`Self::values`], and bytes that are not UTF-8.
    pub fn texts(&self, column: usize, row: usize) -> Result<Vec<String>> {
        let values = self.values(column, row)?;
        values.iter().map(|value| Ok(value.as_utf8().context("a text that is not UTF-8")?.to_string())).collect()
    }
}

/// An error of the crate without its name in front, since it is ours that is told.
fn plain(error: ParquetError) -> anyhow::Error {
    let text = error.to_string();
    anyhow::anyhow!("{}", text.strip_prefix("Parquet error: ").unwrap_or(&text))
}

/// The bytes in a column of one row.
#[derive(Clone)]
pub struct Cell {
    shard: Arc<Shard>,
    column: usize,
    row: usize,
}

impl Cell {
    pub(super) fn new(shard: Arc<Shard>, column: usize, row: usize) -> Self {
        Self { shard, column, row }
    }

    /// The bytes, at most `limit`.
    ///
    /// # Errors
    /// A column that cannot be read, an empty cell, one over the limit.
    pub fn bytes(&self, limit: u64) -> Result<Vec<u8>> {
        let context = || format!("cannot read {self}");
        let mut values = self.shard.values(self.column, self.row).with_context(context)?;
        let Some(value) = values.pop() else { bail!("{}: it is empty", context()) };
        if value.len() as u64 > limit {
            bail!("{}: {} bytes, expected at most {limit}", context(), value.len())
        }
        Ok(value.data().to_vec())
    }
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        (&self.shard.path, self.column, self.row) == (&other.shard.path, other.column, other.row)
    }
}

impl Eq for Cell {}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Cell({self})")
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "the image of {}, row {}", self.shard.path.display(), self.row + 1)
    }
}
