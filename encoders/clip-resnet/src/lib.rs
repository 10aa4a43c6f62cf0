//! `clip-resnet`: OpenAI CLIP's modified ResNet without its attention pool.
//!
//! Pixels `[B, 3, S, S]` to the last feature map, flattened row-major (h w): `[B, N, E]` with N = (S/32)², E = 32 width.
//! Source followed: `ModifiedResNet` in OpenAI's `clip/model.py` and open_clip's `modified_resnet.py`: a stem of three
//! convolutions, average pools in place of strides, batch norm folded into the convolutions at load.

use anyhow::{Result, bail};
use candle_core::Tensor;
use limber_core::encoder::check_pixels;
use limber_core::frozen::{ConvShape, FrozenConv};
use limber_core::ops::{Activation, PoolShape, average_pool, channels_last};
use limber_core::registry::EncoderSpecs;
use limber_core::weights::{ONES, WeightError, ZEROS};
use limber_core::{Encoder, EncoderComponent, FeatureKind, FeatureSpec, ImageSpec, Init, InputSpec, Weights, register};

mod settings;

pub use settings::Config;

register!(encoder, ClipResnet);

/// The frozen tower.
pub struct ClipResnet {
    specs: EncoderSpecs,
    stem: [FrozenConv; 3],
    stages: Vec<Vec<Bottleneck>>,
}

impl EncoderComponent for ClipResnet {
    fn specs(config: &Config) -> Result<EncoderSpecs> {
        let (Some(_), Some(width), Some(side)) = (config.layers, config.width, config.image_size) else {
            bail!("clip-resnet needs a model, or image_size, layers and width")
        };
        // Five halvings, each rounded down: the stem's stride and pool, then stages 2 to 4.
        let grid = [2usize; 4].iter().fold(side.div_ceil(2), |s, half| s / half);
        if grid == 0 {
            bail!("clip-resnet: image_size {side} is too small, expected at least 32")
        }
        let mut image = ImageSpec::clip(side);
        image.mean = config.mean.unwrap_or(image.mean);
        image.std = config.std.unwrap_or(image.std);
        let features = FeatureSpec { tokens: grid * grid, width: 32 * width, kind: FeatureKind::Patches };
        Ok(EncoderSpecs { input: InputSpec::Image(image), features })
    }

    fn new(config: &Config, weights: &Weights) -> Result<Self> {
        let specs = Self::specs(config)?;
        let (Some(layers), Some(width)) = (config.layers, config.width) else {
            bail!("clip-resnet settings are not resolved")
        };
        let w = weights.under_any(&settings::PREFIXES, "conv1.weight");
        let stem = [
            conv(&w, "conv1", "bn1", 3, width / 2, 3, 2)?,
            conv(&w, "conv2", "bn2", width / 2, width / 2, 3, 1)?,
            conv(&w, "conv3", "bn3", width / 2, width, 3, 1)?,
        ];
        let mut stages = Vec::with_capacity(4);
        let mut n_in = width;
        for (stage, blocks) in layers.into_iter().enumerate() {
            let planes = width << stage;
            let mut row = Vec::with_capacity(blocks);
            for block in 0..blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let at = w.pp(format!("layer{}.{block}", stage + 1));
                row.push(Bottleneck::new(&at, n_in, planes, stride)?);
                n_in = 4 * planes;
            }
            stages.push(row);
        }
        Ok(Self { specs, stem, stages })
    }
}

impl Encoder for ClipResnet {
    fn spec(&self) -> EncoderSpecs {
        self.specs
    }

    fn encode(&self, pixels: &Tensor) -> candle_core::Result<Tensor> {
        check_pixels(pixels, &self.specs.input)?;
        // Channels last from here on, so that a 1 x 1 convolution is a matrix product over rows of pixels.
        let mut x = channels_last(pixels)?; // [B, S, S, 3]
        for conv in &self.stem {
            x = conv.forward_nhwc(&x, RELU, None)?;
        }
        x = average_pool(&x, halves(2))?; // [B, S/4, S/4, width]
        for block in self.stages.iter().flatten() {
            x = block.forward(&x)?;
        }
        x.flatten(1, 2) // [B, N, E]
    }
}

const RELU: Option<Activation> = Some(Activation::Relu);

/// Windows of a side, one beside the other; what is left over at the end is dropped.
fn halves(stride: usize) -> PoolShape {
    PoolShape { kernel: stride, stride, padding: 0, ceil: false }
}

/// 1 x 1, 3 x 3, average pool, 1 x 1, and a shortcut; expansion 4.
struct Bottleneck {
    conv1: FrozenConv,
    conv2: FrozenConv,
    conv3: FrozenConv,
    shortcut: Option<FrozenConv>,
    stride: usize,
}

impl Bottleneck {
    fn new(w: &Weights, n_in: usize, planes: usize, stride: usize) -> Result<Self, WeightError> {
        let n_out = 4 * planes;
        let shortcut = if stride > 1 || n_in != n_out {
            Some(conv(&w.pp("downsample"), "0", "1", n_in, n_out, 1, 1)?)
        } else {
            None
        };
        Ok(Self {
            conv1: conv(w, "conv1", "bn1", n_in, planes, 1, 1)?,
            conv2: conv(w, "conv2", "bn2", planes, planes, 3, 1)?,
            conv3: conv(w, "conv3", "bn3", planes, n_out, 1, 1)?,
            shortcut,
            stride,
        })
    }

    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let pool = |x: Tensor| if self.stride > 1 { average_pool(&x, halves(self.stride)) } else { Ok(x) };
        let y = self.conv1.forward_nhwc(x, RELU, None)?;
        let y = pool(self.conv2.forward_nhwc(&y, RELU, None)?)?;
        let identity = match &self.shortcut {
            Some(conv) => conv.forward_nhwc(&pool(x.clone())?, None, None)?,
            None => x.clone(),
        };
        self.conv3.forward_nhwc(&y, RELU, Some(&identity))
    }
}

fn conv(
    w: &Weights,
    conv: &str,
    norm: &str,
    n_in: usize,
    n_out: usize,
    kernel: usize,
    stride: usize,
) -> Result<FrozenConv, WeightError> {
    let shape = ConvShape { n_in, n_out, kernel, stride, padding: kernel / 2 };
    // PyTorch's default for convolutions: Kaiming uniform with a = sqrt(5).
    let init = Init::fan_in(n_in * kernel * kernel);
    // The last norm of a block (the stem's bn3 follows a 3 x 3 convolution) begins at 0 in OpenAI's code and open_clip's.
    let gain = if (norm, kernel) == ("bn3", 1) { ZEROS } else { ONES };
    FrozenConv::with_batch_norm(&w.pp(conv), &w.pp(norm), shape, init, gain)
}
