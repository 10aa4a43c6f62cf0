//! `Preprocessor`: an image file to what an encoder takes, pixels `[3, S, S]` or features `[N, E]` from a file.

use crate::components::{self, in_section, prepare_encoder};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use image::{ImageFormat, RgbImage};
use limber_config::{Compat, Config};
use limber_core::registry::{PreparedEncoder, Role};
use limber_core::{FeatureSpec, InputSpec, Registry};
use limber_data::Picture;
use limber_data::features;
use limber_images::{self as images, DecodeOptions, Limits, PassOrder};
use std::io::Cursor;

/// A small image to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The file, a PNG.
    pub png: Vec<u8>,
}

/// What a config makes of an image before the encoder sees it. It needs no weights.
#[derive(Debug, Clone)]
pub struct Preprocessor {
    input_spec: InputSpec,
    feature_spec: FeatureSpec,
    device: Device,
    pub(crate) decode: DecodeOptions,
    pub(crate) order: PassOrder,
    /// The seed under which images are varied, where the config asks for the original's behaviour.
    pub(crate) augment: Option<u64>,
}

impl Preprocessor {
    /// The preprocessor of a config's encoder.
    ///
    /// # Errors
    /// An unknown kind or setting, a device that is not there, small documents beside the weights that are missing.
    pub fn load(config: &Config, registry: &Registry) -> Result<Self> {
        let device = components::device(config.device)?;
        let encoder = in_section(Role::Encoder, prepare_encoder(config, registry, &device))?;
        Ok(Self::new(config, &encoder.prepared, device))
    }

    pub(crate) fn new(config: &Config, encoder: &PreparedEncoder, device: Device) -> Self {
        Self {
            input_spec: encoder.spec.input,
            feature_spec: encoder.spec.features,
            device,
            decode: DecodeOptions {
                limits: Limits { max_pixels: config.images.max_pixels, ..Limits::default() },
                exif_orientation: config.images.exif_orientation,
                offline: limber_hub::is_offline(),
            },
            // The original ran on a Pillow whose passes came in the other order.
            order: match config.compat {
                Some(Compat::Original) => PassOrder::HorizontalFirst,
                None => PassOrder::default(),
            },
            augment: (config.compat == Some(Compat::Original)).then_some(config.generate.seed),
        }
    }

    /// Forbids the network to [`Self::read_image`].
    pub fn offline(&mut self, offline: bool) {
        self.decode.offline = offline;
    }

    /// What the encoder takes: pixels, or features from a file.
    pub fn input_spec(&self) -> InputSpec {
        self.input_spec
    }

    /// The features that pixels become.
    pub fn feature_spec(&self) -> FeatureSpec {
        self.feature_spec
    }

    /// The device that holds the tensors.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Reads an image from a file, or from an address where the feature `hub` is on.
    ///
    /// # Errors
    /// Names the image, what is wrong and what is expected.
    pub fn read_image(&self, path: &str) -> Result<RgbImage> {
        Ok(images::load(path, &self.decode)?)
    }

    /// The image that `bytes` hold in any of the formats that are read; `name` is for messages.
    ///
    /// # Errors
    /// As [`Self::read_image`].
    pub fn decode_image(&self, name: &str, bytes: &[u8]) -> Result<RgbImage> {
        images::decode(bytes, &self.decode).with_context(|| name.to_string())
    }

    /// An image to pixels `[3, S, S]` f32.
    ///
    /// # Errors
    /// An image too thin to be resized, an encoder that takes features.
    pub fn pixels(&self, image: &RgbImage) -> Result<Tensor> {
        self.varied(image, None)
    }

