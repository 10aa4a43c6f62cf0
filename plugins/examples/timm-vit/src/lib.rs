//! `timm-vit`: timm's plain vision transformers (`vit_tiny_patch16_224` and its kin) as a plugin.
//!
//! Pixels `[B, 3, S, S]` to patch tokens behind the last norm, row-major: `[B, N, E]`, N = (S / P)² for patches of side P.
//! Source followed: timm's `VisionTransformer` in `models/vision_transformer.py` with a class token and learned
//! positions; pixels as its `augreg` weights take them (mean and standard deviation 0.5).

use anyhow::{Result, bail};
use candle_core::Tensor;
use limber_sdk::core::encoder::check_pixels;
use limber_sdk::core::frozen::FrozenConv;
use limber_sdk::core::ops::{Activation, Heads, LayerNorm};
use limber_sdk::core::registry::EncoderSpecs;
use limber_sdk::core::vit::VitBlock;
use limber_sdk::core::weights::ZEROS;
use limber_sdk::core::{
    Augment, Component, Encoder, EncoderComponent, FeatureKind, FeatureSpec, FrozenLinear, ImageSpec, Init, InputSpec,
    ResizeFilter, ResizeRule, Weights,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

limber_sdk::export_plugin!(encoder: TimmVit);

/// timm's epsilon of a layer norm.
const EPS: f64 = 1e-6;

/// The settings; the defaults are `vit_tiny_patch16_224`'s.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Side S of the image in pixels.
    pub image_size: usize,
    /// What an image is resized to before the centre is cut out; S / 0.9 is what the weights were evaluated with.
    pub resize_to: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Width E.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads; a divisor of the width.
    pub heads: usize,
    /// Width of the MLP over that of the model.
    pub mlp_ratio: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { image_size: 224, resize_to: 248, patch_size: 16, width: 192, layers: 12, heads: 3, mlp_ratio: 4 }
    }
}

/// The frozen tower.
pub struct TimmVit {
    specs: EncoderSpecs,
    patches: FrozenConv,
    /// The class token with its position `[1, 1, E]`.
    class: Tensor,
    /// Positions of the patches `[1, N, E]`.
    positions: Tensor,
    blocks: Vec<VitBlock>,
    heads: Heads,
    norm: LayerNorm,
}

impl Component for TimmVit {
    type Config = Config;
    const KIND: &'static str = "timm-vit";
    const ABOUT: &'static str = "timm's plain vision transformers, patch tokens behind the last norm";

    fn tiny() -> Config {
        Config { image_size: 32, resize_to: 36, patch_size: 8, width: 32, layers: 2, heads: 4, mlp_ratio: 2 }
    }
}

impl EncoderComponent for TimmVit {
    fn specs(config: &Config) -> Result<EncoderSpecs> {
        let Config { image_size: s, resize_to, patch_size: p, width: e, heads, .. } = *config;
        if p == 0 || s < p || !s.is_multiple_of(p) {
            bail!("timm-vit: image_size {s} is no multiple of patch_size {p}")
        }
        if heads == 0 || e == 0 || !e.is_multiple_of(heads) {
            bail!("timm-vit: width {e} is no multiple of heads {heads}")
        }
        if resize_to < s {
            bail!("timm-vit: resize_to {resize_to} is below image_size {s}")
        }
        let image = ImageSpec {
            side: s,
            resize: ResizeRule::ShorterSideCrop,
            resize_to: (resize_to != s).then_some(resize_to),
            filter: ResizeFilter::Bicubic,
            mean: [0.5; 3],
            std: [0.5; 3],
            augment: Augment::None,
        };
        let features = FeatureSpec { tokens: (s / p).pow(2), width: e, kind: FeatureKind::Patches };
        Ok(EncoderSpecs { input: InputSpec::Image(image), features })
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let specs = Self::specs(config)?;
        let Config { patch_size: p, width: e, heads, .. } = *config;
        let n = specs.features.tokens;
        // timm's `trunc_normal_` of 0.02, cut at 2, which is no cut.
        let init = Init::normal(0.02);
        let class = weights.tensor("cls_token", &[1, 1, e], Init::normal(1e-6))?;
        let positions = weights.tensor("pos_embed", &[1, n + 1, e], init)?;
        let heads = Heads { queries: heads, keys: heads, dim: e / heads, scale: ((e / heads) as f64).powf(-0.5) };
        let blocks = (0..config.layers).map(|i| block(&weights.pp(format!("blocks.{i}")), e, config.mlp_ratio * e));
        let projection = weights.pp("patch_embed.proj");
        let filters = projection.tensor("weight", &[e, 3, p, p], Init::fan_in(3 * p * p))?;
        Ok(Self {
            specs,
            patches: FrozenConv::on(filters, Some(projection.tensor("bias", &[e], ZEROS)?), p, 0, weights.backend())?,
            class: (class + positions.narrow(1, 0, 1)?)?,
            positions: positions.narrow(1, 1, n)?,
            blocks: blocks.collect::<Result<_>>()?,
            heads,
            norm: LayerNorm::load(&weights.pp("norm"), e, EPS)?,
        })
    }
}

/// One block; timm keeps q, k and v in one matrix, of which each is a third of the rows, where they lie.
fn block(w: &Weights, e: usize, inner: usize) -> Result<VitBlock> {
    let init = Init::normal(0.02);
    let qkv = w.pp("attn.qkv");
    let (weight, bias) = (qkv.frozen("weight", &[3 * e, e], init)?, qkv.tensor("bias", &[3 * e], ZEROS)?);
    let third = |i: usize| -> Result<FrozenLinear> {
        let rows = weight.rows(i * e..(i + 1) * e).map_err(anyhow::Error::msg)?;
        Ok(FrozenLinear::new(rows, Some(bias.narrow(0, i * e, e)?), w.device())?)
    };
    Ok(VitBlock {
        norm1: LayerNorm::load(&w.pp("norm1"), e, EPS)?,
        q: third(0)?,
        k: third(1)?,
        v: third(2)?,
        out: w.pp("attn.proj").linear(e, e, init, Some(ZEROS))?,
        scale1: None,
        norm2: LayerNorm::load(&w.pp("norm2"), e, EPS)?,
        fc1: w.pp("mlp.fc1").linear(e, inner, init, Some(ZEROS))?,
        gate: None,
        activation: Activation::Gelu,
        fc2: w.pp("mlp.fc2").linear(inner, e, init, Some(ZEROS))?,
        scale2: None,
    })
}

impl Encoder for TimmVit {
    fn spec(&self) -> EncoderSpecs {
        self.specs
    }

    fn encode(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        check_pixels(pixels, &self.specs.input)?;
        let (b, FeatureSpec { tokens: n, width: e, .. }) = (pixels.dim(0)?, self.specs.features);
        let patches = self.patches.forward(&pixels.detach())?.flatten_from(2)?.transpose(1, 2)?; // [B, N, E]
        let patches = patches.broadcast_add(&self.positions)?;
        let mut x = Tensor::cat(&[&self.class.broadcast_as((b, 1, e))?, &patches], 1)?; // [B, 1 + N, E]
        for block in &self.blocks {
            x = block.forward(&x, self.heads, None)?;
        }
        self.norm.forward(&x.narrow(1, 1, n)?.contiguous()?)
    }
}
