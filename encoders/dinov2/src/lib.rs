//! `dinov2`: Meta's DINOv2 vision transformer, with or without register tokens.
//!
//! Pixels `[B, 3, S, S]` to patch tokens `[B, N, E]` after the final layer norm, N = (S / P)² row-major; class token and
//! registers dropped. Sources followed: transformers' `modeling_dinov2.py` and `modeling_dinov2_with_registers.py`,
//! facebookresearch/dinov2's `vision_transformer.py`.
//!
//! candle-transformers' `dinov2.rs` computes something else, so core's blocks are used: its layer norms add 1e-5 where the
//! model was trained with 1e-6, its GELU is the tanh approximation, it takes one image a batch, resizes positions to the
//! nearest, insists on a classifier's head, and has neither the giant's SwiGLU nor patches of another side than 14. Its
//! `dinov2reg4.rs` has one classifier of 7806 plants and panics at any side but 518.

use anyhow::Result;
use candle_core::Tensor;
use limber_core::encoder::check_pixels;
use limber_core::frozen::FrozenConv;
use limber_core::ops::{Heads, LayerNorm, channels_last};
use limber_core::registry::EncoderSpecs;
use limber_core::vit::{VitBlock, VitSizes, led_by, through};
use limber_core::weights::ZEROS;
use limber_core::{Encoder, EncoderComponent, FeatureSpec, InputSpec, Weights, register};

mod names;
mod settings;

use names::Names;
pub use settings::Config;

register!(encoder, Dinov2);

/// The frozen tower.
pub struct Dinov2 {
    specs: EncoderSpecs,
    patches: FrozenConv,
    /// The class token with its position, then the registers: `[1, R + 1, E]`.
    lead: Tensor,
    /// Positions of the patches `[1, N, E]`.
    positions: Tensor,
    blocks: Vec<VitBlock>,
    heads: Heads,
    norm: Option<LayerNorm>,
    give: Give,
}

/// Which tokens of the hidden state are the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Give {
    Patches,
    Class,
    ClassAndPatches,
}

impl EncoderComponent for Dinov2 {
    fn specs(config: &Config) -> Result<EncoderSpecs> {
        let sizes = config.sizes()?;
        let features = FeatureSpec { tokens: sizes.tokens(), width: sizes.vit.width, kind: sizes.kind() };
        Ok(EncoderSpecs { input: InputSpec::Image(sizes.vit.image), features })
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let sizes = config.sizes()?;
        let (names, w) = Names::of(weights);
        let VitSizes { width: e, patch, grid, trained, .. } = sizes.vit;

        let conv = w.pp(names.patches);
        let kernel = conv.tensor("weight", &[e, 3, patch, patch], sizes.init())?;
        let bias = conv.tensor("bias", &[e], ZEROS)?;
        let patches = FrozenConv::on(kernel, Some(bias), patch, 0, weights.backend())?;

        let table = w.tensor(names.positions, &[1, trained * trained + 1, e], sizes.init())?.squeeze(0)?;
        let class = w.tensor(names.class, &[1, 1, e], sizes.init())?;
        let mut lead = class.broadcast_add(&table.narrow(0, 0, 1)?)?;
        if sizes.registers > 0 {
            let registers = w.tensor(names.registers, &[1, sizes.registers, e], ZEROS)?;
            lead = Tensor::cat(&[&lead, &registers], 1)?;
        }
        let positions = sizes.resampling.resize(&table.narrow(0, 1, trained * trained)?.contiguous()?, grid)?;

        let blocks = w.pp(names.blocks);
        let blocks = (0..sizes.vit.layer).map(|i| names.block(&blocks.pp(i), &sizes)).collect::<Result<_, _>>()?;
        let norm = sizes.post_norm.then(|| LayerNorm::load(&w.pp(names.norm), e, sizes.vit.eps)).transpose()?;
        Ok(Self {
            specs: Self::specs(config)?,
            patches,
            lead,
            positions: positions.unsqueeze(0)?,
            blocks,
            heads: sizes.vit.heads,
            norm,
            give: sizes.give,
        })
    }
}

impl Encoder for Dinov2 {
    fn spec(&self) -> EncoderSpecs {
        self.specs
    }

    fn encode(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        check_pixels(pixels, &self.specs.input)?;
        let patches = self.patches.forward_nhwc(&channels_last(pixels)?, None, None)?.flatten(1, 2)?; // [B, N, E]
        let (first, n) = (self.lead.dim(1)?, patches.dim(1)?);
        let x = led_by(&self.lead, &patches.broadcast_add(&self.positions)?)?; // [B, 1 + R + N, E]
        let x = through(&self.blocks, x, self.heads)?;
        let x = match self.give {
            Give::Patches => x.narrow(1, first, n)?,
            Give::Class => x.narrow(1, 0, 1)?,
            Give::ClassAndPatches => Tensor::cat(&[x.narrow(1, 0, 1)?, x.narrow(1, first, n)?], 1)?,
        };
        match &self.norm {
            Some(norm) => norm.forward(&x),
            None => x.contiguous(),
        }
    }
}
