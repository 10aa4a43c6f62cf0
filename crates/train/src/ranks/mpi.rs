//! Ranks over MPI, through the `mpi` crate: whatever started the processes (`mpirun`, `srun`), they find each other.

use super::Ranks;
use anyhow::{Context, Result, ensure};
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::{Equivalence, PartitionMut};
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};

/// Numbers that go over the network in one call: MPI counts in 32 bits, and the copy that is sent stays small.
const PIECE: usize = 1 << 22;

/// The processes of MPI's world.
pub struct Mpi {
    /// Ends MPI when it is dropped, which waits for all processes.
    universe: Option<Universe>,
    world: SimpleCommunicator,
    local: usize,
}

impl Mpi {
    /// Joins the other processes.
    ///
    /// # Errors
    /// MPI that was joined before, or that cannot be used.
    pub fn new() -> Result<Self> {
        // Only the thread of the training loop speaks to MPI.
        let (universe, threading) =
            mpi::initialize_with_threading(Threading::Funneled).context("MPI was started before in this process")?;
        ensure!(threading >= Threading::Funneled, "this MPI does not allow a process to have threads: {threading:?}");
        let world = universe.world();
        let local = world.split_shared(world.rank()).rank() as usize;
        Ok(Self { universe: Some(universe), world, local })
    }

    fn sum_of<T: Equivalence + Copy>(&self, values: &mut [T]) {
        for piece in values.chunks_mut(PIECE) {
            let own = piece.to_vec();
            self.world.all_reduce_into(&own[..], piece, SystemOperation::sum());
        }
    }
}

impl Ranks for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn local(&self) -> usize {
        self.local
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        self.sum_of(values);
        Ok(())
    }

    fn sum_exact(&self, values: &mut [f64]) -> Result<()> {
        self.sum_of(values);
        Ok(())
    }

    fn gather(&self, text: &str) -> Result<Vec<String>> {
        let own = i32::try_from(text.len()).context("a text of more than 2 GiB cannot be sent")?;
        let mut lengths = vec![0; self.size()];
        self.world.all_gather_into(&own, &mut lengths[..]);
        let mut starts = Vec::with_capacity(lengths.len());
        let mut total = 0i32;
        for length in &lengths {
            starts.push(total);
            total = total.checked_add(*length).context("texts of more than 2 GiB together cannot be gathered")?;
        }
        let mut all = vec![0u8; total as usize];
        {
            let mut parts = PartitionMut::new(&mut all[..], lengths.clone(), &starts[..]);
            self.world.all_gather_varcount_into(text.as_bytes(), &mut parts);
        }
        let piece = |(start, length): (&i32, &i32)| all[*start as usize..][..*length as usize].to_vec();
        starts.iter().zip(&lengths).map(piece).map(|bytes| Ok(String::from_utf8(bytes)?)).collect()
    }

    fn abort(&self) -> ! {
        self.world.abort(1)
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Waiting would never end. The launcher sees a process that ended without a farewell and ends the others.
            std::mem::forget(self.universe.take());
        }
    }
}
