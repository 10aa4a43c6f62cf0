//! Writing to the standard Hugging Face cache: blobs, links to them, references, marks of what does not exist.

use super::super::write::replace;
use super::cache::CachedRepository;
use anyhow::{Context, Result};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

impl CachedRepository {
    /// The bytes of the file with this ETag.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder().join("blobs").join(etag)
    }

    /// What is there of a blob whose download is under way or was broken off.
    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder().join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The lock of a blob's download.
    pub fn lock(&self, etag: &str) -> PathBuf {
        self.cache.join(".locks").join(&self.name).join(format!("{etag}.lock"))
    }

    /// Notes that `revision` stands for `commit`.
    ///
    /// # Errors
    /// A cache that cannot be written.
    pub fn write_reference(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit || self.commit(revision) == commit {
            return Ok(());
        }
        let path = self.folder().join("refs").join(revision);
        make_parent(&path)?;
        replace(&path, commit.as_bytes())
    }

    /// Notes that `commit` has no `file`.
    ///
    /// # Errors
    /// A cache that cannot be written.
    pub fn mark_absent(&self, commit: &str, file: &str) -> Result<()> {
        let path = self.no_exist(commit).join(file);
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
    pub fn link(&self, etag: &str, commit: &str, file: &str) -> Result<()> {
        let (blob, pointer) = (self.blob(etag), self.snapshot(commit).join(file));
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
