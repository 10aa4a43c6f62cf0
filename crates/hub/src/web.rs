//! A file at an address of its own, brought into the hub's cache by the hub's own means: locked, resumed, verified, then
//! named.
//!
//! Without a sha256 a part of an earlier run is gone on with only under the server's strong ETag. A file that is there is
//! used as it is; [`pull`] asks the server whether it has another one now.

use super::{Pulled, PulledFile, Report, Settings};
use anyhow::Result;
use limber_weights::WebFile;
use limber_weights::cache::{file_path, locate_file};

/// Sees to it that the cache has the file, whichever version of it.
///
/// # Errors
/// The network forbidden or not there, a server that refuses, other bytes than the sha256 says, a disk that cannot be
/// written.
pub fn ensure(file: &WebFile, settings: &Settings, report: Report) -> Result<()> {
    match file_path(file, &settings.cache).is_file() {
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
    let path = locate_file(file, &settings.cache, settings.offline.as_deref())?;
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
    use limber_core::hash;
    use limber_weights::cache::{CachedRepository, file_snapshot};

    let (cached, commit) = (&CachedRepository::of_files(&settings.cache), file_snapshot(file));
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
        .map_err(|error| match is_network(&error) && !file_path(file, &settings.cache).is_file() {
            true => locate_file(file, &settings.cache, Some(&format!("{error:#}"))).err().unwrap_or(error),
            false => error,
        })
        .with_context(|| format!("weights {}", file.address))
}
