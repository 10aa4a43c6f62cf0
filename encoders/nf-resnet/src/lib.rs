//! `nf-resnet`: timm's normaliser-free ResNet (pre-activation, bottlenecks) without its classifier.
//!
//! Pixels `[B, 3, S, S]` to the last feature map behind its final activation: averaged over the image, `[B, 1, E]`, or
//! flattened row-major (h w), `[B, N, E]` with N = ceil(S/32)². E is the width of the last stage, 2048.
//! Source followed: timm's `models/nfnet.py` (the `nf_resnet*` configs) and `layers/std_conv.py`; Brock et al.,
//! "Characterizing signal propagation to close the performance gap in unnormalized ResNets", arXiv 2101.08692.

use anyhow::{Result, bail};
use candle_core::Tensor;
use limber_core::encoder::check_pixels;
use limber_core::frozen::FrozenConv;
use limber_core::registry::EncoderSpecs;
use limber_core::weights::WeightError;
use limber_core::{
    Augment, Encoder, EncoderPart, FeatureKind, FeatureSpec, ImageSpec, InputSpec, Part, ResizeFilter, ResizeRule,
    WeightSource, Weights, register,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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

impl Part for NfResnet {
    type Config = Config;
    const KIND: &'static str = "nf-resnet";
    const ABOUT: &'static str = "timm's normaliser-free ResNet (nf_resnet26, nf_resnet50, nf_resnet101), pooled or not";

    fn tiny() -> Config {
        Config {
            image_size: Some(64),
            depths: Some([1, 2, 1, 1]),
            channels: Some([32, 48, 64, 96]),
            stem_width: Some(16),
            ..Config::default()
        }
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        settings::recognises(source)
    }

    fn resolve(config: Config, source: &dyn WeightSource) -> Result<Config> {
        config.resolve(source)
    }
}

impl EncoderPart for NfResnet {
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
    fn input_spec(&self) -> InputSpec {
        self.specs.input
    }

    fn feature_spec(&self) -> FeatureSpec {
        self.specs.features
    }

    fn encode(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        check_pixels(pixels, &self.specs.input)?;
        let x = self.stem.forward(&pixels.detach())?; // [B, 64, S/2, S/2]
        // A border of repeated pixels never exceeds what it repeats, as a border of minus infinity does not.
        let mut x = x.pad_with_same(2, 1, 1)?.pad_with_same(3, 1, 1)?.max_pool2d_with_stride(3, 2)?; // [B, 64, S/4, S/4]
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        let x = x.relu()?.flatten_from(2)?; // [B, E, N]
        match self.pool {
            true => x.mean_keepdim(2)?.transpose(1, 2)?.contiguous(), // [B, 1, E]
            false => x.transpose(1, 2)?.contiguous(),                 // [B, N, E]
        }
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

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let open = x.relu()?;
        let y = self.conv1.forward(&open)?.relu()?;
        let y = self.conv2.forward(&y)?.relu()?;
        let y = self.conv3.forward(&y)?;
        let shortcut = match &self.downsample {
            Some(conv) if self.stride > 1 => conv.forward(&halve(&open)?)?,
            Some(conv) => conv.forward(&open)?,
            None => x.clone(),
        };
        y + shortcut
    }
}

/// 2 x 2 averages of `[B, C, h, w]`; where a side is odd the last are over the pixels there are.
fn halve(x: &Tensor) -> candle_core::Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    // Averaged with its own repetition, the last row or column stays what it is.
    let x = if h % 2 == 1 { x.pad_with_same(2, 0, 1)? } else { x.clone() };
    let x = if w % 2 == 1 { x.pad_with_same(3, 0, 1)? } else { x };
    x.avg_pool2d(2)
}
