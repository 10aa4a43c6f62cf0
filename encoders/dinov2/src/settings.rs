//! Settings of `dinov2`: explicit ones, then a preset's, then what `config.json`, `preprocessor_config.json` and the
//! tensors' shapes say.

use super::names::{Names, Shapes};
use super::{Dinov2, Give};
use anyhow::{Result, bail};
use limber_core::ops::Activation;
use limber_core::positions::Bicubic;
use limber_core::settings::fill;
use limber_core::spec::Augment;
use limber_core::vit::{VitClass, VitSizes};
use limber_core::weights::Init;
use limber_core::{
    Component, FeatureKind, ImageSpec, ModelConfig, ResizeFilter, ResizeRule, WeightSource, preprocessor, vit_settings,
};
use serde_json::json;

/// Hugging Face's name after `facebook/`, width, layers, heads. With registers, `-with-registers` stands in the middle.
const MODELS: [(&str, usize, usize, usize); 4] =
    [("small", 384, 12, 6), ("base", 768, 12, 12), ("large", 1024, 24, 16), ("giant", 1536, 40, 24)];

/// Transformers' `model_type`s.
const TYPES: [&str; 2] = ["dinov2", "dinov2_with_registers"];

/// The side that DINOv2's positions were trained at, its patches, and the pixels that it is evaluated with.
const TRAINED: usize = 518;
const PATCH: usize = 14;
const IMAGE: ImageSpec = ImageSpec {
    side: 224,
    resize: ResizeRule::ShorterSideCrop,
    resize_to: Some(256),
    filter: ResizeFilter::Bicubic,
    mean: [0.485, 0.456, 0.406],
    std: [0.229, 0.224, 0.225],
    augment: Augment::None,
};

vit_settings! {
    /// The settings, in transformers' names where it has them.
    flags: {
        /// The class token alone: N = 1.
        pool,
        /// The class token before the patches: N is one more.
        class_token,
    },
    own: {
        /// Width of the MLPs over E; 4.
        mlp_ratio: f64,
        /// Whether the MLPs are gated, as the giant's are.
        use_swiglu_ffn: bool,
        /// Whether queries, keys and values have biases; true.
        qkv_bias: bool,
        /// Register tokens; 0, or 4 in models with registers.
        num_register_tokens: usize,
        /// Whether positions are resized with antialiasing; in models with registers alone where it is not set.
        interpolate_antialias: bool,
        /// Added to the side where the scale of that resize is computed: 0 as transformers has it; Meta's own code has
        /// 0.1 for models without registers.
        interpolate_offset: f64,
        /// What the image is resized to before its centre is cut out; 256 for an S of 224, in that proportion for
        /// others.
        #[schemars(range(min = 1))]
        resize_to: usize,
        /// Deviation of random weights; 0.02.
        initializer_range: f32,
        /// What layer scale is where weights are random; 1.
        layerscale_value: f32,
    },
    shared: {
        model: "A preset: dinov2-small, -base, -large or -giant, or dinov2-with-registers-small, -base, -large or -giant.",
        image_size: "Image side S in pixels; positions are resized to its patches. By default 224.",
        trained_size: "The image side that the positions in the weights are for: `image_size` of config.json, 518 for Meta's weights.",
        layers: "Blocks L.",
        heads: "Heads H; E / 64 for weights without a config.json.",
        hidden_act: "Activation of the MLPs; gelu. SwiGLU has its own.",
        layer_norm_eps: "Epsilon of the layer norms; 1e-6.",
        layer: "The hidden state whose tokens are given: 0 enters the first block, L leaves the last, negative numbers count back\n\
            from L as -1; the last where it is not set.",
        post_norm: "Whether the tokens go through the layer norm that stands after the last block; where it is not set, those of the\n\
            last hidden state do (transformers' `last_hidden_state`), others do not (its `hidden_states`).",
        mean: "Mean a channel on the scale 0..1; by default ImageNet's.",
        std: "Standard deviation a channel on the scale 0..1; by default ImageNet's.",
        resize: "How the square is cut out of an image; by default shorter-side-crop.",
        filter: "The resampling filter; by default bicubic.",
    },
}

/// All sizes, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub vit: VitSizes,
    pub post_norm: bool,
    pub give: Give,
    mlp_ratio: f64,
    pub gated: bool,
    pub qkv_bias: bool,
    pub registers: usize,
    pub resampling: Bicubic,
    init_range: f32,
    pub layer_scale: f32,
}

impl Sizes {
    /// Visual tokens N.
    pub fn tokens(&self) -> usize {
        match self.give {
            Give::Class => 1,
            Give::Patches => self.vit.grid.pow(2),
            Give::ClassAndPatches => self.vit.grid.pow(2) + 1,
        }
    }

    pub fn kind(&self) -> FeatureKind {
        if self.give == Give::Class { FeatureKind::Pooled } else { FeatureKind::Patches }
    }

