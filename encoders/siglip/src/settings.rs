//! Settings of `siglip`: explicit ones, then a preset's, then what `config.json` and `preprocessor_config.json` say.

use super::presets::{BASE, PRESETS};
use anyhow::{Result, bail};
use candle_transformers::models::siglip::VisionConfig;
use limber_core::ops::Activation;
use limber_core::spec::Augment;
use limber_core::{ImageSpec, ModelConfig, ResizeFilter, ResizeRule, WeightSource, preprocessor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Transformers' `model_type`s. `siglip2` is NaFlex, which takes images of any aspect ratio.
const TYPES: [&str; 2] = ["siglip", "siglip_vision_model"];

/// What candle-transformers computes as transformers does.
const ACTIVATIONS: [Activation; 4] = [Activation::GeluNew, Activation::Gelu, Activation::Relu, Activation::Silu];

/// The settings, in transformers' names where it has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A preset, one of Google's names: siglip-base-patch16-{224,256,384,512}, siglip-large-patch16-{256,384},
    /// siglip-so400m-patch14-{224,384}, siglip2-base-patch16-224 and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The one vector of the attention-pooling head: N = 1.
    pub pool: bool,
    /// The hidden state whose tokens are given: 0 enters the first block, L leaves the last, negative numbers count back
    /// from L as -1; the last where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<i64>,
    /// Whether the tokens go through the layer norm that stands after the last block; where it is not set, those of the
    /// last hidden state do (transformers' `last_hidden_state`), others do not (its `hidden_states`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_norm: Option<bool>,
    /// Image side S in pixels. Where it is not what the positions are for, they are resized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// The image side that the positions in the weights are for: `image_size` of config.json.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_size: Option<usize>,
    /// Side of a patch in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_size: Option<usize>,
    /// Encoder width E.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<usize>,
    /// Width of the MLPs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Blocks L.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_hidden_layers: Option<usize>,
    /// Heads H.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<usize>,
    /// Activation of the MLPs: gelu_new (transformers' gelu_pytorch_tanh), gelu, relu or silu.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_act: Option<Activation>,
    /// Epsilon of the layer norms; 1e-6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_norm_eps: Option<f64>,
    /// Whether the weights have an attention-pooling head; true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vision_use_head: Option<bool>,
    /// Mean a channel on the scale 0..1; by default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation a channel on the scale 0..1; by default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<[f32; 3]>,
    /// How the square is cut out of an image; by default squash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<ResizeRule>,
    /// The resampling filter; by default bicubic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<ResizeFilter>,
}

/// All sizes, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub image: ImageSpec,
    pub patch: usize,
    pub width: usize,
    pub inner: usize,
    pub heads: usize,
    /// The hidden state that is given.
    pub layer: usize,
    pub post_norm: bool,
    pub pool: bool,
    pub activation: Activation,
    pub eps: f64,
    /// Side of the grid of positions in the weights.
    pub trained: usize,
}

impl Sizes {
    /// Patches a side.
    pub fn grid(&self) -> usize {
        self.image.side / self.patch
    }

    /// The tower as candle-transformers describes it, up to the hidden state that is given.
    pub fn candle(&self) -> VisionConfig {
        VisionConfig {
            hidden_size: self.width,
            intermediate_size: self.inner,
            num_hidden_layers: self.layer,
            num_attention_heads: self.heads,
            num_channels: 3,
            image_size: self.image.side,
            patch_size: self.patch,
            hidden_act: match self.activation {
                Activation::Gelu => candle_nn::Activation::Gelu,
                Activation::Relu => candle_nn::Activation::Relu,
                Activation::Silu => candle_nn::Activation::Silu,
                _ => candle_nn::Activation::GeluPytorchTanh,
            },
            layer_norm_eps: self.eps,
        }
    }
}

/// Whether `config.json` is a SigLIP's.
pub(super) fn recognises(source: &dyn WeightSource) -> Result<bool> {
    limber_core::model_config::recognises(source, &TYPES)
}

