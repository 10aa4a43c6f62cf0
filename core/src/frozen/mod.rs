//! Frozen layers: their weights never move, never train, never get a gradient.

mod conv;
mod embedding;
mod linear;
mod mlp;
mod take;

pub use conv::{ConvShape, FrozenConv};
pub use embedding::FrozenEmbedding;
pub use linear::{After, FrozenLinear, forward_all, forward_all_then};
pub(crate) use linear::{contiguous_f32, finish, forward_given, sum_without_value};
pub(crate) use mlp::Numbers;
pub use mlp::{Hidden, Mlp};
pub(crate) use take::take;
