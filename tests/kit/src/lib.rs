//! Conformance suite for encoders, decoders and stitches: what the contracts of `limber-core` promise, checked.
//!
//! An author's test is two lines; the same suite runs over every built-in component and in `limber plugin check`:
//!
//! ```no_run
//! let registry = limber_core::Registry::from_inventory().expect("kinds are unique");
//! limber_kit::assert_conforms(&registry, &["my-encoder"]);
//! ```
//!
//! A component is built from its `tiny` settings with random weights on the CPU. One that lies or panics makes its check
//! fail; of the suite itself [`assert_conforms`] alone panics.

mod cached;
mod decoder;
mod encoder;
mod gradient;
mod lively;
mod report;
mod settings;
mod stitch;
mod values;

pub use decoder::check_decoder;
pub use encoder::check_encoder;
pub use lively::Drawn;
pub use report::{Check, Report};
pub use stitch::check_stitch;

use limber_core::Registry;
use limber_core::registry::{Entry, Maker};

/// Every check of the entry's role.
pub fn check_entry(entry: &Entry) -> Report {
    match &entry.maker {
        Maker::Encoder(_) => check_encoder(entry),
        Maker::Decoder(_) => check_decoder(entry),
        Maker::Stitch(_) => check_stitch(entry),
    }
}

/// The whole of an author's test: `registry` holds these kinds and no other, and each passes every check of its role.
///
/// # Panics
/// Where that is not so, with the report.
pub fn assert_conforms(registry: &Registry, kinds: &[&str]) {
    let found: Vec<&str> = registry.entries().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(found, kinds, "the kinds of the registry");
    for report in registry.entries().map(check_entry) {
        assert!(report.passed(), "{report}");
    }
}