/// SigLIP's pixels at a side.
fn pixels(side: usize) -> ImageSpec {
    ImageSpec {
        side,
        resize: ResizeRule::Squash,
        resize_to: None,
        filter: ResizeFilter::Bicubic,
        mean: [0.5; 3],
        std: [0.5; 3],
        augment: Augment::None,
    }
}

impl Config {
    /// Everything filled in and checked, the preset's name dropped, so that equal towers have equal settings.
    pub(super) fn resolve(mut self, source: &dyn WeightSource) -> Result<Self> {
        if let Some(model) = self.model.take() {
            self.fill_from_preset(&model)?;
        }
        if let Some(config) = ModelConfig::read(source)? {
            self.fill_from_config(&config)?;
        }
        let sized = [self.hidden_size, self.intermediate_size, self.num_hidden_layers, self.num_attention_heads];
        if sized.contains(&None) {
            let known: Vec<&str> = PRESETS.iter().map(|p| p.0).collect();
            bail!(
                "siglip: no model is set and there is no config.json beside {}; set model ({}) or hidden_size, intermediate_size, num_hidden_layers and num_attention_heads",
                source.label(),
                known.join(", ")
            )
        }
        self.patch_size.get_or_insert(16);
        let trained = *self.trained_size.get_or_insert(self.image_size.unwrap_or(224));
        let image = preprocessor::read(source, pixels(trained))?.unwrap_or(pixels(trained));
        if let Some(resized) = image.resize_to {
            bail!(
                "{}: preprocessor_config.json: cuts {} out of {resized}, siglip takes the whole image",
                source.label(),
                image.side
            )
        }
        self.image_size.get_or_insert(image.side);
        self.resize.get_or_insert(image.resize);
        self.filter.get_or_insert(image.filter);
        self.mean.get_or_insert(image.mean);
        self.std.get_or_insert(image.std);
        self.hidden_act.get_or_insert(Activation::GeluNew);
        self.layer_norm_eps.get_or_insert(1e-6);
        self.vision_use_head.get_or_insert(true);
        let sizes = self.sizes()?;
        self.layer = Some(sizes.layer as i64);
        self.post_norm = Some(sizes.post_norm);
        Ok(self)
    }

    fn fill_from_preset(&mut self, model: &str) -> Result<()> {
        let name = model.strip_prefix("google/").unwrap_or(model);
        let Some((_, patch, side, [width, inner, layers, heads])) = PRESETS.iter().find(|p| p.0 == name) else {
            let known: Vec<&str> = PRESETS.iter().map(|p| p.0).collect();
            bail!("unknown siglip model {model:?}; known models: {}", known.join(", "))
        };
        self.patch_size.get_or_insert(*patch);
        self.trained_size.get_or_insert(*side);
        self.hidden_size.get_or_insert(*width);
        self.intermediate_size.get_or_insert(*inner);
        self.num_hidden_layers.get_or_insert(*layers);
        self.num_attention_heads.get_or_insert(*heads);
        Ok(())
    }

