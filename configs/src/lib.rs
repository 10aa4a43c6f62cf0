//! The config files of this folder as texts, so that a program holds them without the folder.

/// The demo model's config: components without weights are the embedded demo's.
pub const DEMO: &str = include_str!("../demo.yaml");
