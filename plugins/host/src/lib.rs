//! The host side of limber's plugins: opens a library, shakes hands, and makes its components ordinary registry entries.
//!
//! [`open`] gives a [`Library`]; its [`entries`](Library::entries) go through the same `Registry::insert` as the
//! components that are linked in. What an external component gives is checked where it can be: sizes of tables, shapes
//! and types, memory behind outputs, numbers that are not finite. A library is never unloaded.
//!
//! A plugin is native code in this process. These checks find mistakes, they are no wall.

mod component;
mod custom_op;
mod decoder;
mod encoder;
mod entry;
mod handshake;
mod library;
mod memory;
mod prepare;
mod source;
mod stitch;

pub use library::{Library, open, open_built};

use limber_plugin_abi::{LIMBER_ABI_MAJOR, LIMBER_ABI_MINOR};

/// The version of the ABI that this host speaks.
pub fn abi_version() -> String {
    format!("{LIMBER_ABI_MAJOR}.{LIMBER_ABI_MINOR}")
}
