//! The host side of limber's plugins: opens a library, shakes hands, and makes its parts ordinary registry entries.
//!
//! [`open`] gives a [`Library`]; its [`entries`](Library::entries) go through the same `Registry::insert` as the parts
//! that are linked in. What a foreign part gives is checked where it can be: sizes of tables, shapes and types, memory
//! behind outputs, numbers that are not finite. A library is never unloaded.
//!
//! A plugin is native code in this process. These checks find mistakes, they are no wall.

mod cache;
mod decoder;
mod encoder;
mod entry;
mod graft;
mod handshake;
mod library;
mod memory;
mod part;
mod source;
mod stitch;

pub use library::{Library, open, open_built};

use limber_plugin_abi::{LIMBER_ABI_MAJOR, LIMBER_ABI_MINOR};

/// The version of the ABI that this host speaks.
pub fn abi_version() -> String {
    format!("{LIMBER_ABI_MAJOR}.{LIMBER_ABI_MINOR}")
}
