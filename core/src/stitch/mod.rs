//! The `Stitch` contract: visual tokens in, prefix tokens out; the one trained layer, elsewhere called a projector or
//! connector. [`Projector`] is a stitch of linear layers.

mod layout;
mod projector;
#[cfg(test)]
mod tests;

pub use layout::{LayerNames, ProjectorSettings};
pub use projector::Projector;

use candle_core::{Result, Tensor, Var};
use std::collections::BTreeMap;

/// Whether a stitch runs for training, which switches its dropout on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// No dropout, ever: inference and evaluation.
    #[default]
    Inference,
    /// Dropout as configured, drawn from the seed of this step.
    Training {
        /// Seed of this step's dropout mask.
        seed: u64,
    },
}

/// The trained layer between a frozen encoder and a frozen decoder.
pub trait Stitch: Send + Sync {
    /// Prefix tokens K that `tokens` visual tokens give, and their width D.
    fn prefix_spec(&self, tokens: usize) -> PrefixSpec;

    /// Features `[B, N, E]` f32 to prefix `[B, K, D]` f32, with the graph of this stitch's variables.
    fn project(&self, features: &Tensor, mode: Mode) -> Result<Tensor>;

    /// The trained variables by name (the names of the checkpoint), each f32.
    fn variables(&self) -> BTreeMap<String, Var>;
}

/// The prefix that a stitch gives: `[B, K, D]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixSpec {
    /// Prefix tokens K.
    pub tokens: usize,
    /// LM width D.
    pub width: usize,
}
