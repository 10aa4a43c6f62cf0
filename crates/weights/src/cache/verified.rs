//! Whether a file has the sha256 that a config names.
//!
//! Hashing gigabytes takes seconds: that a file had the hash is noted in the cache with its length and time of change, and
//! it is hashed again once either is another. `limber--files/verified/HASH` holds them, HASH one of path and sha256.

use super::repository::CachedRepository;
use crate::write::replace;
use anyhow::{Context, Result};
use limber_core::hash;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How old a change must be for the next one to have another time, whatever the file system's clock.
const SETTLED: Duration = Duration::from_secs(2);

/// The sha256 that the file at `path` has in place of `expected`, None where it has that one. Without a cache nothing is
/// noted.
///
/// # Errors
/// A file that cannot be read.
pub fn other_hash(path: &Path, expected: &str, cache: Option<&Path>) -> Result<Option<String>> {
    let context = || format!("cannot read {}", path.display());
    let changed = changed(path);
    let note = cache.and_then(|cache| note(path, expected, cache));
    if let (Some(note), Some((_, text))) = (&note, &changed)
        && fs::read_to_string(note).is_ok_and(|noted| noted == *text)
    {
        return Ok(None);
    }
    let found = hash::sha256(File::open(path).with_context(context)?).with_context(context)?;
    if found != expected {
        return Ok(Some(found));
    }
    if let (Some(note), Some((at, text))) = (note, changed)
        && at.elapsed().is_ok_and(|age| age >= SETTLED)
        && let Some(folder) = note.parent()
    {
        // A cache that cannot be written costs time alone.
        _ = fs::create_dir_all(folder);
        _ = replace(&note, text.as_bytes());
    }
    Ok(None)
}

/// When the file was changed, and that with its length as text.
fn changed(path: &Path) -> Option<(SystemTime, String)> {
    let found = fs::metadata(path).ok()?;
    let at = found.modified().ok()?;
    Some((at, format!("{} bytes, {} ns\n", found.len(), at.duration_since(UNIX_EPOCH).ok()?.as_nanos())))
}

/// Where it is noted that the file has the hash.
fn note(path: &Path, expected: &str, cache: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(path).ok()?;
    let name = hash::short(&[path.as_os_str().as_encoded_bytes(), b"\n", expected.as_bytes()]);
    Some(CachedRepository::of_files(cache).folder().join("verified").join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf abc | sha256sum`.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_file_is_hashed_again_once_it_has_changed() {
        let place = tempfile::tempdir().unwrap();
        let (path, cache) = (place.path().join("f"), place.path().join("cache"));
        let other = || other_hash(&path, ABC, Some(&cache)).unwrap();
        let write = |text: &str, seconds: u64| {
            fs::write(&path, text).unwrap();
            let at = UNIX_EPOCH + Duration::from_secs(seconds);
            File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        };
        write("abc", 1000);
        assert_eq!(other(), None);
        // The same length and time are taken for the same bytes: nothing was hashed.
        write("abd", 1000);
        assert_eq!(other(), None);
        write("abd", 1001);
        assert!(other().unwrap().starts_with("a52d159f"));
        assert!(other_hash(&path, ABC, None).unwrap().is_some());
        // What changed just now may change again within the same tick of the clock.
        fs::write(&path, "abc").unwrap();
        assert_eq!(other(), None);
        assert_eq!(fs::read_dir(cache.join("limber--files/verified")).unwrap().count(), 1);
        let noted = fs::read_to_string(note(&path, ABC, &cache).unwrap()).unwrap();
        assert_eq!(noted, "3 bytes, 1000000000000 ns\n");
        fs::remove_file(&path).unwrap();
        let message = other_hash(&path, ABC, Some(&cache)).unwrap_err().to_string();
        assert!(message.starts_with("cannot read "), "{message}");
    }
}
