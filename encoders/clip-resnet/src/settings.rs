//! Settings of `clip-resnet`: a preset by name, explicit sizes, or what lies beside the weights.

use super::ClipResnet;
use anyhow::{Result, bail};
use limber_core::{Component, WeightSource};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Name, image size, layers, width of OpenAI's five towers.
const PRESETS: [(&str, usize, [usize; 4], usize); 5] = [
    ("RN50", 224, [3, 4, 6, 3], 64),
    ("RN101", 224, [3, 4, 23, 3], 64),
    ("RN50x4", 288, [4, 6, 10, 6], 80),
    ("RN50x16", 384, [6, 8, 18, 8], 96),
    ("RN50x64", 448, [3, 15, 36, 10], 128),
];

/// The settings. What is not set is read off `open_clip_config.json`, then off the tensors' shapes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A preset: RN50, RN101, RN50x4, RN50x16 or RN50x64.
    pub model: Option<String>,
    /// Image side S in pixels.
    #[schemars(range(min = 1))]
    pub image_size: Option<usize>,
    /// Blocks of the four stages.
    pub layers: Option<[usize; 4]>,
    /// Channels after the stem; E is 32 times this.
    #[schemars(range(min = 1))]
    pub width: Option<usize>,
    /// Mean a channel on the scale 0..1; CLIP's where it is not set.
    pub mean: Option<[f32; 3]>,
    /// Standard deviation a channel on the scale 0..1; CLIP's where it is not set.
    pub std: Option<[f32; 3]>,
}

/// Where the tower's tensors may stand.
pub(super) const PREFIXES: [&str; 3] = ["visual", "module.visual", ""];

impl Component for ClipResnet {
    type Config = Config;
    const KIND: &'static str = "clip-resnet";
    const ABOUT: &'static str =
        "CLIP's modified ResNet (RN50, RN101, RN50x4, RN50x16, RN50x64), attention pool removed";
    const FILES: &'static [&'static str] =
        &["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin"];

    fn tiny() -> Config {
        Config { layers: Some([1, 2, 1, 1]), width: Some(8), image_size: Some(64), ..Config::default() }
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        let Some(tensors) = source.tensors() else { return Ok(false) };
        // The third convolution of the stem tells it from torchvision's ResNet.
        let has = |prefix: &str, name: &str| tensors.contains_key(format!("{prefix}.{name}").trim_start_matches('.'));
        Ok(PREFIXES.iter().any(|prefix| has(prefix, "conv3.weight") && has(prefix, "layer1.0.conv1.weight")))
    }

    fn resolve(mut config: Config, source: &dyn WeightSource) -> Result<Config> {
        // All sizes filled in, the preset's name dropped, so that equal towers have equal settings.
        if let Some(model) = config.model.take() {
            let Some((_, side, layers, width)) = PRESETS.iter().find(|p| p.0.eq_ignore_ascii_case(&model)) else {
                let known: Vec<&str> = PRESETS.iter().map(|p| p.0).collect();
                bail!("unknown clip-resnet model {model:?}; known models: {}", known.join(", "))
            };
            config.image_size.get_or_insert(*side);
            config.layers.get_or_insert(*layers);
            config.width.get_or_insert(*width);
        }
        if let Some(text) = source.document("open_clip_config.json")? {
            config.fill_from_open_clip(&text)?;
        }
        config.fill_from_shapes(source);
        match (config.image_size, config.layers, config.width) {
            (Some(_), Some(layers), Some(width)) => {
                if width == 0 || width % 2 != 0 {
                    bail!("clip-resnet: width {width} is not allowed, it must be even and above 0")
                }
                if layers.contains(&0) {
                    bail!("clip-resnet: layers {layers:?} are not allowed, each stage needs at least 1")
                }
                Ok(config)
            }
            _ => bail!(
                "clip-resnet: no model is set and the sizes cannot be read off {}; set model (RN50, RN101, RN50x4, RN50x16, RN50x64) or image_size, layers and width",
                source.label()
            ),
        }
    }
}

impl Config {
    /// open_clip's own description of a model.
    fn fill_from_open_clip(&mut self, text: &str) -> Result<()> {
        let tree: Value = serde_json::from_str(text)?;
        let vision = tree.pointer("/model_cfg/vision_cfg").unwrap_or(&Value::Null);
        if let Some(layers) = vision.get("layers") {
            match serde_json::from_value::<[usize; 4]>(layers.clone()) {
                Ok(layers) => _ = self.layers.get_or_insert(layers),
                Err(_) => bail!(
                    "open_clip_config.json: vision_cfg.layers is {layers}, a ModifiedResNet has a list of four (a single number is a ViT)"
                ),
            }
        }
        if let Some(width) = vision.get("width").and_then(Value::as_u64) {
            self.width.get_or_insert(width as usize);
        }
        if let Some(side) = vision.get("image_size").and_then(Value::as_u64) {
            self.image_size.get_or_insert(side as usize);
        }
        let triple = |key: &str| {
            tree.pointer(&format!("/preprocess_cfg/{key}"))
                .and_then(|v| serde_json::from_value::<[f32; 3]>(v.clone()).ok())
        };
        self.mean = self.mean.or(triple("mean"));
        self.std = self.std.or(triple("std"));
        Ok(())
    }

    /// As OpenAI's `build_model` does: blocks by their names, width and image size by shapes.
    fn fill_from_shapes(&mut self, source: &dyn WeightSource) {
        let Some(tensors) = source.tensors() else { return };
        for prefix in PREFIXES.map(|p| if p.is_empty() { String::new() } else { format!("{p}.") }) {
            let Some(shape) = tensors.get(&format!("{prefix}layer1.0.conv1.weight")) else { continue };
            self.width = self.width.or(shape.first().copied());
            let blocks = |stage: usize| {
                (0..).take_while(|b| tensors.contains_key(&format!("{prefix}layer{stage}.{b}.conv1.weight"))).count()
            };
            self.layers.get_or_insert([blocks(1), blocks(2), blocks(3), blocks(4)]);
            // One position a grid cell and one for the mean.
            if let Some([n, _]) = tensors.get(&format!("{prefix}attnpool.positional_embedding")).map(Vec::as_slice) {
                let grid = ((n.saturating_sub(1)) as f64).sqrt().round() as usize;
                self.image_size.get_or_insert(grid * 32);
            }
            return;
        }
    }
}
