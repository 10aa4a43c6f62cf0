//! The Hugging Face hub's standard cache, as far as it is read: where it lies, what is in it, what it lacks.
//!
//! [`locate`] looks into the cache alone; the crate `limber-hub` brings files into it. Models that Python downloaded are
//! found here.

pub mod environment;
mod repository;
mod verified;
mod wanted;
mod web;

pub use environment::cache_folder;
pub use repository::CachedRepository;
pub use verified::other_hash;
pub use wanted::{INDEX, Lack, Named, Wanted, inside, parent};
pub use web::{Cached, locate as locate_file, look as look_for_file, path as file_path, snapshot as file_snapshot};

use super::spec::WeightSpec;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// The file or folder of `spec` in the cache.
///
/// # Errors
/// A repository, revision or file that is not in the cache, naming what was looked for and where it belongs.
pub fn locate(spec: &WeightSpec, files: &[&str], cache: &Path) -> Result<PathBuf> {
    if let WeightSpec::Web(file) = spec {
        return web::locate(file, cache, None);
    }
    let (named, wanted) = (Named::new(spec, cache)?, Wanted { weights: owned(files), beside: Vec::new() });
    if !named.lack(&wanted).is_there() {
        return Err(named.absent(&wanted, cache, None));
    }
    snapshot_path(spec, cache)
}

/// Where `spec` lies if its revision is in the cache; the file itself may be missing.
///
/// # Errors
/// A revision that is not in the cache.
pub fn snapshot_path(spec: &WeightSpec, cache: &Path) -> Result<PathBuf> {
    if let WeightSpec::Web(file) = spec {
        return web::locate(file, cache, None);
    }
    let named = Named::new(spec, cache)?;
    let snapshot = named.snapshot();
    if !snapshot.is_dir() {
        anyhow::bail!("revision {:?} of {} is not in {}", named.revision, named.repository, cache.display())
    }
    Ok(named.file.map_or_else(|| snapshot.clone(), |file| snapshot.join(file)))
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn finds_revisions_by_reference_and_by_commit() {
        let cache = tempfile::tempdir().unwrap();
        let repository = cache.path().join("models--a--b");
        let snapshot = repository.join("snapshots/0123abc");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(repository.join("refs/refs/pr")).unwrap();
        for name in ["main", "refs/pr/7"] {
            fs::write(repository.join("refs").join(name), "0123abc\n").unwrap();
        }
        fs::write(snapshot.join("model.safetensors"), "x").unwrap();
        let found = |text: &str| locate(&text.parse().unwrap(), &["model.safetensors"], cache.path());
        for text in ["hf:a/b", "hf:a/b@main", "hf:a/b@refs/pr/7", "hf:a/b@0123abc"] {
            assert_eq!(found(text).unwrap(), snapshot, "{text}");
        }
        assert_eq!(found("hf:a/b/model.safetensors").unwrap(), snapshot.join("model.safetensors"));

        let message = found("hf:a/b@other").unwrap_err().to_string();
        for part in [
            "a/b at revision \"other\"",
            "looked for model.safetensors",
            if cfg!(feature = "hub") { "`limber pull hf:a/b@other` or `hf" } else { "download it with `hf" },
            "hf download a/b --revision other",
        ] {
            assert!(message.contains(part), "{message}");
        }
        let message = found("hf:a/b/x.bin").unwrap_err().to_string();
        assert!(message.contains("looked for x.bin"), "{message}");
        assert!(message.contains("snapshots/0123abc/x.bin"), "{message}");
        let message = found("hf:c/d").unwrap_err().to_string();
        assert!(message.contains("models--c--d/snapshots/main/"), "{message}");
    }

    #[test]
    fn what_is_lacking_is_told_file_by_file() {
        let cache = tempfile::tempdir().unwrap();
        let snapshot = cache.path().join("models--a--b/snapshots/main");
        let absent = cache.path().join("models--a--b/.no_exist/main");
        fs::create_dir_all(snapshot.join("sub")).unwrap();
        fs::create_dir_all(&absent).unwrap();
        let index = "model.safetensors.index.json";
        let wanted = Wanted { weights: owned(&["model.safetensors", index]), beside: owned(&["config.json"]) };
        let lack = |text: &str| {
            let spec = text.parse().unwrap();
            Named::new(&spec, cache.path()).unwrap().lack(&wanted)
        };
        assert_eq!(lack("hf:a/b"), Lack::Weights(owned(&["model.safetensors", index])));
        fs::write(snapshot.join(index), r#"{"weight_map": {"x": "m-1.safetensors", "y": "m-2.safetensors"}}"#).unwrap();
        assert_eq!(lack("hf:a/b"), Lack::Shards(owned(&["m-1.safetensors", "m-2.safetensors"])));
        fs::write(snapshot.join("m-1.safetensors"), "x").unwrap();
        let message = locate(&"hf:a/b".parse().unwrap(), &[index], cache.path()).unwrap_err().to_string();
        assert!(message.contains("looked for m-2.safetensors;"), "{message}");
        fs::write(snapshot.join("m-2.safetensors"), "x").unwrap();
        assert_eq!(lack("hf:a/b"), Lack::Beside(owned(&["config.json"])));
        fs::write(absent.join("config.json"), "").unwrap();
        assert_eq!(lack("hf:a/b"), Lack::Nothing);
        // A folder in the repository has its own weights and documents.
        assert_eq!(lack("hf:a/b/sub"), Lack::Weights(owned(&["sub/model.safetensors", &format!("sub/{index}")])));
        fs::write(snapshot.join("sub/model.safetensors"), "x").unwrap();
        assert_eq!(lack("hf:a/b/sub"), Lack::Beside(owned(&["sub/config.json"])));
        assert_eq!(lack("hf:a/b/sub/model.safetensors"), Lack::Beside(owned(&["sub/config.json"])));
        assert_eq!(lack("hf:a/b/sub/x.bin"), Lack::Weights(owned(&["sub/x.bin"])));
    }
}
