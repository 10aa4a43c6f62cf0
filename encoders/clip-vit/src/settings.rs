//! Settings of `clip-vit`: a preset by name, explicit sizes, or what the weights and the files beside them say.

use super::ClipVit;
use super::documents;
use super::names::Names;
use super::presets::Preset;
use super::shapes;
use super::sizes::Sizes;
use anyhow::{Result, bail};
use limber_core::ops::Activation;
use limber_core::{Component, ImageSpec, ResizeFilter, ResizeRule, WeightSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The settings. What is not set is that of `model`, or is read off the tensors' shapes and the library's config file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A preset. OpenAI's names (ViT-B/32, ViT-B/16, ViT-L/14, ViT-L/14@336px) mean QuickGELU; open_clip's (ViT-B-32,
    /// ViT-B-16, ViT-L-14, ViT-L-14-336, ViT-H-14, ViT-g-14, ViT-bigG-14) mean GELU, with -quickgelu QuickGELU.
    pub model: Option<String>,
    /// The projected class token instead of patch tokens: N = 1, E the width of CLIP's common space.
    pub pool: bool,
    /// The hidden state whose patch tokens are given: 0 enters the first block, L leaves the last, negative numbers
    /// count back from L as -1. Where it is not set -2, the output of the last block but one.
    pub layer: Option<i64>,
    /// Whether patch tokens go through the layer norm that stands after the last block.
    pub post_norm: bool,
    /// Image side S in pixels. Positions are never interpolated: S / patch_size, rounded down, is what was trained.
    #[schemars(range(min = 1))]
    pub image_size: Option<usize>,
    /// Side of a patch in pixels.
    #[schemars(range(min = 1))]
    pub patch_size: Option<usize>,
    /// Width E of the blocks.
    #[schemars(range(min = 1))]
    pub width: Option<usize>,
    /// Blocks L.
    #[schemars(range(min = 1))]
    pub layers: Option<usize>,
    /// Attention heads H.
    #[schemars(range(min = 1))]
    pub heads: Option<usize>,
    /// Width of the blocks' MLPs.
    #[schemars(range(min = 1))]
    pub mlp_width: Option<usize>,
    /// Width of the projection that `pool` gives.
    #[schemars(range(min = 1))]
    pub projection: Option<usize>,
    /// The activation that the weights were trained with: quick_gelu for OpenAI's, gelu for most of open_clip's.
    pub activation: Option<Activation>,
    /// Added to the variance in the layer norms; by default 1e-5.
    pub epsilon: Option<f64>,
    /// Whether a layer norm stands before the first block: all towers but CLIPA's.
    pub pre_norm: Option<bool>,
    /// Whether blocks scale what they add, as some of open_clip's do.
    pub layer_scale: Option<bool>,
    /// Mean a channel on the scale 0..1; by default CLIP's.
    pub mean: Option<[f32; 3]>,
    /// Standard deviation a channel on the scale 0..1; by default CLIP's.
    pub std: Option<[f32; 3]>,
    /// How the square is cut out of an image; by default shorter-side-crop.
    pub resize: Option<ResizeRule>,
    /// What images are resized to before the square is cut out, S or more; by default S.
    #[schemars(range(min = 1))]
    pub resize_to: Option<usize>,
    /// The resampling filter; by default bicubic.
    pub filter: Option<ResizeFilter>,
    /// What random weights' deviations are multiplied with, transformers' setting of this name; 1.
    pub initializer_factor: Option<f32>,
    /// Deviation of random patch weights and positions before that factor, likewise; 0.02.
    pub initializer_range: Option<f32>,
}

/// What the tensors or a document say of a tower.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Sizes, activation and norms; None where neither is set.
    pub config: Config,
    /// The side of the grid that positions were trained for.
    pub grid: Option<usize>,
    pub image: Option<ImageSpec>,
}

impl Component for ClipVit {
    type Config = Config;
    const KIND: &'static str = "clip-vit";
    const ABOUT: &'static str = "CLIP's vision transformer: patch tokens of a layer, or the pooled projection";
    // Repositories that hold both libraries' files may have timm's names in the second.
    const FILES: &'static [&'static str] = &[
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.bin",
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    ];

    fn tiny() -> Config {
        Config {
            image_size: Some(32),
            patch_size: Some(8),
            width: Some(32),
            layers: Some(3),
            heads: Some(4),
            mlp_width: Some(48),
            activation: Some(Activation::QuickGelu),
            ..Config::default()
        }
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        documents::recognises(source)
    }

    fn resolve(mut config: Config, source: &dyn WeightSource) -> Result<Config> {
        // Everything filled in and checked, the preset's name dropped, so that equal towers have equal settings.
        // Who says which activation, where the settings do not.
        let mut claims: Vec<(String, Activation)> = Vec::new();
        if let Some(name) = config.model.take() {
            let Some((preset, activation)) = Preset::named(&name) else {
                bail!("unknown clip-vit model {name:?}; known models: {}", Preset::names())
            };
            config.image_size.get_or_insert(preset.image_size);
            config.patch_size.get_or_insert(preset.patch_size);
            config.width.get_or_insert(preset.width);
            config.layers.get_or_insert(preset.layers);
            config.heads.get_or_insert(preset.heads);
            config.mlp_width.get_or_insert(preset.mlp_width);
            config.projection.get_or_insert(preset.projection);
            claims.push((format!("model {name:?}"), activation));
        }
        let mut grid = None;
        if source.tensors().is_some() {
            let described = documents::read(source, &config)?;
            let Some(names) = Names::find(source) else { return Err(shapes::not_a_tower(source)) };
            let tensors = shapes::read(source, &names)?;
            grid = tensors.grid;
            for (found, by) in [Some((tensors, source.label())), described].into_iter().flatten() {
                if let Some(activation) = found.config.activation {
                    claims.push((by.clone(), activation));
                }
                config.take(found, &by)?;
            }
        }
        config.choose_activation(&claims, source)?;
        config.fill_rest(grid, source)?;
        Sizes::of(&config)?;
        Ok(config)
    }
}

