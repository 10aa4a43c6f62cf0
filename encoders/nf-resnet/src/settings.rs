//! Settings of `nf-resnet`: a preset by timm's name, explicit sizes, or what lies beside the weights.

use super::NfResnet;
use anyhow::{Result, bail};
use limber_core::{Component, ModelConfig, ResizeFilter, WeightSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A model of timm's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Preset {
    name: &'static str,
    /// The image side that timm evaluates it at.
    side: usize,
    depths: [usize; 4],
}

const PRESETS: [Preset; 3] = [
    Preset { name: "nf_resnet26", side: 224, depths: [2, 2, 2, 2] },
    Preset { name: "nf_resnet50", side: 256, depths: [3, 4, 6, 3] },
    Preset { name: "nf_resnet101", side: 224, depths: [3, 4, 23, 3] },
];

/// Widths of the four stages, and of the stem, of every preset.
const CHANNELS: [usize; 4] = [256, 512, 1024, 2048];
const STEM: usize = 64;

/// Where the tower's tensors may stand: timm's own files, or those of transformers' `TimmWrapperModel`.
pub(super) const PREFIXES: [&str; 2] = ["", "timm_model"];

/// A tensor that a tower has.
pub(super) const PROBE: &str = "stem.conv.gain";

/// Arguments of timm's model that are read.
const READ: [&str; 5] = ["depths", "channels", "stem_chs", "in_chans", "output_stride"];

/// Arguments of timm's model that touch its classifier or its training alone.
const HEAD: [&str; 5] = ["num_classes", "global_pool", "zero_init_fc", "drop_rate", "drop_path_rate"];

/// Parts of tensors' names that belong to timm's other normaliser-free models.
const STRANGERS: [&str; 5] = [".attn.", ".attn_last.", ".conv2b.", ".skipinit_gain", "final_conv."];

/// The settings. What is not set is read off `config.json`, then off the tensors' shapes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A preset: nf_resnet26, nf_resnet50 or nf_resnet101.
    pub model: Option<String>,
    /// Image side S in pixels.
    #[schemars(range(min = 1))]
    pub image_size: Option<usize>,
    /// One vector, the average over the image, or every cell of the last map as a token of its own.
    pub pool: bool,
    /// Blocks of the four stages.
    pub depths: Option<[usize; 4]>,
    /// Channels of the four stages; E is the last.
    pub channels: Option<[usize; 4]>,
    /// Channels of the stem.
    #[schemars(range(min = 1))]
    pub stem_width: Option<usize>,
    /// Mean a channel on the scale 0..1; 0 where it is not set, as LiMBeR feeds this tower, whatever `config.json`
    /// says. timm trained it with 0.485, 0.456, 0.406.
    pub mean: Option<[f32; 3]>,
    /// Standard deviation a channel on the scale 0..1; 1 where it is not set. timm trained with 0.229, 0.224, 0.225.
    pub std: Option<[f32; 3]>,
    /// Filter of the resize; bilinear where it is not set, as LiMBeR resizes for this tower. timm's is bicubic.
    pub filter: Option<ResizeFilter>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            model: None,
            image_size: None,
            pool: true,
            depths: None,
            channels: None,
            stem_width: None,
            mean: None,
            std: None,
            filter: None,
        }
    }
}

/// The sizes of resolved settings.
pub(super) struct Sizes {
    pub side: usize,
    pub depths: [usize; 4],
    pub channels: [usize; 4],
    pub stem: usize,
}

/// Channels inside a block that gives `n_out`: a quarter, rounded as timm's `make_divisible` does to a multiple of 8
/// that is at least 8 and at least nine tenths of it.
pub(super) fn bottleneck(n_out: usize) -> usize {
    // (n_out / 4 + 4) / 8 in whole numbers.
    let rounded = ((n_out + 16) / 32 * 8).max(8);
    if 40 * rounded < 9 * n_out { rounded + 8 } else { rounded }
}

/// The preset of a name, with or without the tag that timm puts behind a point (`nf_resnet50.ra2_in1k`).
fn preset(name: &str) -> Result<Preset> {
    let bare = name.split_once('.').map_or(name, |(bare, _)| bare);
    match PRESETS.into_iter().find(|p| p.name == bare) {
        Some(preset) => Ok(preset),
        None => bail!("unknown nf-resnet model {name:?}; known models: {}", known()),
    }
}

fn known() -> String {
    PRESETS.map(|p| p.name).join(", ")
}

