//! Which process of how many this is, as launchers tell by environment variables: the one module that reads them.

/// A launcher's variables: this process's number, and how many there are.
struct Launcher {
    rank: &'static str,
    size: &'static str,
    /// Whether the size counts without the number: MPI and SLURM set theirs for nobody else, `WORLD_SIZE` is anybody's.
    size_alone: bool,
}

/// Open MPI's `mpirun`, MPICH's and Intel's, `srun`, PyTorch's `torchrun`; the first that tells of several counts.
const LAUNCHERS: [Launcher; 5] = [
    Launcher { rank: "OMPI_COMM_WORLD_RANK", size: "OMPI_COMM_WORLD_SIZE", size_alone: true },
    Launcher { rank: "PMI_RANK", size: "PMI_SIZE", size_alone: true },
    Launcher { rank: "SLURM_PROCID", size: "SLURM_STEP_NUM_TASKS", size_alone: true },
    Launcher { rank: "SLURM_PROCID", size: "SLURM_NTASKS", size_alone: false },
    Launcher { rank: "RANK", size: "WORLD_SIZE", size_alone: false },
];

/// What a launcher told this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// The variable that tells how many processes there are.
    pub variable: &'static str,
    /// How many there are, at least two.
    pub size: usize,
    /// Which of them this is, from 0, where that is told.
    pub rank: Option<usize>,
}

/// What a launcher told by the variables of the environment; None for a process alone.
pub fn told() -> Option<Told> {
    told_by(|name| std::env::var(name).ok())
}

fn told_by(variable: impl Fn(&str) -> Option<String>) -> Option<Told> {
    let number = |name: &str| variable(name)?.trim().parse::<usize>().ok();
    // In the script of a job, SLURM_NTASKS is what `srun` would start: the script itself is one process.
    let is_script = variable("SLURM_JOB_ID").is_some() && variable("SLURM_STEP_ID").is_none();
    LAUNCHERS.iter().find_map(|launcher| {
        let size = number(launcher.size).filter(|size| *size > 1)?;
        let rank = number(launcher.rank);
        let counts = launcher.size_alone || rank.is_some();
        let counts = counts && !(is_script && launcher.size == "SLURM_NTASKS");
        counts.then_some(Told { variable: launcher.size, size, rank })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launchers_say_which_process_this_is() {
        let with = |all: &[(&str, &str)]| {
            let told = told_by(|name| all.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string()));
            told.map(|told| (told.variable, told.rank, told.size))
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("RANK", "1"), ("WORLD_SIZE", "3")]), Some(("WORLD_SIZE", Some(1), 3)));
        assert_eq!(with(&[("RANK", "1")]), None);
        assert_eq!(with(&[("WORLD_SIZE", "3")]), None);
        let ompi = [("OMPI_COMM_WORLD_RANK", "5"), ("OMPI_COMM_WORLD_SIZE", "8")];
        assert_eq!(with(&ompi), Some(("OMPI_COMM_WORLD_SIZE", Some(5), 8)));
        assert_eq!(with(&ompi[1..]), Some(("OMPI_COMM_WORLD_SIZE", None, 8)));
        assert_eq!(with(&[("PMI_SIZE", "1")]), None, "one process is alone");
        let slurm = [("SLURM_PROCID", "2"), ("SLURM_NTASKS", "4"), ("RANK", "0"), ("WORLD_SIZE", "1")];
        assert_eq!(with(&slurm), Some(("SLURM_NTASKS", Some(2), 4)));
        // A step of two out of a job of four.
        let step = [("SLURM_JOB_ID", "7"), ("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "2"), slurm[1]];
        assert_eq!(with(&[&step[..], &[("SLURM_PROCID", "1")]].concat()), Some(("SLURM_STEP_NUM_TASKS", Some(1), 2)));
        // The script of that job.
        assert_eq!(with(&[("SLURM_JOB_ID", "7"), ("SLURM_PROCID", "0"), slurm[1]]), None);
    }
}
