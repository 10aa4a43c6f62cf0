//! Which implementation computes: this project's kernels on the CPU, or candle's own operations.
//!
//! Accelerators have candle's operations alone. The CPU can be told to take them too
//! ([`Weights::with_backend`](crate::Weights::with_backend)), so that what an accelerator runs is tested where there is none.

use candle_core::Device;
use limber_kernels::Level;

/// What computes a frozen layer and its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `limber-kernels`: the CPU alone, over weights of every type where they lie.
    Kernels,
    /// Candle's operations on tensors, on any device.
    Candle,
}

impl Backend {
    /// The instruction set that the kernels take on this CPU.
    pub fn instruction_set() -> &'static str {
        match Level::detect() {
            Level::Portable => "portable",
            Level::Avx2 => "AVX2",
            Level::Avx512 => "AVX-512",
        }
    }

    /// The backend of a device unless something else is asked for: the kernels on the CPU.
    pub fn of(device: &Device) -> Self {
        if device.is_cpu() { Self::Kernels } else { Self::Candle }
    }

    /// Whether the kernels compute.
    pub fn is_kernels(self) -> bool {
        self == Self::Kernels
    }
}
