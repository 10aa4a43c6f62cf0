//! Writing to the standard Hugging Face cache: blobs, links to them, references, marks of what does not exist.

use anyhow::{Context, Result};
use limber_weights::cache::CachedRepository;
use limber_weights::replace;
use std::fs;
use std::io;
use std::path::Path;

/// Notes that `revision` stands for `commit`.
///
/// # Errors
/// A cache that cannot be written.
pub fn write_reference(cached: &CachedRepository, revision: &str, commit: &str) -> Result<()> {
    if revision == commit || cached.commit(revision) == commit {
        return Ok(());
    }
    let path = cached.folder().join("refs").join(revision);
    make_parent(&path)?;
    replace(&path, commit.as_bytes())
}

/// Notes that `commit` has no `file`.
///
/// # Errors
/// A cache that cannot be written.
pub fn mark_absent(cached: &CachedRepository, commit: &str, file: &str) -> Result<()> {
    let path = cached.no_exist(commit).join(file);
    make_parent(&path)?;
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Puts the blob under its name in the snapshot: a relative link, or what the file system has in its place.
///
/// # Errors
/// A cache that cannot be written.
pub fn link(cached: &CachedRepository, etag: &str, commit: &str, file: &str) -> Result<()> {
    let (blob, pointer) = (cached.blob(etag), cached.snapshot(commit).join(file));
    if same(&blob, &pointer) {
        return Ok(());
    }
    make_parent(&pointer)?;
    let up = "../".repeat(2 + file.matches('/').count());
    let make = || -> io::Result<()> {
        match fs::remove_file(&pointer) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        match symlink(Path::new(&format!("{up}blobs/{etag}")), &pointer) {
            Ok(()) => Ok(()),
            // Another process was faster.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(_) => fs::hard_link(&blob, &pointer).or_else(|_| fs::copy(&blob, &pointer).map(|_| ())),
        }
    };
    make().with_context(|| format!("cannot link {} to its blob", pointer.display()))
}

/// Makes the folder that `path` lies in.
///
/// # Errors
/// A folder that cannot be made.
pub fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot make the folder {}", parent.display()))
}

/// Whether both names lead to one file.
fn same(blob: &Path, pointer: &Path) -> bool {
    match (fs::canonicalize(blob), fs::canonicalize(pointer)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

#[cfg(unix)]
fn symlink(target: &Path, name: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, name)
}

#[cfg(windows)]
fn symlink(target: &Path, name: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, name)
}
