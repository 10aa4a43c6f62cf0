//! Repositories of the Hugging Face hub, and files at addresses of their own, brought into the hub's standard cache.
//!
//! [`ensure`] downloads what the cache lacks, [`pull`] also looks for a newer commit of the revision; both need the feature
//! `hub`, and the network to be allowed. What is in the cache is for [`limber_weights::cache`] to say; other libraries find
//! there what is downloaded here.

#[cfg(feature = "hub")]
mod address;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod pull;
mod settings;
#[cfg(feature = "hub")]
mod store;
mod web;

pub use settings::{Patience, Settings, Token, is_offline};

use anyhow::Result;
use limber_weights::WeightSpec;
use limber_weights::cache::{Lack, Named, Wanted, snapshot_path};
use std::path::PathBuf;

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
    /// The commit; a file at an address has none.
    pub commit: Option<String>,
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

/// Sees to it that the cache has what is wanted of a repository, whatever commit it has; most calls ask nobody.
///
/// # Errors
/// What the cache lacks and cannot get: the network forbidden or not there, naming the files and where they belong; a
/// hub that refuses; a disk that cannot be written.
pub fn ensure(spec: &WeightSpec, wanted: &Wanted, settings: &Settings, report: Report) -> Result<()> {
    if let WeightSpec::Web(file) = spec {
        return web::ensure(file, settings, report);
    }
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

/// Brings what lies beside the weights alone: small documents, which tell sizes. Nothing is brought without the network, of a
/// file at an address, or where the cache has a commit already.
///
/// # Errors
/// As [`ensure`].
pub fn documents(spec: &WeightSpec, wanted: &Wanted, settings: &Settings, report: Report) -> Result<()> {
    #[cfg(feature = "hub")]
    if let (WeightSpec::Hub { .. }, None) = (spec, &settings.offline) {
        let named = Named::new(spec, &settings.cache)?;
        if !named.snapshot().is_dir() {
            return pull::documents(&named, wanted, settings, report);
        }
    }
    let _ = (spec, wanted, settings, report);
    Ok(())
}

/// Brings what is wanted of a repository into the cache, at the commit that its revision stands for now. Without the
/// network, it only looks whether all is there.
///
/// # Errors
/// As [`ensure`].
pub fn pull(spec: &WeightSpec, wanted: &Wanted, settings: &Settings, report: Report) -> Result<Pulled> {
    if let WeightSpec::Web(file) = spec {
        return web::pull(file, settings, report);
    }
    let named = Named::new(spec, &settings.cache)?;
    #[cfg(feature = "hub")]
    if settings.offline.is_none() && !pull::is_settled(&named, wanted) {
        return pull::pull(&named, wanted, settings, report).map_err(|error| match pull::is_network(&error) {
            true if !named.lack(wanted).is_there() => {
                named.absent(wanted, &settings.cache, Some(&format!("{error:#}")))
            }
            true => error.context(format!("{spec}: the cache has it as it was, but it cannot be brought up to date")),
            false => error,
        });
    }
    #[cfg(not(feature = "hub"))]
    let _ = report;
    if !named.lack(wanted).is_there() {
        return Err(named.absent(wanted, &settings.cache, settings.offline.as_deref()));
    }
    let file = |(name, bytes)| PulledFile { name, bytes, downloaded: false };
    Ok(Pulled {
        path: snapshot_path(spec, &settings.cache)?,
        commit: Some(named.cached.commit(named.revision)),
        files: named.there(wanted).into_iter().map(file).collect(),
    })
}
