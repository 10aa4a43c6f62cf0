//! The threads that compute: rayon's one pool, started before anything needs it, so that a pool that cannot be had is an
//! error and no panic later on.

use anyhow::{Result, bail};
use limber_config::MAX_THREADS;
use std::error::Error;

/// Variables that rayon takes a number of threads from where it is given none.
const VARIABLES: [&str; 2] = ["RAYON_NUM_THREADS", "RAYON_RS_NUM_CPUS"];

/// Starts `threads` threads, by default one a core or as many as rayon's variables say.
///
/// # Errors
/// A variable beyond the limit, threads that the system does not start.
pub fn start(threads: Option<usize>) -> Result<()> {
    if threads.is_none() {
        for name in VARIABLES {
            let told = std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
            if let Some(n) = told.filter(|n| *n > MAX_THREADS as u64) {
                bail!("{name} is {n}, expected a number of threads from 1 to {MAX_THREADS}")
            }
        }
    }
    // Zero leaves the number to rayon.
    match rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build_global() {
        // A second call in one process finds the pool of the first: only what the system refuses has a cause.
        Err(error) if error.source().is_some() => {
            let count = threads.map_or("the".to_string(), |n| n.to_string());
            bail!("cannot start {count} threads: {error}; --threads, or the config's key threads, asks for fewer")
        }
        _ => Ok(()),
    }
}
