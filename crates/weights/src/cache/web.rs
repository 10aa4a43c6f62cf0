//! A file at an address of its own in the hub's cache: `limber--files/snapshots/HASH/NAME` is a link to the blob, HASH a
//! hash of the address and of the sha256 that was asked for.
//!
//! A file that came without a sha256 is used where one is asked for, if it has it.

use super::repository::CachedRepository;
use super::verified::other_hash;
use crate::spec::WebFile;
use anyhow::Result;
use limber_core::hash;
use std::path::{Path, PathBuf};

/// What stands where repositories have a commit, for the file at `address` that came with this sha256 or without one.
pub fn snapshot(address: &str, sha256: Option<&str>) -> String {
    hash::short(&[address.as_bytes(), b"\n", sha256.unwrap_or_default().as_bytes()])
}

/// Where a file belongs.
pub fn path(file: &WebFile, cache: &Path) -> PathBuf {
    path_with(file, file.sha256.as_deref(), cache)
}

fn path_with(file: &WebFile, sha256: Option<&str>, cache: &Path) -> PathBuf {
    CachedRepository::of_files(cache).snapshot(&snapshot(&file.address, sha256)).join(file.name())
}

/// What the cache has of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cached {
    /// The file, with the sha256 that is asked for if one is.
    Whole(PathBuf),
    /// A file with another sha256.
    Other {
        /// Where it is.
        path: PathBuf,
        /// The one that it has.
        sha256: String,
    },
    /// Nothing.
    Absent,
}

/// Looks for a file in the cache.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn look(file: &WebFile, cache: &Path) -> Result<Cached> {
    let Some(expected) = file.sha256.as_deref() else {
        let path = path(file, cache);
        return Ok(if path.is_file() { Cached::Whole(path) } else { Cached::Absent });
    };
    let mut found = Cached::Absent;
    for path in [Some(expected), None].map(|sha256| path_with(file, sha256, cache)) {
        if !path.is_file() {
            continue;
        }
        match other_hash(&path, expected, Some(cache))? {
            None => return Ok(Cached::Whole(path)),
            Some(sha256) if found == Cached::Absent => found = Cached::Other { path, sha256 },
            Some(_) => {}
        }
    }
    Ok(found)
}

/// The file in the cache.
///
/// # Errors
/// A file that is not there or has another sha256, and what brings it; `why` says why it is not downloaded now.
pub fn locate(file: &WebFile, cache: &Path, why: Option<&str>) -> Result<PathBuf> {
    let what = match look(file, cache)? {
        Cached::Whole(path) => return Ok(path),
        Cached::Absent => format!("{} is not in the cache {}", file.address, cache.display()),
        Cached::Other { path, sha256 } => format!(
            "{} is in the cache as {} with the sha256 {sha256}, the config says {}",
            file.address,
            path.display(),
            file.sha256.as_deref().unwrap_or_default()
        ),
    };
    let own = if cfg!(feature = "hub") {
        format!("download it with `limber pull {}`, or ", file.address)
    } else {
        String::new()
    };
    let path = path(file, cache);
    let place = file.local.as_ref().map_or_else(|| path.display().to_string(), String::clone);
    let why = why.map(|why| format!(", and {why}")).unwrap_or_default();
    anyhow::bail!("{what}{why}; {own}put it at {place}")
}
