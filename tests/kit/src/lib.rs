//! Conformance suite for encoders, decoders and stitches: what the contracts of `limber-core` promise, checked.
//!
//! An author's test is three lines; the same suite runs over every built-in part and in `limber plugin check`:
//!
//! ```no_run
//! let registry = limber_core::Registry::from_inventory().expect("kinds are unique");
//! for entry in registry.entries() {
//!     let report = limber_kit::check_entry(entry);
//!     assert!(report.passed(), "{report}");
//! }
//! ```
//!
//! A part is built from its `tiny` settings with random weights on the CPU. A part that lies or panics makes its
//! check fail; the suite itself never panics.

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
pub use report::{Check, Report};
pub use stitch::check_stitch;

use limber_core::registry::{Entry, Maker};

/// Every check of the entry's role.
pub fn check_entry(entry: &Entry) -> Report {
    match &entry.maker {
        Maker::Encoder(_) => check_encoder(entry),
        Maker::Decoder(_) => check_decoder(entry),
        Maker::Stitch(_) => check_stitch(entry),
    }
}
