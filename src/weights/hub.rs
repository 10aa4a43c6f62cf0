//! Repositories of the Hugging Face hub, as they lie in its standard cache.
//!
//! Layout, as written by `huggingface_hub`: `models--owner--name/refs/REVISION` holds a commit,
//! `models--owner--name/snapshots/COMMIT` is the repository's folder at that commit.

use super::spec::WeightSpec;
use anyhow::{Context, Result, bail};
use std::env;
use std::path::{Path, PathBuf};

/// The cache's folder: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
///
/// # Errors
/// An environment that has none of them and no home.
pub fn cache_folder() -> Result<PathBuf> {
    choose_cache(|name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))
}

fn choose_cache(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    let home = || variable("HOME").or_else(|| variable("USERPROFILE"));
    variable("HF_HUB_CACHE")
        .or_else(|| variable("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| variable("HF_HOME").map(|p| p.join("hub")))
        .or_else(|| variable("XDG_CACHE_HOME").map(|p| p.join("huggingface/hub")))
        .or_else(|| home().map(|p| p.join(".cache/huggingface/hub")))
        .context("no home folder is set: set HF_HOME to where Hugging Face files are kept")
}

/// The file or folder of `spec` in the cache.
///
/// # Errors
/// A repository, revision or file that is not in the cache, naming what was looked for and where it belongs.
pub fn locate(spec: &WeightSpec, files: &[&str], cache: &Path) -> Result<PathBuf> {
    match snapshot_path(spec, cache) {
        Ok(path) if path.exists() => Ok(path),
        _ => fetch(spec, files, cache),
    }
}

/// Where `spec` lies if its revision is in the cache; the file itself may be missing.
///
/// # Errors
/// A revision that is not in the cache.
pub fn snapshot_path(spec: &WeightSpec, cache: &Path) -> Result<PathBuf> {
    let WeightSpec::Hub { repository, revision, file } = spec else { bail!("{spec} is not on the hub") };
    let folder = repository_folder(cache, repository);
    let revision = revision.as_deref().unwrap_or("main");
    let commit = match std::fs::read_to_string(folder.join("refs").join(revision)) {
        Ok(commit) if super::spec::is_inside(commit.trim()) => commit.trim().to_string(),
        _ => revision.to_string(),
    };
    let snapshot = folder.join("snapshots").join(commit);
    if !snapshot.is_dir() {
        bail!("revision {revision:?} of {repository} is not in {}", cache.display())
    }
    Ok(match file {
        Some(file) => snapshot.join(file),
        None => snapshot,
    })
}

/// What is done where the cache lacks something. This is the place for downloads; until they come it is an error.
fn fetch(spec: &WeightSpec, files: &[&str], cache: &Path) -> Result<PathBuf> {
    let WeightSpec::Hub { repository, revision, file } = spec else { bail!("{spec} is not on the hub") };
    let revision = revision.as_deref().unwrap_or("main");
    let wanted = match file {
        Some(file) => file.clone(),
        None => files.join(" or "),
    };
    let place = match snapshot_path(spec, cache) {
        Ok(path) => path,
        Err(_) => repository_folder(cache, repository).join("snapshots").join(revision),
    };
    let place = if file.is_some() && place.extension().is_some() { place } else { place.join("") };
    bail!(
        "{spec}: {repository} at revision {revision:?} is not in the Hugging Face cache {}; looked for {wanted}; \
         download it with `hf download {repository} --revision {revision}`, or put it at {}",
        cache.display(),
        place.display(),
    )
}

fn repository_folder(cache: &Path, repository: &str) -> PathBuf {
    cache.join(format!("models--{}", repository.replace('/', "--")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_environment_names_the_cache() {
        for (set, expected) in [
            (vec![("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")], "/c"),
            (vec![("HF_HOME", "/h"), ("HOME", "/u")], "/h/hub"),
            (vec![("XDG_CACHE_HOME", "/x"), ("HOME", "/u")], "/x/huggingface/hub"),
            (vec![("HOME", "/u")], "/u/.cache/huggingface/hub"),
        ] {
            let variable = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v));
            assert_eq!(choose_cache(variable).unwrap(), PathBuf::from(expected));
        }
        assert!(choose_cache(|_| None).is_err());
    }

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
        for part in ["a/b at revision \"other\"", "looked for model.safetensors", "hf download a/b --revision other"] {
            assert!(message.contains(part), "{message}");
        }
        let message = found("hf:a/b/x.bin").unwrap_err().to_string();
        assert!(message.contains("looked for x.bin"), "{message}");
        assert!(message.contains("snapshots/0123abc/x.bin"), "{message}");
        let message = found("hf:c/d").unwrap_err().to_string();
        assert!(message.contains("models--c--d/snapshots/main/"), "{message}");
    }
}