    /// Width of the MLP: SwiGLU keeps two thirds, rounded up to a multiple of 8.
    pub fn inner(&self) -> usize {
        let inner = (self.vit.width as f64 * self.mlp_ratio) as usize;
        if self.gated { ((inner as f64 * 2.0 / 3.0) as usize).div_ceil(8) * 8 } else { inner }
    }

    /// Of every matrix, the class token and the positions: PyTorch's `trunc_normal_` cuts at 2, not at two deviations.
    pub fn init(&self) -> Init {
        Init::TruncatedNormal { std: self.init_range, low: -2.0, high: 2.0 }
    }
}

impl Component for Dinov2 {
    type Config = Config;
    const KIND: &'static str = "dinov2";
    const ABOUT: &'static str = "DINOv2 (small, base, large, giant), with or without registers: patch tokens";

    fn tiny() -> Config {
        Config {
            image_size: Some(28),
            // Three positions a side for four patches, so that they are resized.
            trained_size: Some(21),
            use_swiglu_ffn: Some(true),
            num_register_tokens: Some(2),
            ..Config::sized([7, 16, 2, 2])
        }
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        // Without a `config.json` by tensors in Meta's names.
        match ModelConfig::read(source)?.as_ref().and_then(ModelConfig::model_type) {
            Some(kind) => Ok(TYPES.contains(&kind)),
            None => Ok(Names::shapes(source).is_some_and(|shapes| shapes.meta)),
        }
    }

    fn resolve(mut config: Config, source: &dyn WeightSource) -> Result<Config> {
        // Everything filled in and checked, the preset's name dropped, so that equal towers have equal settings.
        if let Some(model) = config.model.take() {
            config.fill_from_preset(&model)?;
        }
        if let Some(file) = ModelConfig::read(source)? {
            config.fill_from_config(&file)?;
        }
        if let Some(shapes) = Names::shapes(source) {
            config.fill_from_shapes(&shapes);
        }
        config.fill_image(source)?;
        if config.hidden_size.is_none() || config.num_hidden_layers.is_none() || config.num_attention_heads.is_none() {
            bail!(
                "dinov2: no model is set and the sizes cannot be read off {}; set model ({}) or hidden_size, num_hidden_layers and num_attention_heads",
                source.label(),
                models().join(", ")
            )
        }
        config.patch_size.get_or_insert(PATCH);
        config.trained_size.get_or_insert(TRAINED);
        config.mlp_ratio.get_or_insert(4.0);
        let gated = *config.use_swiglu_ffn.get_or_insert(false);
        config.hidden_act.get_or_insert(if gated { Activation::Silu } else { Activation::Gelu });
        config.qkv_bias.get_or_insert(true);
        config.layer_norm_eps.get_or_insert(1e-6);
        let registers = *config.num_register_tokens.get_or_insert(0);
        config.interpolate_antialias.get_or_insert(registers > 0);
        config.interpolate_offset.get_or_insert(0.0);
        config.initializer_range.get_or_insert(0.02);
        config.layerscale_value.get_or_insert(1.0);
        let sizes = config.sizes()?;
        config.layer = Some(sizes.vit.layer as i64);
        config.post_norm = Some(sizes.post_norm);
        Ok(config)
    }
}

impl Config {
    fn fill_from_preset(&mut self, model: &str) -> Result<()> {
        let name = model.strip_prefix("facebook/").unwrap_or(model);
        let (size, registers) = match name.strip_prefix("dinov2-with-registers-") {
            Some(size) => (size, 4),
            None => (name.strip_prefix("dinov2-").unwrap_or_default(), 0),
        };
        let Some((_, width, layers, heads)) = MODELS.iter().find(|m| m.0 == size) else {
            bail!("unknown dinov2 model {model:?}; known models: {}", models().join(", "))
        };
        self.hidden_size.get_or_insert(*width);
        self.num_hidden_layers.get_or_insert(*layers);
        self.num_attention_heads.get_or_insert(*heads);
        self.use_swiglu_ffn.get_or_insert(size == "giant");
        self.num_register_tokens.get_or_insert(registers);
        Ok(())
    }