impl Config {
    /// Takes what `by` says; what is set already must agree.
    fn take(&mut self, Found { config: found, image, .. }: Found, by: &str) -> Result<()> {
        fn agree<T: PartialEq + Copy + std::fmt::Display>(
            slot: &mut Option<T>,
            found: Option<T>,
            name: &str,
            by: &str,
        ) -> Result<()> {
            match (*slot, found) {
                (Some(set), Some(found)) if set != found => {
                    bail!("clip-vit: {name} is {set} by the settings, {found} by {by}")
                }
                _ => *slot = slot.or(found),
            }
            Ok(())
        }
        agree(&mut self.patch_size, found.patch_size, "patch_size", by)?;
        agree(&mut self.width, found.width, "width", by)?;
        agree(&mut self.layers, found.layers, "layers", by)?;
        agree(&mut self.heads, found.heads, "heads", by)?;
        agree(&mut self.mlp_width, found.mlp_width, "mlp_width", by)?;
        agree(&mut self.projection, found.projection, "projection", by)?;
        agree(&mut self.epsilon, found.epsilon, "epsilon", by)?;
        agree(&mut self.pre_norm, found.pre_norm, "pre_norm", by)?;
        agree(&mut self.layer_scale, found.layer_scale, "layer_scale", by)?;
        // Another side is possible where it gives the same grid.
        self.image_size = self.image_size.or(found.image_size);
        if let Some(image) = image {
            self.mean.get_or_insert(image.mean);
            self.std.get_or_insert(image.std);
            self.resize.get_or_insert(image.resize);
            self.resize_to = self.resize_to.or(image.resize_to);
            self.filter.get_or_insert(image.filter);
        }
        Ok(())
    }

    /// The settings' word counts; else all who say something must say the same, and somebody must.
    fn choose_activation(&mut self, claims: &[(String, Activation)], source: &dyn WeightSource) -> Result<()> {
        if self.activation.is_some() {
            return Ok(());
        }
        let Some((first, activation)) = claims.first() else {
            bail!(
                "{}: nothing tells which activation this clip-vit was trained with; set activation (quick_gelu for the weights of OpenAI, MetaCLIP and DFN, gelu for most of open_clip's) or model",
                source.label()
            )
        };
        if let Some((other, instead)) = claims.iter().find(|(_, a)| a != activation) {
            bail!(
                "clip-vit: the activation is {} by {first}, {} by {other}; set activation to the one these weights were trained with",
                activation.name(),
                instead.name()
            )
        }
        self.activation = Some(*activation);
        Ok(())
    }

    /// What is the same in all towers, or follows from the rest.
    fn fill_rest(&mut self, grid: Option<usize>, source: &dyn WeightSource) -> Result<()> {
        let label = source.label();
        let (Some(patch_size), Some(width), Some(layers)) = (self.patch_size, self.width, self.layers) else {
            bail!(
                "clip-vit: no model is set and the sizes cannot be read off {label}; set model ({}) or image_size, patch_size, width and layers",
                Preset::names()
            )
        };
        let side = match (self.image_size, grid) {
            (Some(side), Some(grid)) if patch_size > 0 && side / patch_size != grid => bail!(
                "clip-vit: image_size {side} gives {0} x {0} patches, the positions in {label} are for {grid} x {grid}; they are not interpolated, expected image_size {1} to {2}",
                side / patch_size,
                grid * patch_size,
                (grid + 1) * patch_size - 1
            ),
            (Some(side), _) => side,
            (None, Some(grid)) => grid * patch_size,
            (None, None) => bail!("clip-vit: image_size is not set and cannot be read off {label}"),
        };
        self.image_size = Some(side);
        if self.heads.is_none() {
            // True of OpenAI's towers and of open_clip's up to this width; wider ones have wider heads.
            if width > 1024 || width % 64 != 0 {
                bail!("clip-vit: {label} does not tell the heads of a tower of width {width}; set heads or model")
            }
            self.heads = Some(width / 64);
        }
        self.mlp_width.get_or_insert(4 * width);
        self.epsilon.get_or_insert(1e-5);
        self.pre_norm.get_or_insert(true);
        self.layer_scale.get_or_insert(false);
        if self.pool {
            if let Some(layer) = self.layer {
                bail!("clip-vit: layer {layer} is not allowed with pool, which takes the last")
            }
            if self.post_norm {
                bail!("clip-vit: post_norm is not allowed with pool, which has its norm")
            }
            if self.projection.is_none() {
                bail!("clip-vit: pool needs a projection, and {label} holds none; set projection for random weights")
            }
            return Ok(());
        }
        self.projection = None;
        let (layer, last) = (self.layer.unwrap_or(-2), layers as i64);
        let counted = if layer < 0 { last + 1 + layer } else { layer };
        if !(0..=last).contains(&counted) {
            bail!(
                "clip-vit: layer {layer} is not allowed, a tower of {last} blocks has 0 to {last}, or -1 to -{}",
                last + 1
            )
        }
        self.layer = Some(counted);
        Ok(())
    }
}
