//! Encoder, stitch and decoder of a config put together: loading, captions, generation, features of a data set.
//!
//! The one crate that knows every built-in component; what stands above it (training, evaluation, the program) takes
//! components from here, what stands below knows none.

pub mod convert;
pub mod encode;
pub mod generation;
pub mod model;
pub mod needs;
pub mod parts;
pub mod plugins;
mod reading;
pub mod stitch_file;

pub use reading::Reader;
