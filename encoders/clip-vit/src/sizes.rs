//! The sizes of a tower whose settings are resolved, checked, and the deviations of its random weights.

use super::settings::Config;
use anyhow::{Context, Result, bail};
use limber_core::ops::{Activation, Heads};

/// The sizes of resolved settings.
pub(super) struct Sizes {
    pub image_size: usize,
    pub patch_size: usize,
    /// Patches along a side of the image.
    pub grid: usize,
    pub width: usize,
    /// Blocks that are computed, up to the hidden state that is wanted.
    pub blocks: usize,
    layers: usize,
    heads: usize,
    pub mlp_width: usize,
    pub projection: Option<usize>,
    pub activation: Activation,
    pub epsilon: f64,
    pub pre_norm: bool,
    pub layer_scale: bool,
    pub initializer_factor: f32,
    pub initializer_range: f32,
}

/// Deviations of a block's random weights.
pub(super) struct BlockInit {
    pub qkv: f32,
    pub out: f32,
    pub fc1: f32,
    pub fc2: f32,
}

impl Sizes {
    /// The sizes of `config`, checked.
    pub fn of(config: &Config) -> Result<Self> {
        let set = |value: Option<usize>, name: &str| match value {
            Some(0) => bail!("clip-vit: {name} 0 is not allowed, it must be above 0"),
            Some(value) => Ok(value),
            None => bail!("clip-vit settings are not resolved: {name} is not set"),
        };
        let (image_size, patch_size) = (set(config.image_size, "image_size")?, set(config.patch_size, "patch_size")?);
        let (width, layers) = (set(config.width, "width")?, set(config.layers, "layers")?);
        let heads = set(config.heads, "heads")?;
        if patch_size > image_size {
            bail!("clip-vit: patch_size {patch_size} is not allowed, the image has {image_size} pixels a side")
        }
        if let Some(resized) = config.resize_to.filter(|resized| *resized < image_size) {
            bail!(
                "clip-vit: resize_to {resized} is not allowed, the square that is cut out has {image_size} pixels a side"
            )
        }
        if width % heads != 0 {
            bail!("clip-vit: {heads} heads do not divide the width {width}")
        }
        let positive = |value: f64, name: &str| match value.is_finite() && value > 0.0 {
            true => Ok(value),
            false => bail!("clip-vit: {name} {value} is not allowed, it must be a number above 0"),
        };
        let initializer_factor = config.initializer_factor.unwrap_or(1.0);
        let initializer_range = config.initializer_range.unwrap_or(0.02);
        positive(initializer_factor.into(), "initializer_factor")?;
        positive(initializer_range.into(), "initializer_range")?;
        for std in config.std.iter().flatten() {
            positive((*std).into(), "std")?;
        }
        Ok(Self {
            image_size,
            patch_size,
            grid: image_size / patch_size,
            width,
            blocks: config.layer.map_or(layers, |layer| layer as usize),
            layers,
            heads,
            mlp_width: set(config.mlp_width, "mlp_width")?,
            projection: config.projection.map(|width| set(Some(width), "projection")).transpose()?,
            activation: config.activation.context("clip-vit settings are not resolved: activation is not set")?,
            epsilon: positive(config.epsilon.unwrap_or(1e-5), "epsilon")?,
            pre_norm: config.pre_norm.unwrap_or(true),
            layer_scale: config.layer_scale.unwrap_or(false),
            initializer_factor,
            initializer_range,
        })
    }

    /// The sizes of a text tower, as far as its blocks ask for them.
    pub fn text(
        width: usize,
        layers: usize,
        heads: usize,
        mlp_width: usize,
        activation: Activation,
        epsilon: f64,
    ) -> Self {
        Self {
            image_size: 0,
            patch_size: 0,
            grid: 0,
            width,
            blocks: layers,
            layers,
            heads,
            mlp_width,
            projection: None,
            activation,
            epsilon,
            pre_norm: false,
            layer_scale: false,
            initializer_factor: 1.0,
            initializer_range: 0.02,
        }
    }

    /// How the heads are laid out.
    pub fn heads(&self) -> Heads {
        let dim = self.width / self.heads;
        Heads { queries: self.heads, keys: self.heads, dim, scale: (dim as f64).powf(-0.5) }
    }

    /// transformers' `_init_weights` of `CLIPAttention` and `CLIPMLP`.
    pub fn init(&self) -> BlockInit {
        let (width, layers) = (self.width as f32, self.layers as f32);
        let scale = width.powf(-0.5) * self.initializer_factor;
        let deep = scale * (2.0 * layers).powf(-0.5);
        let fc1 = (2.0 * width).powf(-0.5) * self.initializer_factor;
        BlockInit { qkv: deep, out: scale, fc1, fc2: deep }
    }
}
