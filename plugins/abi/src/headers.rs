//! The headers for plugins in C, as text: whoever has this package has them.

/// `limber_plugin.h`: the ABI, the same as the structs of this crate.
pub const PLUGIN: &str = include_str!("../include/limber_plugin.h");
/// `limber_part.h`: settings, messages, weights, and the export of a component. Not part of the ABI.
pub const PART: &str = include_str!("../include/limber_part.h");
/// `limber_test.h`: a host small enough for a plugin's own test. Not part of the ABI.
pub const TEST: &str = include_str!("../include/limber_test.h");
