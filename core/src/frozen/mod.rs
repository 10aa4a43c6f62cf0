//! Frozen layers: their weights never move, never train, never get a gradient.

mod conv;
mod embedding;
mod linear;

pub use conv::{ConvShape, FrozenConv};
pub use embedding::FrozenEmbedding;
pub use linear::{FrozenLinear, forward_all};
pub(crate) use linear::{contiguous_f32, forward_given};
