//! `siglip`: the vision tower of SigLIP, and of SigLIP 2 at a fixed resolution.
//!
//! Pixels `[B, 3, S, S]` to patch tokens after the last layer norm `[B, N, E]`, N = floor(S / P)² row-major, or to the one
//! vector `[B, 1, E]` of the attention-pooling head. Source followed: transformers' `modeling_siglip.py`.
//!
//! candle-transformers' `siglip.rs` computes the tower and its head from tensors that `names` answers: it resizes
//! positions to the nearest, so they reach it resized as transformers does it, and its matrices are dense f32 copies. It
//! always ends in the layer norm, so a hidden state without it comes from core's blocks (`cut`).

use anyhow::Result;
use candle_core::Tensor;
use candle_nn::Module;
use candle_transformers::models::siglip::VisionModel;
use limber_core::encoder::check_pixels;
use limber_core::registry::EncoderSpecs;
use limber_core::{Encoder, EncoderComponent, FeatureKind, FeatureSpec, InputSpec, Weights, candle_bridge, register};

mod cut;
mod names;
mod presets;
mod settings;

use cut::Cut;
pub use settings::Config;

register!(encoder, Siglip);

/// The frozen tower.
pub struct Siglip {
    specs: EncoderSpecs,
    tower: Tower,
}

enum Tower {
    /// Blocks, layer norm and, where it is asked for, the head.
    Normed(Box<VisionModel>),
    /// Blocks alone.
    Raw(Cut),
}

impl EncoderComponent for Siglip {
    fn specs(config: &Config) -> Result<EncoderSpecs> {
        let sizes = config.sizes()?;
        let (tokens, kind) = match sizes.pool {
            true => (1, FeatureKind::Pooled),
            false => (sizes.vit.grid.pow(2), FeatureKind::Patches),
        };
        let features = FeatureSpec { tokens, width: sizes.vit.width, kind };
        Ok(EncoderSpecs { input: InputSpec::Image(sizes.vit.image), features })
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let sizes = config.sizes()?;
        let weights = weights.under_any(&names::PREFIXES, names::PROBE);
        let tower = if sizes.post_norm {
            let builder =
                candle_bridge::var_builder(&weights, move |w, name, shape| names::tensor(w, &sizes, name, shape));
            Tower::Normed(Box::new(VisionModel::new(&sizes.candle(), sizes.pool, builder)?))
        } else {
            Tower::Raw(Cut::new(&weights, &sizes)?)
        };
        Ok(Self { specs: Self::specs(config)?, tower })
    }
}

impl Encoder for Siglip {
    fn spec(&self) -> EncoderSpecs {
        self.specs
    }

    fn encode(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        check_pixels(pixels, &self.specs.input)?;
        let pixels = pixels.detach();
        match &self.tower {
            Tower::Raw(blocks) => blocks.forward(&pixels),
            Tower::Normed(model) => match self.specs.features.kind {
                FeatureKind::Pooled => model.forward(&pixels)?.unsqueeze(1),
                FeatureKind::Patches => model.forward(&pixels),
            },
        }
    }
}
