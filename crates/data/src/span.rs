//! Parts of a file that stays open, read by any thread.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::path::Path;

/// Opens a file whose offsets stay valid: a pipe has none, and a device may have no end.
///
/// # Errors
/// A file that is not there or is none.
pub fn open(path: &Path) -> Result<File> {
    let context = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(context)?;
    ensure!(file.metadata().with_context(context)?.is_file(), "{} is no regular file", path.display());
    Ok(file)
}

/// Fills `bytes` from `start` on.
///
/// # Errors
/// A file that cannot be read, or that ends before.
#[cfg(unix)]
pub fn read_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

/// As many bytes from `start` on as one read gives; 0 at the file's end.
///
/// # Errors
/// A file that cannot be read.
#[cfg(unix)]
pub fn read_some_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, start)
}

/// Fills `bytes` from `start` on.
///
/// # Errors
/// A file that cannot be read, or that ends before.
#[cfg(windows)]
pub fn read_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match read_some_at(file, &mut bytes[done..], start + done as u64)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => done += n,
        }
    }
    Ok(())
}

/// As many bytes from `start` on as one read gives; 0 at the file's end.
///
/// # Errors
/// A file that cannot be read.
#[cfg(windows)]
pub fn read_some_at(file: &File, bytes: &mut [u8], start: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, start)
}

/// A file of `before`, zeros up to 64 MiB that take no disk, and `after`.
#[cfg(test)]
pub(crate) fn sparse(before: &str, after: &str) -> tempfile::NamedTempFile {
    use std::io::{Seek, SeekFrom, Write};
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(before.as_bytes()).unwrap();
    file.seek(SeekFrom::Start(64 << 20)).unwrap();
    file.write_all(after.as_bytes()).unwrap();
    file
}
