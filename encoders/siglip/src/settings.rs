//! Settings of `siglip`: explicit ones, then a preset's, then what `config.json` and `preprocessor_config.json` say.

use super::Siglip;
use super::presets::{BASE, PRESETS};
use anyhow::{Result, bail};
use candle_transformers::models::siglip::VisionConfig;
use limber_core::ops::Activation;
use limber_core::settings::{fill, size};
use limber_core::vit::{VitClass, VitSizes};
use limber_core::{Component, ImageSpec, ModelConfig, WeightSource, model_config, preprocessor, vit_settings};
use serde_json::json;

/// Transformers' `model_type`s. `siglip2` is NaFlex, which takes images of any aspect ratio.
const TYPES: [&str; 2] = ["siglip", "siglip_vision_model"];

/// What candle-transformers computes as transformers does.
const ACTIVATIONS: [Activation; 4] = [Activation::GeluNew, Activation::Gelu, Activation::Relu, Activation::Silu];

vit_settings! {
    /// The settings, in transformers' names where it has them.
    flags: {
        /// The one vector of the attention-pooling head: N = 1.
        pool,
    },
    own: {
        /// Width of the MLPs.
        #[schemars(range(min = 1))]
        intermediate_size: usize,
        /// Whether the weights have an attention-pooling head; true.
        vision_use_head: bool,
    },
    shared: {
        model: "A preset, one of Google's names: siglip-base-patch16-{224,256,384,512}, siglip-large-patch16-{256,384},\n\
            siglip-so400m-patch14-{224,384}, siglip2-base-patch16-224 and so on.",
        image_size: "Image side S in pixels. Where it is not what the positions are for, they are resized.",
        trained_size: "The image side that the positions in the weights are for: `image_size` of config.json.",
        layers: "Blocks L.",
        heads: "Heads H.",
        hidden_act: "Activation of the MLPs: gelu_new (transformers' gelu_pytorch_tanh), gelu, relu or silu.",
        layer_norm_eps: "Epsilon of the layer norms; 1e-6.",
        layer: "The hidden state whose tokens are given: 0 enters the first block, L leaves the last, negative numbers count back\n\
            from L as -1; the last where it is not set.",
        post_norm: "Whether the tokens go through the layer norm that stands after the last block; where it is not set, those of the\n\
            last hidden state do (transformers' `last_hidden_state`), others do not (its `hidden_states`).",
        mean: "Mean a channel on the scale 0..1; by default 0.5.",
        std: "Standard deviation a channel on the scale 0..1; by default 0.5.",
        resize: "How the square is cut out of an image; by default squash.",
        filter: "The resampling filter; by default bicubic.",
    },
}

/// All sizes, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub vit: VitSizes,
    pub inner: usize,
    pub post_norm: bool,
    pub pool: bool,
}

impl Sizes {
    /// The tower as candle-transformers describes it, up to the hidden state that is given.
    pub fn candle(&self) -> VisionConfig {
        let sizes = &self.vit;
        VisionConfig {
            hidden_size: sizes.width,
            intermediate_size: self.inner,
            num_hidden_layers: sizes.layer,
            num_attention_heads: sizes.heads.queries,
            num_channels: 3,
            image_size: sizes.image.side,
            patch_size: sizes.patch,
            hidden_act: match sizes.activation {
                Activation::Gelu => candle_nn::Activation::Gelu,
                Activation::Relu => candle_nn::Activation::Relu,
                Activation::Silu => candle_nn::Activation::Silu,
                _ => candle_nn::Activation::GeluPytorchTanh,
            },
            layer_norm_eps: sizes.eps,
        }
    }
}

impl Component for Siglip {
    type Config = Config;
    const KIND: &'static str = "siglip";
    const ABOUT: &'static str = "SigLIP and fixed-resolution SigLIP 2 vision towers: patch tokens, or pooled";

    fn tiny() -> Config {
        Config {
            // Half a patch is left over, as 6 pixels are in so400m-patch14-384.
            image_size: Some(28),
            trained_size: Some(16),
            intermediate_size: Some(24),
            ..Config::sized([8, 16, 2, 2])
        }
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        model_config::recognises(source, &TYPES)
    }

    fn resolve(mut config: Config, source: &dyn WeightSource) -> Result<Config> {
        // Everything filled in and checked, the preset's name dropped, so that equal towers have equal settings.
        if let Some(model) = config.model.take() {
            config.fill_from_preset(&model)?;
        }
        if let Some(file) = ModelConfig::read(source)? {
            config.fill_from_config(&file)?;
        }
        let sized =
            [config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.num_attention_heads];
        if sized.contains(&None) {
            let known: Vec<&str> = PRESETS.iter().map(|p| p.0).collect();
            bail!(
                "siglip: no model is set and there is no config.json beside {}; set model ({}) or hidden_size, intermediate_size, num_hidden_layers and num_attention_heads",
                source.label(),
                known.join(", ")
            )
        }
        config.patch_size.get_or_insert(16);
        let trained = *config.trained_size.get_or_insert(config.image_size.unwrap_or(224));
        let image = preprocessor::read(source, ImageSpec::squashed(trained))?.unwrap_or(ImageSpec::squashed(trained));
        if let Some(resized) = image.resize_to {
            bail!(
                "{}: preprocessor_config.json: cuts {} out of {resized}, siglip takes the whole image",
                source.label(),
                image.side
            )
        }
        config.image_size.get_or_insert(image.side);
        config.fill_pixels(&image);
        config.hidden_act.get_or_insert(Activation::GeluNew);
        config.layer_norm_eps.get_or_insert(1e-6);
        config.vision_use_head.get_or_insert(true);
        let sizes = config.sizes()?;
        config.layer = Some(sizes.vit.layer as i64);
        config.post_norm = Some(sizes.post_norm);
        Ok(config)
    }
}

impl Config {
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
        let component = "the encoder siglip";
        if config.model_type() == Some("siglip2") {
            return Err(config.refusal(
                "model_type",
                "which is NaFlex, of images of any aspect ratio; the encoder siglip takes \"siglip\" and \"siglip_vision_model\", among them SigLIP 2 at a fixed resolution",
            ));
        }
        config.expect_type(component, &TYPES)?;
        config.refuse(component, &["quantization_config"])?;
        let vision = config.section("vision_config").unwrap_or_else(|| config.clone());
        vision.expect_type(component, &TYPES)?;
        vision.expect("num_channels", &[json!(3)])?;
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
        let class = VitClass { image: ImageSpec::squashed(224), activation: Activation::GeluNew, eps: 1e-6 };
        let vit = self.vit().sizes("siglip", class)?;
        let last = vit.layer == vit.layers;
        let post_norm = self.post_norm.unwrap_or(last);
        if self.pool && !(last && post_norm) {
            bail!(
                "siglip: pool takes the last hidden state after the layer norm, so neither another layer nor post_norm: false"
            )
        }
        if self.pool && self.vision_use_head == Some(false) {
            bail!("siglip: pool is not possible, vision_use_head is false: the weights have no pooling head")
        }
        if !ACTIVATIONS.contains(&vit.activation) {
            bail!("siglip: hidden_act {:?} is not allowed, it is gelu_new, gelu, relu or silu", vit.activation)
        }
        let inner = size("siglip", "intermediate_size", self.intermediate_size)?;
        Ok(Sizes { vit, inner, post_norm, pool: self.pool })
    }
}
