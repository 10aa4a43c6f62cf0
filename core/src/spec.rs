//! What a component says of itself: image, feature and decoder specs.
//!
//! Specs are plain data, known before any weight is read, so that a stitch that does not fit is refused early.
//! They grow by fields; `Default` keeps older authors' code compiling.

use serde::{Deserialize, Serialize};

/// How an image of any size becomes the square of side S that an encoder takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, Default)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeRule {
    /// Resize the shorter side, keep the aspect ratio, then crop the centre of side S, as torchvision does (CLIP's and
    /// DINOv2's rule): half of an odd number of pixels to cut off is rounded to the even neighbour.
    #[default]
    ShorterSideCrop,
    /// The same as transformers' image processors do it: half of an odd number is rounded down, which moves the crop by one
    /// pixel in one of four sizes.
    ShorterSideCropFloor,
    /// Resize both sides, whatever the aspect ratio (BEiT's and SigLIP's rule); a crop of the centre is transformers'.
    Squash,
}

impl ResizeRule {
    /// Whether the aspect ratio is kept and what is too long is cut off.
    pub fn crops(self) -> bool {
        self != ResizeRule::Squash
    }
}

/// The resampling filter; both follow Pillow's antialiased 8-bit resampling bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, Default)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeFilter {
    /// Triangle filter, support 1.
    Bilinear,
    /// Cubic convolution with a = -0.5, support 2.
    #[default]
    Bicubic,
}

/// How images are varied at random: while training, and at inference where `compat: original` asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Augment {
    /// Never.
    #[default]
    None,
    /// MAGMA's: the middle S x S at the image's own scale, padded with black; a resize that may add a pixel; a random
    /// crop; a flip. It stands in place of the resize and crop rule.
    PadCropFlip,
}

impl Augment {
    /// Whether nothing is varied.
    pub fn is_none(&self) -> bool {
        *self == Augment::None
    }
}

/// The pixels an encoder expects: `[B, 3, S, S]` f32, RGB.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Side S in pixels.
    pub side: usize,
    /// How the square is cut out of the image.
    pub resize: ResizeRule,
    /// What the rule resizes to before the centre of side S is cut out, S or more (DINOv2: 256, then 224); S itself
    /// where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize_to: Option<usize>,
    /// The resampling filter.
    pub filter: ResizeFilter,
    /// Mean a channel, on the scale 0..1, subtracted from the pixels.
    pub mean: [f32; 3],
    /// Standard deviation a channel, on the scale 0..1, that divides the pixels.
    pub std: [f32; 3],
    /// How images may be varied at random.
    #[serde(default, skip_serializing_if = "Augment::is_none")]
    pub augment: Augment,
}

impl ImageSpec {
    /// OpenAI CLIP's pre-processing at side `side`.
    pub fn clip(side: usize) -> Self {
        Self {
            side,
            resize: ResizeRule::ShorterSideCrop,
            resize_to: None,
            filter: ResizeFilter::Bicubic,
            mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
            augment: Augment::None,
        }
    }

    /// BEiT's and SigLIP's pre-processing at side `side`: both sides resized, pixels from -1 to 1.
    pub const fn squashed(side: usize) -> Self {
        Self {
            side,
            resize: ResizeRule::Squash,
            resize_to: None,
            filter: ResizeFilter::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
            augment: Augment::None,
        }
    }

    /// The side that the rule resizes to before the centre is cut out.
    pub fn resized(&self) -> usize {
        self.resize_to.unwrap_or(self.side)
    }
}

/// What an encoder takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InputSpec {
    /// Pixels `[B, 3, S, S]` of an image, prepared as the spec says.
    Image(ImageSpec),
    /// Features `[B, N, E]` that were computed before, read from a file; N and E are those of the [`FeatureSpec`].
    Features,
}

impl InputSpec {
    /// The pixels, where the encoder takes an image.
    pub fn image(&self) -> Option<ImageSpec> {
        match self {
            InputSpec::Image(spec) => Some(*spec),
            InputSpec::Features => None,
        }
    }
}

/// What the N tokens of an encoder are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureKind {
    /// One token a patch of the image, row-major.
    Patches,
    /// One vector (or a few) for the whole image.
    Pooled,
}

/// The features an encoder gives: `[B, N, E]` f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureSpec {
    /// Visual tokens N.
    pub tokens: usize,
    /// Encoder width E.
    pub width: usize,
    /// Patches or pooled.
    pub kind: FeatureKind,
}

/// The sizes of a decoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecoderSpec {
    /// LM width D.
    pub width: usize,
    /// Vocabulary size V of the output head.
    pub vocab: usize,
    /// Layers L.
    pub layers: usize,
    /// Heads H of the keys and values that a cache holds.
    pub kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Most positions the model can take.
    pub context: usize,
    /// End-of-sequence ids; empty where the model has none.
    pub eos: Vec<u32>,
}