    /// What `config.json` says, with the defaults of transformers' `Dinov2Config` and `Dinov2WithRegistersConfig`.
    fn fill_from_config(&mut self, config: &ModelConfig) -> Result<()> {
        let component = "the encoder dinov2";
        config.expect_type(component, &TYPES)?;
        config.expect("num_channels", &[json!(3)])?;
        config.refuse(component, &["quantization_config", "head_dim"])?;
        let registers = config.model_type() == Some("dinov2_with_registers");
        if !registers {
            config.refuse("a model of type dinov2", &["num_register_tokens"])?;
        }
        fill(&mut self.hidden_size, config.size("hidden_size")?, 768);
        fill(&mut self.num_hidden_layers, config.size("num_hidden_layers")?, 12);
        fill(&mut self.num_attention_heads, config.size("num_attention_heads")?, 12);
        fill(&mut self.mlp_ratio, config.number("mlp_ratio")?, 4.0);
        fill(&mut self.use_swiglu_ffn, config.flag("use_swiglu_ffn")?, false);
        fill(&mut self.qkv_bias, config.flag("qkv_bias")?, true);
        fill(&mut self.layer_norm_eps, config.number("layer_norm_eps")?, 1e-6);
        fill(&mut self.trained_size, config.size("image_size")?, 224);
        fill(&mut self.patch_size, config.size("patch_size")?, if registers { 16 } else { 14 });
        fill(&mut self.num_register_tokens, config.size("num_register_tokens")?, if registers { 4 } else { 0 });
        fill(&mut self.interpolate_antialias, None, registers);
        fill(&mut self.initializer_range, config.number("initializer_range")?.map(|x| x as f32), 0.02);
        fill(&mut self.layerscale_value, config.number("layerscale_value")?.map(|x| x as f32), 1.0);
        if let Some(name) = config.text("hidden_act")?
            && self.use_swiglu_ffn == Some(false)
        {
            let named = Activation::named(&name);
            let known =
                named.ok_or_else(|| config.refusal("hidden_act", format!("supported is {}", Activation::NAMES)))?;
            self.hidden_act.get_or_insert(known);
        }
        Ok(())
    }

    /// What the tensors' shapes say, for weights without a `config.json`; all of Meta's models have heads of 64.
    fn fill_from_shapes(&mut self, shapes: &Shapes) {
        let width = *self.hidden_size.get_or_insert(shapes.width);
        self.num_hidden_layers.get_or_insert(shapes.layers);
        if width.is_multiple_of(64) {
            self.num_attention_heads.get_or_insert(width / 64);
        }
        let patch = *self.patch_size.get_or_insert(shapes.patch);
        self.trained_size.get_or_insert(shapes.trained * patch);
        self.use_swiglu_ffn.get_or_insert(shapes.gated);
        self.qkv_bias.get_or_insert(shapes.qkv_bias);
        self.num_register_tokens.get_or_insert(shapes.registers);
    }

    /// What the image becomes: `preprocessor_config.json` of transformers' `BitImageProcessor`, else DINOv2's own.
    fn fill_image(&mut self, source: &dyn WeightSource) -> Result<()> {
        let image = preprocessor::read(source, ImageSpec::clip(224))?.unwrap_or(IMAGE);
        let side = *self.image_size.get_or_insert(image.side);
        let resize = self.resize.unwrap_or(image.resize);
        if self.resize_to.is_none() && image.resize_to.is_some() && resize == image.resize {
            // Another side sees as much of the image.
            let ratio = image.resized() as f64 / image.side.max(1) as f64;
            self.resize_to = Some((side as f64 * ratio).round() as usize);
        }
        self.resize_to = self.resize_to.filter(|resized| *resized != side);
        self.fill_pixels(&image);
        Ok(())
    }

    /// The sizes of resolved settings.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let gated = self.use_swiglu_ffn.unwrap_or(false);
        let activation = if gated { Activation::Silu } else { Activation::Gelu };
        let mut vit = self.vit().sizes("dinov2", VitClass { image: IMAGE, activation, eps: 1e-6 })?;
        let give = match (self.pool, self.class_token) {
            (false, false) => Give::Patches,
            (true, false) => Give::Class,
            (false, true) => Give::ClassAndPatches,
            (true, true) => bail!("dinov2: pool and class_token exclude each other, set one of them"),
        };
        vit.image.resize_to = self.resize_to;
        let (side, resized) = (vit.image.side, vit.image.resized());
        if resized < side {
            bail!("dinov2: resize_to {resized} is not allowed, it is at least image_size {side}")
        }
        let mlp_ratio = self.mlp_ratio.unwrap_or(4.0);
        if !(mlp_ratio * vit.width as f64 >= 1.0 && mlp_ratio < 1e3) {
            bail!("dinov2: mlp_ratio {mlp_ratio} is not allowed, it is above 0")
        }
        let offset = self.interpolate_offset.unwrap_or(0.0);
        if !(0.0..1.0).contains(&offset) {
            bail!("dinov2: interpolate_offset {offset} is not allowed, it is 0 or more and less than 1")
        }
        if gated && vit.activation != Activation::Silu {
            bail!("dinov2: hidden_act cannot be set where use_swiglu_ffn is true, SwiGLU's is silu")
        }
        Ok(Sizes {
            post_norm: self.post_norm.unwrap_or(vit.layer == vit.layers),
            vit,
            give,
            mlp_ratio,
            gated,
            qkv_bias: self.qkv_bias.unwrap_or(true),
            registers: self.num_register_tokens.unwrap_or(0),
            resampling: Bicubic { antialias: self.interpolate_antialias.unwrap_or(false), offset },
            init_range: self.initializer_range.unwrap_or(0.02),
            layer_scale: self.layerscale_value.unwrap_or(1.0),
        })
    }
}

/// The names of the presets.
fn models() -> Vec<String> {
    let named = |infix: &'static str| MODELS.iter().map(move |m| format!("dinov2{infix}-{}", m.0));
    named("").chain(named("-with-registers")).collect()
}
