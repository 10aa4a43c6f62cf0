//! The plugin's component conforms, compiled into this test and as limber loads it.

limber_kit::plugin_conforms!(limber_example_timm_vit, "timm-vit");
