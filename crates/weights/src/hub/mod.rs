//! Repositories of the Hugging Face hub: found in its standard cache, and brought into it.
//!
//! [`locate`] looks into the cache alone. [`ensure`] downloads what the cache lacks, [`pull`] also looks for a newer
//! commit of the revision; both need the feature `hub`, and the network to be allowed. Models that Python downloaded
//! are found here, and ours are found there.

#[cfg(feature = "hub")]
mod address;
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod pull;
mod settings;
#[cfg(feature = "hub")]
mod store;
mod wanted;

pub use settings::{Patience, Settings, Token, cache_folder, is_offline};
pub use wanted::Wanted;

use super::spec::WeightSpec;
use anyhow::Result;
use std::path::{Path, PathBuf};
use wanted::{Lack, Named};

/// What a download says while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// A file begins, or is resumed at an offset.
    Begin {
        /// Its path in the repository.
        file: &'a str,
        /// Its length, where it is known.
        size: Option<u64>,
        /// Bytes that are there already.
        at: u64,
        /// It is file `number` ...
        number: usize,
        /// ... of so many.
        of: usize,
    },
    /// So many of its bytes are there.
    At(u64),
    /// It is complete.
    End {
        /// Its path in the repository.
        file: &'a str,
        /// Its length.
        size: u64,
    },
    /// Something a user should know.
    Note(&'a str),
}

/// Who hears of it.
pub type Report<'r> = &'r mut dyn FnMut(Event);

/// What a pull has brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The file or folder that the spec names, in the cache.
    pub path: PathBuf,
    /// The commit.
    pub commit: String,
    /// All that was wanted and is there.
    pub files: Vec<PulledFile>,
}

/// One file of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledFile {
    /// Its path in the repository.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Whether it came over the network now.
    pub downloaded: bool,
}

/// The file or folder of `spec` in the cache.
///
/// # Errors
/// A repository, revision or file that is not in the cache, naming what was looked for and where it belongs.
pub fn locate(spec: &WeightSpec, files: &[&str], cache: &Path) -> Result<PathBuf> {
    let (named, wanted) = (Named::new(spec, cache)?, Wanted { weights: owned(files), beside: Vec::new() });
    if !is_there(&named.lack(&wanted)) {
        return Err(named.absent(&wanted, cache, None));
    }
    snapshot_path(spec, cache)
}

/// Where `spec` lies if its revision is in the cache; the file itself may be missing.
///
/// # Errors
/// A revision that is not in the cache.
pub fn snapshot_path(spec: &WeightSpec, cache: &Path) -> Result<PathBuf> {
    let named = Named::new(spec, cache)?;
    let snapshot = named.snapshot();
    if !snapshot.is_dir() {
        anyhow::bail!("revision {:?} of {} is not in {}", named.revision, named.repository, cache.display())
    }
    Ok(named.file.map_or_else(|| snapshot.clone(), |file| snapshot.join(file)))
}

/// Sees to it that the cache has what is wanted of a repository, whatever commit it has; most calls ask nobody.
///
/// # Errors
/// What the cache lacks and cannot get: the network forbidden or not there, naming the files and where they belong; a
/// hub that refuses; a disk that cannot be written.
pub fn ensure(spec: &WeightSpec, wanted: &Wanted, settings: &Settings, report: Report) -> Result<()> {
    let named = Named::new(spec, &settings.cache)?;
    match (named.lack(wanted), &settings.offline) {
        (Lack::Nothing, _) | (Lack::Beside(_), Some(_)) => Ok(()),
        (Lack::Weights(_) | Lack::Shards(_), Some(why)) => Err(named.absent(wanted, &settings.cache, Some(why))),
        #[cfg(feature = "hub")]
        (Lack::Beside(names), None) => {
            // The weights are there: what may lie beside them is worth one attempt.
            let mut settings = settings.clone();
            settings.patience.tries = 1;
            settings.patience.connect = settings.patience.connect.min(std::time::Duration::from_secs(3));
            if let Err(error) = pull::complete(&named, &names, &settings, report) {
                let names = names.join(", ");
                report(Event::Note(&format!("{spec}: the cache may lack {names}: {error:#} (--offline asks nobody)")));
            }
            Ok(())
        }
        _ => pull(spec, wanted, settings, report).map(|_| ()),
    }
}

/// Brings what is wanted of a repository into the cache, at the commit that its revision stands for now. Without the
/// network, it only looks whether all is there.
///
/// # Errors
/// As [`ensure`].
pub fn pull(spec: &WeightSpec, wanted: &Wanted, settings: &Settings, report: Report) -> Result<Pulled> {
    let named = Named::new(spec, &settings.cache)?;
    #[cfg(feature = "hub")]
    if settings.offline.is_none() && !pull::is_settled(&named, wanted) {
        return pull::pull(&named, wanted, settings, report).map_err(|error| match pull::is_network(&error) {
            true if !is_there(&named.lack(wanted)) => {
                named.absent(wanted, &settings.cache, Some(&format!("{error:#}")))
            }
            true => error.context(format!("{spec}: the cache has it as it was, but it cannot be brought up to date")),
            false => error,
        });
    }
    #[cfg(not(feature = "hub"))]
    let _ = report;
    if !is_there(&named.lack(wanted)) {
        return Err(named.absent(wanted, &settings.cache, settings.offline.as_deref()));
    }
    let file = |(name, bytes)| PulledFile { name, bytes, downloaded: false };
    Ok(Pulled {
        path: snapshot_path(spec, &settings.cache)?,
        commit: named.cached.commit(named.revision),
        files: named.there(wanted).into_iter().map(file).collect(),
    })
}

/// Whether what is lacking is none of the weights.
fn is_there(lack: &Lack) -> bool {
    matches!(lack, Lack::Nothing | Lack::Beside(_))
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
