//! Google's models by their names on the hub.

/// Width, MLP width, blocks, heads of the four towers.
pub(super) const BASE: [usize; 4] = [768, 3072, 12, 12];
const LARGE: [usize; 4] = [1024, 4096, 24, 16];
const SO400M: [usize; 4] = [1152, 4304, 27, 16];
const GIANT: [usize; 4] = [1536, 6144, 40, 16];

/// A name after `google/`, patch and image side, tower.
pub(super) type Preset = (&'static str, usize, usize, [usize; 4]);

pub(super) const PRESETS: [Preset; 25] = [
    ("siglip-base-patch16-224", 16, 224, BASE),
    ("siglip-base-patch16-256", 16, 256, BASE),
    ("siglip-base-patch16-256-multilingual", 16, 256, BASE),
    ("siglip-base-patch16-384", 16, 384, BASE),
    ("siglip-base-patch16-512", 16, 512, BASE),
    ("siglip-large-patch16-256", 16, 256, LARGE),
    ("siglip-large-patch16-384", 16, 384, LARGE),
    ("siglip-so400m-patch14-224", 14, 224, SO400M),
    ("siglip-so400m-patch14-384", 14, 384, SO400M),
    ("siglip-so400m-patch16-256-i18n", 16, 256, SO400M),
    ("siglip2-base-patch16-224", 16, 224, BASE),
    ("siglip2-base-patch16-256", 16, 256, BASE),
    ("siglip2-base-patch16-384", 16, 384, BASE),
    ("siglip2-base-patch16-512", 16, 512, BASE),
    ("siglip2-base-patch32-256", 32, 256, BASE),
    ("siglip2-large-patch16-256", 16, 256, LARGE),
    ("siglip2-large-patch16-384", 16, 384, LARGE),
    ("siglip2-large-patch16-512", 16, 512, LARGE),
    ("siglip2-so400m-patch14-224", 14, 224, SO400M),
    ("siglip2-so400m-patch14-384", 14, 384, SO400M),
    ("siglip2-so400m-patch16-256", 16, 256, SO400M),
    ("siglip2-so400m-patch16-384", 16, 384, SO400M),
    ("siglip2-so400m-patch16-512", 16, 512, SO400M),
    ("siglip2-giant-opt-patch16-256", 16, 256, GIANT),
    ("siglip2-giant-opt-patch16-384", 16, 384, GIANT),
];
