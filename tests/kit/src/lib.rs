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

#[doc(hidden)]
pub use limber_core;

/// The test of a plugin: the components of the crate `$library`, of these kinds and no others, pass every check, compiled
/// into the test and as limber loads them. The test depends on `limber-plugin-host` too.
#[macro_export]
macro_rules! plugin_conforms {
    ($library:ident, $($kind:literal),+) => {
        use $library as _;

        #[test]
        fn it_conforms_compiled_in_and_loaded() {
            let built_in = $crate::limber_core::Registry::from_inventory().expect("kinds are unique");
            $crate::assert_conforms(&built_in, &[$($kind),+]);
            let library = ::limber_plugin_host::open_built(stringify!($library)).expect("the plugin can be loaded");
            $crate::assert_conforms(&library.registry().expect("its components are sound"), &[$($kind),+]);
        }
    };
}

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