    /// As [`Self::pixels`]; `variation` is the seed of a draw for this image alone.
    fn varied(&self, image: &RgbImage, variation: Option<u64>) -> Result<Tensor> {
        let InputSpec::Image(spec) = &self.input_spec else {
            bail!("the encoder takes features from a file, not an image")
        };
        let s = spec.side;
        let draw = match (variation, self.augment) {
            _ if spec.augment.is_none() => None,
            (Some(seed), _) => Some(images::Draw::seeded(s, seed)),
            (None, seed) => seed.map(|seed| images::Draw::new(image, s, seed)),
        };
        let square = match draw {
            Some(draw) => images::augment(image, spec, &draw, self.order)?,
            None => images::fit(image, spec, self.order)?,
        };
        Ok(Tensor::from_vec(images::normalise(&square, spec), (3, s, s), &self.device)?)
    }

    /// What the encoder takes of the file or address `path`: pixels `[3, S, S]` f32, or features `[N, E]` f32.
    ///
    /// # Errors
    /// As [`Self::read_image`] and [`Self::pixels`].
    pub fn input(&self, path: &str) -> Result<Tensor> {
        match self.input_spec {
            InputSpec::Image(_) => self.pixels(&self.read_image(path)?),
            InputSpec::Features => {
                let FeatureSpec { tokens, width, .. } = self.feature_spec;
                self.stored(features::read(path, tokens, width)?)
            }
        }
    }

    /// As [`Self::input`], of an image of a data set. With a `variation`, an encoder whose images are varied at random
    /// (NF-ResNet) sees it as drawn from that seed; without one, as at inference.
    ///
    /// # Errors
    /// As [`Self::input`], and a shard that cannot be read.
    pub fn picture(&self, picture: &Picture, variation: Option<u64>) -> Result<Tensor> {
        match picture.path()? {
            Some(path) if self.input_spec.image().is_some() => self.varied(&self.read_image(path)?, variation),
            Some(path) => self.input(path),
            None => {
                let bytes = picture.bytes(self.decode.limits.max_bytes)?.unwrap_or_default();
                self.encoded(&picture.to_string(), bytes, variation)
            }
        }
    }

    /// As [`Self::input`], of a file's bytes; `name` is for messages.
    ///
    /// # Errors
    /// As [`Self::input`].
    pub fn input_bytes(&self, name: &str, bytes: Vec<u8>) -> Result<Tensor> {
        self.encoded(name, bytes, None)
    }

    fn encoded(&self, name: &str, bytes: Vec<u8>, variation: Option<u64>) -> Result<Tensor> {
        match self.input_spec {
            InputSpec::Image(_) => self.varied(&self.decode_image(name, &bytes)?, variation),
            InputSpec::Features => {
                let FeatureSpec { tokens, width, .. } = self.feature_spec;
                self.stored(features::read_bytes(name, bytes, tokens, width)?)
            }
        }
    }

    /// An image of a data set to look at, no side longer than `side`.
    ///
    /// # Errors
    /// As [`Self::read_image`], and a shard that cannot be read.
    pub fn thumbnail(&self, picture: &Picture, side: u32) -> Result<Thumbnail> {
        let image = match picture.path()? {
            Some(path) => self.read_image(path)?,
            None => {
                let bytes = picture.bytes(self.decode.limits.max_bytes)?.unwrap_or_default();
                self.decode_image(&picture.to_string(), &bytes)?
            }
        };
        let (width, height) = image.dimensions();
        let longest = width.max(height).max(side);
        let scaled = |n: u32| (u64::from(n) * u64::from(side) / u64::from(longest)).max(1) as u32;
        let image = match longest > side {
            true => image::imageops::thumbnail(&image, scaled(width), scaled(height)),
            false => image,
        };
        let mut png = Cursor::new(Vec::new());
        image.write_to(&mut png, ImageFormat::Png)?;
        Ok(Thumbnail { width: image.width(), height: image.height(), png: png.into_inner() })
    }

    /// Features `[N, E]` that were computed before.
    fn stored(&self, values: Vec<f32>) -> Result<Tensor> {
        let FeatureSpec { tokens, width, .. } = self.feature_spec;
        Ok(Tensor::from_vec(values, (tokens, width), &self.device)?)
    }
}
