//! A file at an address of its own, kept in the hub's cache by the hub's own means: locked, resumed, verified, then named.
//!
//! `limber--files/snapshots/HASH/NAME` is a link to the blob, HASH a hash of the address and of the sha256 that is asked
//! for. Without a sha256 a part of an earlier run is gone on with only under the server's strong ETag. A file that is
//! there is used as it is; [`pull`] asks the server whether it has another one now.

use super::super::spec::WebFile;
use super::cache::CachedRepository;
use super::{Pulled, PulledFile, Report, Settings};
use anyhow::Result;
use limber_core::hash;
use std::path::{Path, PathBuf};

/// The folder of such files in the cache, beside the repositories'.
const FOLDER: &str = "limber--files";

fn repository(cache: &Path) -> CachedRepository {
    CachedRepository { cache: cache.to_path_buf(), name: FOLDER.to_string() }
}

/// What stands where repositories have a commit.
fn snapshot(file: &WebFile) -> String {
    hash::short(&[file.address.as_bytes(), b"\n", file.sha256.as_deref().unwrap_or_default().as_bytes()])
}

/// Where a file belongs.
fn path(file: &WebFile, cache: &Path) -> PathBuf {
    repository(cache).snapshot(&snapshot(file)).join(file.name())
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

/// Sees to it that the cache has the file, whichever version of it.
///
/// # Errors
/// The network forbidden or not there, a server that refuses, other bytes than the sha256 says, a disk that cannot be
/// written.
pub fn ensure(file: &WebFile, settings: &Settings, report: Report) -> Result<()> {
    match path(file, &settings.cache).is_file() {
        true => Ok(()),
        false => pull(file, settings, report).map(|_| ()),
    }
}

/// Brings the file as the server has it now. Without the network, it only looks whether it is there.
///
/// # Errors
/// As [`ensure`].
pub fn pull(file: &WebFile, settings: &Settings, report: Report) -> Result<Pulled> {
    #[cfg(feature = "hub")]
    let downloaded = match &settings.offline {
        None => bring(file, settings, report)?,
        Some(_) => false,
    };
    #[cfg(not(feature = "hub"))]
    let downloaded = {
        let _ = report;
        false
    };
    let path = locate(file, &settings.cache, settings.offline.as_deref())?;
    let bytes = std::fs::metadata(&path).map_or(0, |found| found.len());
    let name = file.name().to_string();
    Ok(Pulled { path, commit: None, files: vec![PulledFile { name, bytes, downloaded }] })
}

/// Downloads the file where it has changed or is not there; whether it did.
#[cfg(feature = "hub")]
fn bring(file: &WebFile, settings: &Settings, report: Report) -> Result<bool> {
    use super::client::{Client, Metadata, Subject};
    use super::download::Job;
    use super::pull::is_network;
    use anyhow::Context;

    let (cached, commit) = (&repository(&settings.cache), snapshot(file));
    let client = Client::of(settings, &file.address)?;
    let subject = Subject::Web(&file.address);
    let mut run = || -> Result<bool> {
        let asked = client.persist(report, |_| client.metadata("", &file.address, &subject))?;
        // Without a hash or an ETag nothing tells versions apart but their length.
        let version = asked.validator.clone().or_else(|| asked.size.map(|size| size.to_string())).unwrap_or_default();
        let etag = match &file.sha256 {
            Some(sha256) => sha256.clone(),
            None => hash::short(&[file.address.as_bytes(), b"\n", version.as_bytes()]),
        };
        let metadata = Metadata { etag, sha256: file.sha256.clone(), ..asked };
        let (name, url, number) = (file.name(), &file.address, (1, 1));
        let job = Job { cached, commit: &commit, file: name, url, metadata: &metadata, subject, number };
        client.download(&job, report)
    };
    run()
        .map_err(|error| match is_network(&error) && !path(file, &settings.cache).is_file() {
            true => locate(file, &settings.cache, Some(&format!("{error:#}"))).err().unwrap_or(error),
            false => error,
        })
        .with_context(|| format!("weights {}", file.address))
}