impl Component for NfResnet {
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
        if let Some(file) = ModelConfig::read(source)?
            && let Some(name) = file.value("architecture").and_then(Value::as_str)
        {
            return Ok(preset(name).is_ok());
        }
        let Some(tensors) = source.tensors() else { return Ok(false) };
        Ok(Tensors::new(&tensors).is_some_and(|t| t.stranger().is_none()))
    }

    fn resolve(mut config: Config, source: &dyn WeightSource) -> Result<Config> {
        // All sizes filled in, the preset's name dropped, so that equal towers have equal settings.
        let model = config.model.take().map(|name| preset(&name)).transpose()?;
        if let Some(file) = ModelConfig::read(source)? {
            config.fill_from_timm(&file, model)?;
        }
        config.depths = config.depths.or(model.map(|m| m.depths));
        let tensors = source.tensors();
        if let Some(tensors) = tensors.as_ref().and_then(Tensors::new) {
            if let Some(name) = tensors.stranger() {
                bail!("{}: tensor {name:?} is none of an nf-resnet's: another of timm's models", source.label())
            }
            config.channels = config.channels.or(tensors.channels());
            config.stem_width = config.stem_width.or(tensors.stem());
            let there = tensors.depths();
            // A shallower tower would find all of its tensors and compute something else.
            if let Some(depths) = config.depths.filter(|depths| *depths != there) {
                bail!("{}: the weights have {there:?} blocks a stage, the settings say {depths:?}", source.label())
            }
            config.depths = Some(there);
        }
        let Some(depths) = config.depths else {
            bail!(
                "nf-resnet: no model is set and the sizes cannot be read off {}; set model ({}) or depths",
                source.label(),
                known()
            )
        };
        let channels = *config.channels.get_or_insert(CHANNELS);
        let stem = *config.stem_width.get_or_insert(STEM);
        let like = model.or_else(|| PRESETS.into_iter().find(|p| p.depths == depths));
        let side = *config.image_size.get_or_insert(like.map_or(224, |p| p.side));
        if side == 0 || stem == 0 || depths.contains(&0) || channels.contains(&0) {
            bail!(
                "nf-resnet: image_size {side}, stem_width {stem}, depths {depths:?}, channels {channels:?}: each is at least 1"
            )
        }
        if let Some(std) = config.std.filter(|std| !std.iter().all(|s| s.is_finite() && *s > 0.0)) {
            bail!("nf-resnet: std {std:?} is not allowed, each is above 0")
        }
        if let Some(mean) = config.mean.filter(|mean| !mean.iter().all(|m| m.is_finite())) {
            bail!("nf-resnet: mean {mean:?} is not allowed, each is finite")
        }
        Ok(config)
    }
}

impl Config {
    pub(super) fn sizes(&self) -> Result<Sizes> {
        match (self.image_size, self.depths, self.channels, self.stem_width) {
            (Some(side), Some(depths), Some(channels), Some(stem)) => Ok(Sizes { side, depths, channels, stem }),
            _ => bail!("nf-resnet needs a model, or image_size, depths, channels and stem_width"),
        }
    }

    /// timm's own description of a model; `model` is what the settings name.
    fn fill_from_timm(&mut self, file: &ModelConfig, model: Option<Preset>) -> Result<()> {
        let Some(name) = file.text("architecture")? else { return Ok(()) };
        let there = preset(&name).ok();
        if model.is_some() && model != there {
            // The settings name another model than the file: the tensors decide which of the two it is.
            return Ok(());
        }
        let Some(there) = there else {
            return Err(file.refusal("architecture", format!("nf-resnet takes {}", known())));
        };
        if let Some(cfg) = file.section("pretrained_cfg")
            && let Some(size) = cfg.numbers("input_size")?
        {
            match size.as_slice() {
                [3.0, h, w] if h == w && *h >= 1.0 => _ = self.image_size.get_or_insert(*h as usize),
                _ => return Err(cfg.refusal("input_size", "supported is [3, S, S]")),
            }
        }
        let mut depths = Some(there.depths);
        if let Some(arguments) = file.section("model_args") {
            let four = |key: &str| {
                let whole = |n: &f64| n.fract() == 0.0 && *n >= 1.0;
                let list = arguments.numbers(key)?.map(|list| if list.iter().all(whole) { list } else { Vec::new() });
                let list = list.map(<[f64; 4]>::try_from).transpose();
                list.map(|l| l.map(|l| l.map(|n| n as usize)))
                    .map_err(|_| arguments.refusal(key, "supported are four whole numbers from 1"))
            };
            depths = four("depths")?.or(depths);
            self.channels = self.channels.or(four("channels")?);
            self.stem_width = self.stem_width.or(arguments.size("stem_chs")?);
            arguments.expect("in_chans", &[json!(3)])?;
            arguments.expect("output_stride", &[json!(32)])?;
            let known = |key: &str| READ.contains(&key) || HEAD.contains(&key);
            if let Some(key) = arguments.keys().find(|key| !known(key) && !arguments.is_null(key)) {
                return Err(arguments.refusal(key, "which nf-resnet does not support"));
            }
        }
        self.depths = self.depths.or(depths);
        Ok(())
    }
}

fn full(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_string() } else { format!("{prefix}.{name}") }
}

/// The tower's tensors by name, without their prefix.
struct Tensors<'a> {
    all: &'a BTreeMap<String, Vec<usize>>,
    prefix: &'static str,
}

impl<'a> Tensors<'a> {
    /// None where these are no tensors of a normaliser-free network with a plain stem.
    fn new(all: &'a BTreeMap<String, Vec<usize>>) -> Option<Self> {
        let there = |prefix: &&str| all.contains_key(&full(prefix, PROBE));
        Some(Self { all, prefix: PREFIXES.into_iter().find(there)? })
    }

    /// A tensor that belongs to another model.
    fn stranger(&self) -> Option<&str> {
        self.all.keys().map(String::as_str).find(|name| STRANGERS.iter().any(|part| name.contains(part)))
    }

    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.all.get(&full(self.prefix, name)).map(Vec::as_slice)
    }

    fn stem(&self) -> Option<usize> {
        self.shape("stem.conv.weight")?.first().copied()
    }

    fn depths(&self) -> [usize; 4] {
        std::array::from_fn(|stage| {
            (0..).take_while(|block| self.shape(&format!("stages.{stage}.{block}.conv1.weight")).is_some()).count()
        })
    }

    fn channels(&self) -> Option<[usize; 4]> {
        let mut channels = [0; 4];
        for (stage, channels) in channels.iter_mut().enumerate() {
            *channels = *self.shape(&format!("stages.{stage}.0.conv3.weight"))?.first()?;
        }
        Some(channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bottleneck_is_rounded_as_timm_rounds() {
        // timm.layers.make_divisible(n / 4, 8).
        for (n_out, middle) in
            [(256, 64), (2048, 512), (8, 8), (32, 8), (48, 16), (72, 24), (80, 24), (96, 24), (50, 16)]
        {
            assert_eq!(bottleneck(n_out), middle, "{n_out}");
        }
    }
}
