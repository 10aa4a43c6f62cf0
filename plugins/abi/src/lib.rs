//! The C ABI between limber (the host) and a dynamic library with components (the plugin): tables of functions, views of
//! tensors, status codes. Nothing here knows candle or any type of Rust's; `include/limber_plugin.h` is the same in C.
//!
//! **Handshake.** The host looks up [`LimberEntry`] under the name [`ENTRY_NAME`], which holds the ABI's major version,
//! and calls it once with a [`LimberHost`]. The plugin returns its [`LimberPlugin`], a table that lives as long as the
//! process. A library is never unloaded.
//!
//! **Growth.** Every struct begins with `size` (its size in bytes as its writer knew it) and `version` (the minor
//! version of the ABI that its writer was built for). Within a major version fields are appended, never moved, removed
//! or given another meaning. A reader takes `min(size, its own size)` bytes and reads the rest as zero ([`read`]), so
//! a new field's zero (a null pointer, 0) means what was true before it existed.
//!
//! **Ownership.** Each side frees what it allocated. What a call is given is borrowed for that call, unless its
//! documentation says otherwise. Handles ([`LimberInstance`], [`LimberCache`], [`LimberTape`], leases of weights) are
//! given back through the `release` that belongs to them, once. Results are written into memory that the caller
//! allocated; texts and lists of unknown length are handed to a callback ([`LimberSink`], [`LimberNames`],
//! [`LimberTaps`]).
//!
//! **Text** is UTF-8, ends in a zero byte, and is borrowed.
//!
//! **Errors.** A function that can fail returns a [`LimberStatus`], 0 for success, and takes a sink `error` last, to
//! which it gives one message before it returns anything else than 0. No exception and no panic crosses the boundary.
//! After an error the instance is as it was before the call, and outputs hold anything.
//!
//! **Threads.** The host may call from any thread. Two calls of one instance run at the same time only where the component
//! has the flag [`LIMBER_CONCURRENT`]; other instances are independent of it. The host's functions may be called from
//! any thread, while the call that gave them lasts.
//!
//! **Tensors** are contiguous, row-major and on the CPU, see [`LimberTensor`]. Letters of shapes: B batch, S image side,
//! N visual tokens, E encoder width, K prefix tokens, D LM width, T text tokens, P cached positions, H heads,
//! V vocabulary size, L layers.

mod decoder;
mod encoder;
pub mod headers;
pub mod lend;
mod plugin;
mod source;
mod stitch;
mod table;
mod tensor;

pub use decoder::*;
pub use encoder::*;
pub use plugin::*;
pub use source::*;
pub use stitch::*;
pub use table::{Table, TableError, empty, read, write};
pub use tensor::*;

use std::ffi::CStr;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("limber's plugin ABI is defined for 64-bit machines");

/// The ABI's major version: another one is another ABI.
pub const LIMBER_ABI_MAJOR: u32 = 1;
/// The ABI's minor version: counts the additions since 1.0.
pub const LIMBER_ABI_MINOR: u32 = 0;

/// The name of the entry symbol, of type [`LimberEntry`].
pub const ENTRY_NAME: &CStr = c"limber_plugin_v1";

/// What a function returns: 0 is success.
pub type LimberStatus = i32;

/// Success.
pub const LIMBER_OK: LimberStatus = 0;
/// The call failed; the message says why.
pub const LIMBER_ERROR: LimberStatus = 1;
/// The plugin panicked, and the panic was caught inside it.
pub const LIMBER_PANIC: LimberStatus = 2;
/// The component cannot do what was asked, and never will.
pub const LIMBER_UNSUPPORTED: LimberStatus = 3;
