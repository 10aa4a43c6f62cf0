//! PyTorch checkpoints: a pickle that describes tensors, and the storages they are windows of.
//!
//! The pickle is read by an allow-list machine: it knows tensors, numbers, texts and plain containers, and refuses
//! the name of any other class or function before anything could be done with it. Nothing is ever executed.
//! TorchScript archives hold objects of classes `__torch__.*`; they are read as bags of attributes, their code is not.
//!
//! Every limit is a limit of work and memory, so a small file cannot ask for much of either.

mod call;
mod cursor;
mod flatten;
mod globals;
mod legacy;
mod machine;
mod tensor;
mod value;
mod zip;

pub use legacy::read as read_legacy;
pub use zip::{Deflated, read as read_zip};

/// Largest pickle: those of the largest models take some megabytes.
const PICKLE_LIMIT: usize = 64 << 20;
