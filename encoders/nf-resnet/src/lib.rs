//! `nf-resnet`: timm's normaliser-free ResNet (pre-activation, bottlenecks) without its classifier.
//!
//! Pixels `[B, 3, S, S]` to the last feature map behind its final activation: averaged over the image, `[B, 1, E]`, or
//! flattened row-major (h w), `[B, N, E]` with N = ceil(S/32)². E is the width of the last stage, 2048.
//! Source followed: timm's `models/nfnet.py` (the `nf_resnet*` configs) and `layers/std_conv.py`; Brock et al.,
//! "Characterizing signal propagation to close the performance gap in unnormalized ResNets", arXiv 2101.08692.

use anyhow::Result;
use candle_core::Tensor;
use limber_core::encoder::check_pixels;
use limber_core::frozen::FrozenConv;
use limber_core::ops::{Activation, PoolShape, average_pool, channels_last, max_pool};
use limber_core::registry::EncoderSpecs;
use limber_core::weights::WeightError;
use limber_core::{
    Augment, Encoder, EncoderComponent, FeatureKind, FeatureSpec, ImageSpec, InputSpec, ResizeFilter, ResizeRule,
    Weights, register,
};
use standardised::Shape;

mod settings;
mod standardised;

pub use settings::Config;
use settings::Sizes;

register!(encoder, NfResnet);

/// What a residual branch adds is scaled by this; timm's `alpha`.
const ALPHA: f64 = 0.2;

/// The frozen tower.
pub struct NfResnet {
    specs: EncoderSpecs,
    pool: bool,
    stem: FrozenConv,
    blocks: Vec<Block>,
}

impl EncoderComponent for NfResnet {
    fn specs(config: &Config) -> Result<EncoderSpecs> {
        let Sizes { side, channels, .. } = config.sizes()?;
        let image = ImageSpec {
            resize: ResizeRule::ShorterSideCrop,
            filter: config.filter.unwrap_or(ResizeFilter::Bilinear),
            mean: config.mean.unwrap_or([0.0; 3]),
            std: config.std.unwrap_or([1.0; 3]),
            augment: Augment::PadCropFlip,
            ..ImageSpec::clip(side)
        };
        // Five halvings, each rounded up.
        let grid = side.div_ceil(32);
        let (tokens, kind) = match config.pool {
            true => (1, FeatureKind::Pooled),
            false => (grid * grid, FeatureKind::Patches),
        };
        let features = FeatureSpec { tokens, width: channels[3], kind };
        Ok(EncoderSpecs { input: InputSpec::Image(image), features })
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let specs = Self::specs(config)?;
        let Sizes { depths, channels, stem, .. } = config.sizes()?;
        let w = weights.under_any(&settings::PREFIXES, settings::PROBE);
        let first = standardised::conv(&w.pp("stem.conv"), Shape::new(3, stem, 7, 2))?;
        let mut blocks = Vec::new();
        let mut n_in = stem;
        // The variance that timm expects of a block's input: 1, and alpha² for each block of its stage before it.
        let mut variance = 1.0;
        for (stage, (depth, n_out)) in depths.into_iter().zip(channels).enumerate() {
            for block in 0..depth {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let beta = 1.0 / f64::sqrt(variance);
                blocks.push(Block::new(&w.pp(format!("stages.{stage}.{block}")), n_in, n_out, stride, beta)?);
                variance = if block == 0 { 1.0 } else { variance } + ALPHA * ALPHA;
                n_in = n_out;
            }
        }
        Ok(Self { specs, pool: config.pool, stem: first, blocks })
    }
}

impl Encoder for NfResnet {
    fn spec(&self) -> EncoderSpecs {
        self.specs
    }

    fn encode(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        check_pixels(pixels, &self.specs.input)?;
        // Channels last, so that a 1 x 1 convolution is a matrix product over rows of pixels. The first block's ReLU
        // stands before the pool: the largest of a window stays the largest.
        let x = self.stem.forward_nhwc(&channels_last(pixels)?, RELU, None)?; // [B, S/2, S/2, 64]
        let mut x = max_pool(&x, PoolShape { kernel: 3, stride: 2, padding: 1, ceil: false })?; // [B, S/4, S/4, 64]
        for (i, block) in self.blocks.iter().enumerate() {
            let opens = self.blocks.get(i + 1).is_none_or(|next| next.downsample.is_some());
            x = block.forward(&x, if opens { RELU } else { None })?;
        }
        let x = x.flatten(1, 2)?; // [B, N, E]
        if self.pool { x.mean_keepdim(1) } else { Ok(x) }
    }
}

/// Activation, 1 x 1, 3 x 3, 1 x 1, and a shortcut, which starts behind the activation where it is a convolution.
///
/// y = shortcut(beta relu(x)) + alpha conv3(relu(conv2(relu(conv1(beta relu(x)))))): alpha and beta are folded into the
/// convolutions, whose biases beta does not touch.
struct Block {
    conv1: FrozenConv,
    conv2: FrozenConv,
    conv3: FrozenConv,
    downsample: Option<FrozenConv>,
    stride: usize,
}

impl Block {
    fn new(w: &Weights, n_in: usize, n_out: usize, stride: usize, beta: f64) -> Result<Self, WeightError> {
        let middle = settings::bottleneck(n_out);
        let downsample = if stride > 1 || n_in != n_out {
            Some(standardised::conv(&w.pp("downsample.conv"), Shape::new(n_in, n_out, 1, 1).input(beta))?)
        } else {
            None
        };
        Ok(Self {
            conv1: standardised::conv(&w.pp("conv1"), Shape::new(n_in, middle, 1, 1).input(beta))?,
            conv2: standardised::conv(&w.pp("conv2"), Shape::new(middle, middle, 3, stride))?,
            conv3: standardised::conv(&w.pp("conv3"), Shape::new(middle, n_out, 1, 1).output(ALPHA).closed())?,
            downsample,
            stride,
        })
    }

    /// x `[B, h, w, n_in]` to the next block's input, `last` applied to it. Where the shortcut is a convolution nothing
    /// reads x before its ReLU: the block before has applied it.
    fn forward(&self, x: &Tensor, last: Option<Activation>) -> candle_core::Result<Tensor> {
        let (open, shortcut) = match &self.downsample {
            Some(conv) if self.stride > 1 => (x.clone(), conv.forward_nhwc(&average_pool(x, HALVES)?, None, None)?),
            Some(conv) => (x.clone(), conv.forward_nhwc(x, None, None)?),
            None => (Activation::Relu.apply_on(self.conv1.backend(), x)?, x.clone()),
        };
        let y = self.conv1.forward_nhwc(&open, RELU, None)?;
        let y = self.conv2.forward_nhwc(&y, RELU, None)?;
        self.conv3.forward_nhwc(&y, last, Some(&shortcut))
    }
}

const RELU: Option<Activation> = Some(Activation::Relu);

/// 2 x 2 averages; where a side is odd the last are over the pixels there are.
const HALVES: PoolShape = PoolShape { kernel: 2, stride: 2, padding: 0, ceil: true };
