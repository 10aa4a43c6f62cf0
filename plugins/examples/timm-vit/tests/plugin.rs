//! The plugin as limber loads it: conformance, and equality with the same part compiled in.
#![allow(clippy::unwrap_used)]

use limber_example_timm_vit as _;
use limber_sdk::core::Registry;
use std::path::PathBuf;

/// The library that Cargo built beside this test, of the same crate.
fn library() -> PathBuf {
    let name = format!("{}limber_example_timm_vit{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    std::env::current_exe().unwrap().parent().unwrap().join(name)
}

#[test]
fn the_part_passes_the_conformance_suite_compiled_in_and_loaded() {
    let mut loaded = Registry::new();
    limber_plugin_host::open(&library(), None).unwrap().register(&mut loaded).unwrap();
    for registry in [Registry::from_inventory().unwrap(), loaded] {
        assert_eq!(registry.entries().count(), 1);
        let report = limber_kit::check_entry(registry.get("encoder", "timm-vit").unwrap());
        assert!(report.passed(), "{report}");
    }
}
