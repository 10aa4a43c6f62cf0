//! Which implementation computes: this project's kernels on the CPU, or candle's own operations.
//!
//! Accelerators have candle's operations alone. The CPU can be told to take them too
//! ([`Weights::with_backend`](crate::Weights::with_backend)), so that what an accelerator runs is tested where there is none.

use candle_core::Device;

/// What computes a frozen layer and its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// `limber-kernels`: the CPU alone, over weights of every type where they lie.
    Kernels,
    /// Candle's operations on tensors, on any device.
    Candle,
}

impl Backend {
    /// The backend of a device unless something else is asked for: the kernels on the CPU.
    pub fn of(device: &Device) -> Self {
        if device.is_cpu() { Self::Kernels } else { Self::Candle }
    }

    /// Whether the kernels compute.
    pub fn is_kernels(self) -> bool {
        self == Self::Kernels
    }
}