    /// What `config.json` says, with the defaults of transformers' `SiglipVisionConfig`.
    fn fill_from_config(&mut self, config: &ModelConfig) -> Result<()> {
        let part = "the encoder siglip";
        if config.model_type() == Some("siglip2") {
            return Err(config.refusal(
                "model_type",
                "which is NaFlex, of images of any aspect ratio; the encoder siglip takes \"siglip\" and \"siglip_vision_model\", among them SigLIP 2 at a fixed resolution",
            ));
        }
        config.expect_type(part, &TYPES)?;
        config.refuse(part, &["quantization_config"])?;
        let vision = config.section("vision_config").unwrap_or_else(|| config.clone());
        vision.expect_type(part, &TYPES)?;
        vision.expect("num_channels", &[json!(3)])?;
        fn fill<T>(slot: &mut Option<T>, found: Option<T>, default: T) {
            slot.get_or_insert(found.unwrap_or(default));
        }
        let [width, inner, layers, heads] = BASE;
        fill(&mut self.hidden_size, vision.size("hidden_size")?, width);
        fill(&mut self.intermediate_size, vision.size("intermediate_size")?, inner);
        fill(&mut self.num_hidden_layers, vision.size("num_hidden_layers")?, layers);
        fill(&mut self.num_attention_heads, vision.size("num_attention_heads")?, heads);
        fill(&mut self.trained_size, vision.size("image_size")?, 224);
        fill(&mut self.patch_size, vision.size("patch_size")?, 16);
        fill(&mut self.layer_norm_eps, vision.number("layer_norm_eps")?, 1e-6);
        fill(&mut self.vision_use_head, vision.flag("vision_use_head")?, true);
        if let Some(name) = vision.text("hidden_act")? {
            let known = Activation::named(&name).filter(|act| ACTIVATIONS.contains(act));
            let refusal = || {
                vision.refusal("hidden_act", "supported is gelu_pytorch_tanh, gelu_new, gelu_fast, gelu, relu, silu")
            };
            self.hidden_act.get_or_insert(known.ok_or_else(refusal)?);
        }
        Ok(())
    }

    /// The sizes of resolved settings.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let need = |value: Option<usize>, key: &str| match value {
            Some(0) => bail!("siglip: {key} is 0, expected at least 1"),
            Some(n) => Ok(n),
            None => bail!("siglip: {key} is not set"),
        };
        let (trained, patch) = (need(self.trained_size, "trained_size")?, need(self.patch_size, "patch_size")?);
        let side = need(self.image_size, "image_size")?;
        for (key, size) in [("image_size", side), ("trained_size", trained)] {
            if size < patch {
                bail!("siglip: {key} {size} is smaller than a patch of {patch}")
            }
        }
        let (width, heads) =
            (need(self.hidden_size, "hidden_size")?, need(self.num_attention_heads, "num_attention_heads")?);
        if width % heads != 0 {
            bail!("siglip: hidden_size {width} is not a multiple of num_attention_heads {heads}")
        }
        let layers = need(self.num_hidden_layers, "num_hidden_layers")?;
        let last = layers as i64;
        let wanted = self.layer.unwrap_or(-1);
        let layer = if wanted < 0 { last + 1 + wanted } else { wanted };
        if !(0..=last).contains(&layer) {
            bail!(
                "siglip: layer {wanted} is not allowed, the {layers} blocks have hidden states 0 to {last}, or -1 to {}",
                -last - 1
            )
        }
        let post_norm = self.post_norm.unwrap_or(layer == last);
        if self.pool && (layer != last || !post_norm) {
            bail!(
                "siglip: pool takes the last hidden state after the layer norm, so neither another layer nor post_norm: false"
            )
        }
        if self.pool && self.vision_use_head == Some(false) {
            bail!("siglip: pool is not possible, vision_use_head is false: the weights have no pooling head")
        }
        let activation = self.hidden_act.unwrap_or(Activation::GeluNew);
        if !ACTIVATIONS.contains(&activation) {
            bail!("siglip: hidden_act {activation:?} is not allowed, it is gelu_new, gelu, relu or silu")
        }
        let class = pixels(side);
        Ok(Sizes {
            image: ImageSpec {
                resize: self.resize.unwrap_or(class.resize),
                filter: self.filter.unwrap_or(class.filter),
                mean: self.mean.unwrap_or(class.mean),
                std: self.std.unwrap_or(class.std),
                ..class
            },
            patch,
            width,
            inner: need(self.intermediate_size, "intermediate_size")?,
            heads,
            layer: layer as usize,
            post_norm,
            pool: self.pool,
            activation,
            eps: self.layer_norm_eps.unwrap_or(1e-6),
            trained: trained / patch,
        })
    }
}
