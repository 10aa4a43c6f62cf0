//! Linear algebra over frozen weights: f32 activations, weights in the type they are stored in.
//!
//! Slices in, slices out; shapes are row-major. The SIMD width is chosen at run time
//! ([`Level`]), work runs on the current rayon pool, and sizes that do not fit, or that no
//! memory could hold, are a [`ShapeError`]. Call from inside a pool (`ThreadPool::install`) to save the hand-over.
#![allow(unsafe_code)]
// Index arithmetic over tiles of several arrays at once reads better with the index in sight, and inner kernels take
// their pointers and sizes one by one.
#![allow(clippy::needless_range_loop, clippy::too_many_arguments)]

mod activation;
mod attention;
mod attention_block;
mod attention_grad;
mod blocks;
mod conv;
mod convert;
mod dot;
mod elementwise;
mod gemm;
mod isa;
mod linear;
mod math;
mod mlp;
mod norm_gradient;
mod parallel;
mod pool;
mod probe;
mod quant;
mod rms_norm;
mod rotary;
mod scratch;
mod shape;
mod soft_cap;
#[cfg(target_arch = "x86_64")]
mod vnni;
mod weight;

pub use activation::{Activation, activate, activate_in_place, activate_input_grad};
pub use attention::{Attention, GridBias, Heads, ScoreBias, Values, Visible};
pub use attention_grad::CausalGrads;
pub use blocks::BlockType;
pub use conv::{Conv, ConvShape};
pub use convert::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
pub use elementwise::{layer_norm, layer_norm_input_grad, softmax, softmax_input_grad};
pub use half::{bf16, f16};
pub use isa::{Level, with_level};
pub use linear::{Epilogue, Layer, SKINNY_ROWS, linear, linear_input_grad, linear_multi};
pub use mlp::Mlp;
pub use pool::{PoolShape, average_pool, max_pool, transpose};
pub use probe::{bandwidth_of, bandwidth_probe, gemm_crate_probe, gemm_probe, linear_probe};
pub use quant::{Q4K_BYTES, Q8_0_BYTES, dequantize, quantize_q4_k, quantize_q8_0};
pub use rms_norm::{rms_norm, rms_norm_input_grad};
pub use rotary::{Rotary, RotaryStyle};
pub use shape::ShapeError;
pub use weight::Weight;
