//! Processes that train one stitch together: each reads its share of the data, gradients are summed once a step.
//!
//! A process alone is the trivial case: a sum over one is what it was. Rank 0 saves, logs and speaks.

mod launcher;
#[cfg(feature = "mpi")]
mod mpi;

#[cfg(feature = "mpi")]
pub use self::mpi::Mpi;

pub use launcher::{Told, told};

use anyhow::{Result, bail};
use limber_config::DeviceSpec;

/// The processes of one run, seen from one of them. Every method but the numbers is called by all of them alike.
pub trait Ranks {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// The number of this process among those of its machine: which accelerator is its own.
    fn local(&self) -> usize;

    /// Replaces each value by its sum over all processes.
    ///
    /// # Errors
    /// Processes that cannot be reached.
    fn sum(&self, values: &mut [f32]) -> Result<()>;

    /// [`Self::sum`] for what needs f64.
    ///
    /// # Errors
    /// As [`Self::sum`].
    fn sum_exact(&self, values: &mut [f64]) -> Result<()>;

    /// The texts of all processes, by rank.
    ///
    /// # Errors
    /// As [`Self::sum`].
    fn gather(&self, text: &str) -> Result<Vec<String>>;

    /// Ends all processes at once, with a failure.
    fn abort(&self) -> !;
}

/// One process alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Ranks for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn local(&self) -> usize {
        0
    }

    fn sum(&self, _values: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn sum_exact(&self, _values: &mut [f64]) -> Result<()> {
        Ok(())
    }

    fn gather(&self, text: &str) -> Result<Vec<String>> {
        Ok(vec![text.to_string()])
    }

    fn abort(&self) -> ! {
        std::process::exit(1)
    }
}

/// The processes that a launcher started this one with; a process alone where none did.
///
/// # Errors
/// Several processes that cannot be reached: without the feature `mpi`, or through another MPI than this program's.
pub fn launched() -> Result<Box<dyn Ranks>> {
    join(told())
}

#[cfg(not(feature = "mpi"))]
fn join(told: Option<Told>) -> Result<Box<dyn Ranks>> {
    if let Some(Told { variable: name, size, .. }) = told {
        bail!(
            "{name} is {size}, so a launcher started {size} processes, but this program was built without the feature \"mpi\": each would train alone and write the same folder; build it with --features mpi, or start one process"
        )
    }
    Ok(Box::new(Alone))
}

#[cfg(feature = "mpi")]
fn join(told: Option<Told>) -> Result<Box<dyn Ranks>> {
    let Some(Told { variable: name, size, .. }) = told else { return Ok(Box::new(Alone)) };
    let ranks = Mpi::new()?;
    if ranks.size() != size {
        bail!(
            "{name} is {size}, but MPI sees {} processes: the launcher belongs to another MPI than the library this program is linked to",
            ranks.size()
        )
    }
    Ok(Box::new(ranks))
}

/// The device of this process where a config names `device`: one accelerator each, counted from the config's.
pub fn own_device(device: DeviceSpec, local: usize) -> DeviceSpec {
    match device {
        DeviceSpec::Cuda(first) => DeviceSpec::Cuda(Some(first.unwrap_or(0) + local)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_takes_its_own_accelerator() {
        for (device, local, own) in [
            ("cpu", 3, "cpu"),
            ("cuda", 0, "cuda:0"),
            ("cuda", 3, "cuda:3"),
            ("cuda:4", 2, "cuda:6"),
            ("metal", 1, "metal"),
        ] {
            assert_eq!(own_device(device.parse().unwrap(), local).to_string(), own);
        }
    }
}
