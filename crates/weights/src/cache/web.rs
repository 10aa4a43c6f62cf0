//! A file at an address of its own in the hub's cache: `limber--files/snapshots/HASH/NAME` is a link to the blob, HASH a
//! hash of the address and of the sha256 that is asked for.

use super::repository::CachedRepository;
use crate::spec::WebFile;
use anyhow::Result;
use limber_core::hash;
use std::path::{Path, PathBuf};

/// What stands where repositories have a commit.
pub fn snapshot(file: &WebFile) -> String {
    hash::short(&[file.address.as_bytes(), b"\n", file.sha256.as_deref().unwrap_or_default().as_bytes()])
}

/// Where a file belongs.
pub fn path(file: &WebFile, cache: &Path) -> PathBuf {
    CachedRepository::of_files(cache).snapshot(&snapshot(file)).join(file.name())
}

/// The file in the cache.
///
/// # Errors
/// A file that is not there, and what brings it; `why` says why it is not downloaded now.
pub fn locate(file: &WebFile, cache: &Path, why: Option<&str>) -> Result<PathBuf> {
    let path = path(file, cache);
    if path.is_file() {
        return Ok(path);
    }
    let own = if cfg!(feature = "hub") {
        format!("download it with `limber pull {}`, or ", file.address)
    } else {
        String::new()
    };
    let place = file.local.as_ref().map_or_else(|| path.display().to_string(), String::clone);
    let why = why.map(|why| format!(", and {why}")).unwrap_or_default();
    anyhow::bail!("{} is not in the cache {}{why}; {own}put it at {place}", file.address, cache.display())
}
