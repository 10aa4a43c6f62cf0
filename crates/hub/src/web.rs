//! A file at an address of its own, brought into the hub's cache by the hub's own means: locked, resumed, verified, then
//! named.
//!
//! Without a sha256 a part is gone on with only under the server's strong ETag. A file that is there is used as it is, if it
//! has the sha256 that is asked for; [`pull`] asks the server whether it has another one now, and downloads it anew where
//! the server does not say.

use super::{Event, Pulled, PulledFile, Report, Settings};
use anyhow::Result;
use limber_weights::WebFile;
use limber_weights::cache::{Cached, locate_file, look_for_file};

/// Sees to it that the cache has the file, whichever version of it.
///
/// # Errors
/// The network forbidden or not there, a server that refuses, other bytes than the sha256 says, a disk that cannot be
/// written.
pub fn ensure(file: &WebFile, settings: &Settings, report: Report) -> Result<()> {
    match look_for_file(file, &settings.cache)? {
        Cached::Whole(_) => return Ok(()),
        Cached::Other { path, sha256 } if settings.offline.is_none() => report(Event::Note(&format!(
            "{} has the sha256 {sha256}, which is not the one that is asked for; downloading {}",
            path.display(),
            file.address
        ))),
        _ => {}
    }
    pull(file, settings, report).map(|_| ())
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
    use super::store::link;
    use anyhow::Context;
    use limber_core::hash;
    use limber_weights::cache::{CachedRepository, file_path, file_snapshot, other_hash};

    let cached = &CachedRepository::of_files(&settings.cache);
    let commit = file_snapshot(&file.address, file.sha256.as_deref());
    let path = file_path(file, &settings.cache);
    let client = Client::of(settings, &file.address)?;
    let subject = Subject::Web(&file.address);
    let mut run = || -> Result<bool> {
        let asked = client.persist(report, |_| client.metadata("", &file.address, &subject))?;
        let version = asked.version.as_deref().unwrap_or_default();
        let etag = match &file.sha256 {
            Some(sha256) => sha256.clone(),
            None => hash::short(&[file.address.as_bytes(), b"\n", version.as_bytes()]),
        };
        let blob = cached.blob(&etag);
        let reuse = match &file.sha256 {
            Some(sha256) => blob.is_file() && other_hash(&blob, sha256, Some(&settings.cache))?.is_none(),
            // Whoever removes a bad file removes the link.
            None => asked.version.is_some() && path.is_file(),
        };
        let metadata = Metadata { etag, sha256: file.sha256.clone(), ..asked };
        let (name, url, number) = (file.name(), &file.address, (1, 1));
        let job = Job { cached, commit: &commit, file: name, url, metadata: &metadata, subject, number, reuse };
        let downloaded = client.download(&job, report)?;
        // A config without a sha256 finds the file as well.
        let plain = file_snapshot(&file.address, None);
        if !cached.snapshot(&plain).join(name).exists() {
            link(cached, &metadata.etag, &plain, name)?;
        }
        Ok(downloaded)
    };
    run()
        .map_err(|error| match is_network(&error) && !path.is_file() {
            true => locate_file(file, &settings.cache, Some(&format!("{error:#}"))).err().unwrap_or(error),
            false => error,
        })
        .with_context(|| format!("weights {}", file.address))
}
