//! Where an image of a data set lies: a file of its own, an address, a member of a tar shard, or a cell of a table.

use super::parquet::Cell;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

/// An image, or features in its place, found but not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// A file, or an `http(s)` address.
    File(PathBuf),
    /// The data of a tar file's member.
    Member {
        /// The tar file.
        shard: Arc<PathBuf>,
        /// The member's name.
        name: String,
        /// First byte of its data.
        start: u64,
        /// Bytes of its data.
        length: u64,
    },
    /// The bytes in a column of a Parquet file.
    Cell(Cell),
}

impl Picture {
    /// The path or address of a file, None where it lies in a shard or a table.
    ///
    /// # Errors
    /// A path that is not UTF-8.
    pub fn path(&self) -> Result<Option<&str>> {
        match self {
            Picture::File(path) => path.to_str().map(Some).with_context(|| format!("the path {path:?} is not UTF-8")),
            Picture::Member { .. } | Picture::Cell(_) => Ok(None),
        }
    }

    /// The bytes of a member or a cell, at most `limit`; None where it is a file.
    ///
    /// # Errors
    /// A shard that cannot be read or is shorter than it was, a member or a cell over the limit.
    pub fn bytes(&self, limit: u64) -> Result<Option<Vec<u8>>> {
        let (shard, name, start, length) = match self {
            Picture::File(_) => return Ok(None),
            Picture::Cell(cell) => return cell.bytes(limit).map(Some),
            Picture::Member { shard, name, start, length } => (shard, name, start, length),
        };
        let context = || format!("cannot read {name} of {}", shard.display());
        if *length > limit {
            bail!("{}: {length} bytes, expected at most {limit}", context())
        }
        let mut file = File::open(shard.as_path()).with_context(context)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(*start)).with_context(context)?;
        let mut bytes = Vec::with_capacity(*length as usize);
        file.take(*length).read_to_end(&mut bytes).with_context(context)?;
        if bytes.len() as u64 != *length {
            bail!("{}: cut short, {} of {length} bytes are there", context(), bytes.len())
        }
        Ok(Some(bytes))
    }
}

impl std::fmt::Display for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Picture::File(path) => write!(f, "{}", path.display()),
            Picture::Member { shard, name, .. } => write!(f, "{} of {}", name, shard.display()),
            Picture::Cell(cell) => cell.fmt(f),
        }
    }
}
