//! The towers by the names that OpenAI and open_clip gave them; a name says which activation was trained.

use limber_core::ops::Activation;

/// The sizes of one tower.
pub(super) struct Preset {
    pub name: &'static str,
    pub image_size: usize,
    pub patch_size: usize,
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    pub mlp_width: usize,
    pub projection: usize,
}

#[rustfmt::skip]
const PRESETS: [Preset; 11] = [
    // OpenAI's own names: always QuickGELU.
    Preset { name: "ViT-B/32", image_size: 224, patch_size: 32, width: 768, layers: 12, heads: 12, mlp_width: 3072, projection: 512 },
    Preset { name: "ViT-B/16", image_size: 224, patch_size: 16, width: 768, layers: 12, heads: 12, mlp_width: 3072, projection: 512 },
    Preset { name: "ViT-L/14", image_size: 224, patch_size: 14, width: 1024, layers: 24, heads: 16, mlp_width: 4096, projection: 768 },
    Preset { name: "ViT-L/14@336px", image_size: 336, patch_size: 14, width: 1024, layers: 24, heads: 16, mlp_width: 4096, projection: 768 },
    // open_clip's: GELU, or QuickGELU where `-quickgelu` follows.
    Preset { name: "ViT-B-32", image_size: 224, patch_size: 32, width: 768, layers: 12, heads: 12, mlp_width: 3072, projection: 512 },
    Preset { name: "ViT-B-16", image_size: 224, patch_size: 16, width: 768, layers: 12, heads: 12, mlp_width: 3072, projection: 512 },
    Preset { name: "ViT-L-14", image_size: 224, patch_size: 14, width: 1024, layers: 24, heads: 16, mlp_width: 4096, projection: 768 },
    Preset { name: "ViT-L-14-336", image_size: 336, patch_size: 14, width: 1024, layers: 24, heads: 16, mlp_width: 4096, projection: 768 },
    Preset { name: "ViT-H-14", image_size: 224, patch_size: 14, width: 1280, layers: 32, heads: 16, mlp_width: 5120, projection: 1024 },
    Preset { name: "ViT-g-14", image_size: 224, patch_size: 14, width: 1408, layers: 40, heads: 16, mlp_width: 6144, projection: 1024 },
    Preset { name: "ViT-bigG-14", image_size: 224, patch_size: 14, width: 1664, layers: 48, heads: 16, mlp_width: 8192, projection: 1280 },
];

const QUICK: &str = "-quickgelu";

impl Preset {
    /// The tower of a name, and the activation that the name stands for; case does not count.
    pub fn named(name: &str) -> Option<(&'static Self, Activation)> {
        let lower = name.to_lowercase();
        let (plain, quick) = match lower.strip_suffix(QUICK) {
            Some(plain) => (plain, true),
            None => (lower.as_str(), false),
        };
        let preset = PRESETS.iter().find(|p| p.name.eq_ignore_ascii_case(plain) && !(quick && p.is_openai()))?;
        let quick = quick || preset.is_openai();
        Some((preset, if quick { Activation::QuickGelu } else { Activation::Gelu }))
    }

    /// The known names, for messages.
    pub fn names() -> String {
        let names: Vec<&str> = PRESETS.iter().map(|p| p.name).collect();
        format!("{}, and open_clip's (those with dashes) with {QUICK}", names.join(", "))
    }

    fn is_openai(&self) -> bool {
        self.name.contains('/')
    }
}
