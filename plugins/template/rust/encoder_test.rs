//! The plugin's component conforms, compiled into this test and as limber loads it.
#![allow(clippy::unwrap_used)]

use limber_example_timm_vit as _;
use limber_sdk::core::Registry;

#[test]
fn it_conforms_compiled_in_and_loaded() {
    limber_kit::assert_conforms(&Registry::from_inventory().unwrap(), &["timm-vit"]);
    let library = limber_plugin_host::open_built("limber_example_timm_vit").unwrap();
    limber_kit::assert_conforms(&library.registry().unwrap(), &["timm-vit"]);
}
