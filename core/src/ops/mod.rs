//! Differentiable operations over frozen weights.
//!
//! candle's fused `LayerNorm`, `softmax_last_dim`, `rope*` and `sdpa` record no backward, so a graph ends there
//! without a word. These record one, give the input's gradient alone, and are compared with finite differences.
//! On the CPU each is one pass over memory; on an accelerator each is composed of candle's own operations.

mod activation;
mod attention;
mod attention_bias;
mod attention_composed;
mod attention_graph;
mod attention_kernel;
mod cross_entropy;
mod dropout;
mod interpolate;
mod kernel_node;
mod linear_bias;
mod norm;
mod norm_kind;
mod pool;
mod rms_norm;
mod rotary;
mod softmax;

pub use activation::{Activation, gelu_erf, gelu_tanh};
pub(crate) use attention::Use;
pub use attention::{CausalAttention, Heads, attend, attend_within};
pub use attention_bias::AttentionBias;
#[cfg(test)]
pub(crate) use attention_composed::COMPUTED;
pub use attention_composed::soft_cap;
pub use attention_kernel::attend_all;
pub(crate) use attention_kernel::attend_all_on;
pub use cross_entropy::cross_entropy;
pub use dropout::dropout;
pub use interpolate::{Interpolation, interpolate};
pub use linear_bias::{LinearBias, alibi_slopes, mpt_slopes};
pub use norm::{LayerNorm, layer_norm_trainable};
pub use norm_kind::{Norm, NormKind};
pub use pool::{PoolShape, average_pool, channels_first, channels_last, max_pool};
pub use rms_norm::RmsNorm;
pub use rotary::{Growth, Rotary, RotaryStyle, frequencies};
pub use softmax::softmax;

#[cfg(test)]
mod gradients;
