//! Frozen layers: their weights never move, never train, never get a gradient.

mod conv;
mod embedding;
mod epilogue;
mod linear;
mod linear_node;
mod mlp;
mod take;

pub use conv::{ConvShape, FrozenConv};
pub use embedding::FrozenEmbedding;
pub use epilogue::Epilogue;
pub use linear::{FrozenLinear, forward_all, forward_all_with};
pub(crate) use linear::{forward_given, forward_list};
pub(crate) use linear_node::{backward_only_sum, contiguous_f32};
pub use mlp::Mlp;
pub(crate) use mlp::{Hidden, HiddenState};
pub(crate) use take::take;
