//! Settings of `beit`: explicit ones, then what `config.json` and `preprocessor_config.json` say, then a preset's.

use super::Beit;
use anyhow::{Result, bail};
use limber_core::ops::Activation;
use limber_core::settings::{self, size};
use limber_core::vit::{VitClass, VitSizes};
use limber_core::{
    Component, ImageSpec, ModelConfig, ResizeFilter, WeightSource, model_config, preprocessor, vit_settings,
};
use serde_json::{Value, json};

/// One of Microsoft's models on the hub.
struct Preset {
    name: &'static str,
    large: bool,
    image_size: usize,
    /// Whether all layers share their position bias; the self-supervised models do.
    shared: bool,
}

const PRESETS: [Preset; 9] = [
    preset("beit-base-patch16-224-pt22k", false, 224, true),
    preset("beit-base-patch16-224-pt22k-ft22k", false, 224, false),
    preset("beit-base-patch16-224", false, 224, false),
    preset("beit-base-patch16-384", false, 384, false),
    preset("beit-large-patch16-224-pt22k", true, 224, true),
    preset("beit-large-patch16-224-pt22k-ft22k", true, 224, false),
    preset("beit-large-patch16-224", true, 224, false),
    preset("beit-large-patch16-384", true, 384, false),
    preset("beit-large-patch16-512", true, 512, false),
];

const fn preset(name: &'static str, large: bool, image_size: usize, shared: bool) -> Preset {
    Preset { name, large, image_size, shared }
}

vit_settings! {
    /// The settings, in transformers' names where it has them.
    flags: {
    },
    own: {
        /// Width of the MLP.
        #[schemars(range(min = 1))]
        intermediate_size: usize,
        /// Whether a position's embedding is added to each token.
        use_absolute_position_embeddings: bool,
        /// Whether each layer has its own bias by the distance of two patches.
        use_relative_position_bias: bool,
        /// Whether all layers share such a bias.
        use_shared_relative_position_bias: bool,
        /// What layer scale starts from; a model of 0 has none.
        layer_scale_init_value: f32,
        /// Whether the last layer norm belongs to the pooled vector, so that the patches go without.
        use_mean_pooling: bool,
        /// Deviation of random weights.
        initializer_range: f32,
        /// What the image is resized to before the centre of side S is cut out, S or more; S where it is not set.
        #[schemars(range(min = 1))]
        resize_to: usize,
    },
    shared: {
        model: "A preset, one of Microsoft's names: beit-{base,large}-patch16-224-pt22k, the same with -ft22k, and\n\
            beit-{base,large}-patch16-{224,384}, beit-large-patch16-512.",
        image_size: "Image side S in pixels. Where it is not what the position tables are for, they are resized.",
        trained_size: "The image side that the position tables are for: `image_size` of config.json.",
        layers: "Layers L.",
        heads: "Heads H.",
        hidden_act: "Activation of the MLP.",
        layer_norm_eps: "Epsilon of the layer norms.",
        layer: "The hidden state whose patches are given: 0 enters the first layer, L leaves the last, negative numbers count\n\
            back from L as -1; the last where it is not set.",
        post_norm: "Whether the patches go through the layer norm after the last layer; where it is not set, those of the last\n\
            hidden state do unless use_mean_pooling (transformers' `last_hidden_state`), others do not.",
        mean: "Mean a channel on the scale 0..1; preprocessor_config.json's, else 0.5.",
        std: "Standard deviation a channel on the scale 0..1; preprocessor_config.json's, else 0.5.",
        resize: "How an image becomes a square; preprocessor_config.json's, else both sides are resized.",
        filter: "The resampling filter; preprocessor_config.json's, else bilinear for a preset and bicubic for another model.",
    },
}

/// What the model is built from.
pub(super) struct Sizes {
    pub(super) vit: VitSizes,
    pub(super) inner: usize,
    pub(super) absolute: bool,
    pub(super) relative: bool,
    pub(super) shared: bool,
    pub(super) layer_scale: Option<f32>,
    /// Whether the last layer norm is applied.
    pub(super) norm: bool,
    pub(super) init_std: f32,
}

/// transformers' `BeitImageProcessor` where its file leaves a key out.
const PROCESSOR: ImageSpec = ImageSpec::squashed(224);

/// `BeitConfig`'s own.
const CLASS: VitClass = VitClass { image: PROCESSOR, activation: Activation::Gelu, eps: 1e-12 };

impl Component for Beit {
    type Config = Config;
    const KIND: &'static str = "beit";
    const ABOUT: &'static str = "BEiT of any size: relative position bias per layer or shared, class token dropped";

    fn tiny() -> Config {
        Config {
            image_size: Some(20),
            intermediate_size: Some(24),
            use_absolute_position_embeddings: Some(true),
            use_relative_position_bias: Some(true),
            use_mean_pooling: Some(false),
            ..Config::sized([6, 16, 2, 2])
        }
    }

    fn recognises(source: &dyn WeightSource) -> Result<bool> {
        model_config::recognises(source, &["beit"])
    }

    fn resolve(mut config: Config, source: &dyn WeightSource) -> Result<Config> {
        // All sizes filled in, the preset's name dropped, so that equal models have equal settings.
        let preset = config.model.take().map(|model| Preset::named(&model)).transpose()?;
        let file = ModelConfig::read(source)?;
        if let (Some(file), Some(preset)) = (&file, preset)
            && side(file, "image_size")?.is_some_and(|side| side != preset.image_size)
        {
            let named = format!("but {} in the model {:?}", preset.image_size, preset.name);
            return Err(file.refusal("image_size", named));
        }
        if config.hidden_size.is_none() && file.is_none() && preset.is_none() {
            bail!(
                "beit: no model is set and no config.json lies in {}; set model ({}), or hidden_size and the other sizes",
                source.label(),
                names()
            )
        }
        let found = file.as_ref().map(Config::of_file).transpose()?;
        let found = file.as_ref().map(ModelConfig::location).zip(found.as_ref());
        let named = preset.map(Preset::config);
        let named = preset.map(|preset| preset.name).zip(named.as_ref());
        let mut resolved = settings::layered(&config, named, found, &[])?;
        resolved.fill_image(preprocessor::read(source, PROCESSOR)?, preset);
        resolved.fill_defaults();
        resolved.sizes()?;
        Ok(resolved)
    }
}

impl Config {
    /// What `config.json` says, in transformers' `BeitConfig` names; what this encoder cannot do is refused by name.
    fn of_file(file: &ModelConfig) -> Result<Self> {
        let component = "the encoder beit";
        file.expect_type(component, &["beit"])?;
        file.expect("num_channels", &[json!(3)])?;
        file.refuse(component, &["quantization_config", "adapters"])?;
        let activation = |name: String| {
            let unknown = || file.refusal("hidden_act", format!("supported is {}", Activation::NAMES));
            Activation::named(&name).ok_or_else(unknown)
        };
        let number = |key: &str| file.number(key).map(|found| found.map(|x| x as f32));
        let mut config = Self {
            trained_size: side(file, "image_size")?,
            patch_size: side(file, "patch_size")?,
            hidden_size: file.size("hidden_size")?,
            num_hidden_layers: file.size("num_hidden_layers")?,
            num_attention_heads: file.size("num_attention_heads")?,
            intermediate_size: file.size("intermediate_size")?,
            hidden_act: file.text("hidden_act")?.map(activation).transpose()?,
            layer_norm_eps: file.number("layer_norm_eps")?,
            use_absolute_position_embeddings: file.flag("use_absolute_position_embeddings")?,
            use_relative_position_bias: file.flag("use_relative_position_bias")?,
            use_shared_relative_position_bias: file.flag("use_shared_relative_position_bias")?,
            layer_scale_init_value: number("layer_scale_init_value")?,
            use_mean_pooling: file.flag("use_mean_pooling")?,
            initializer_range: number("initializer_range")?,
            ..Self::default()
        };
        config.trained_size.get_or_insert(PROCESSOR.side);
        config.fill_defaults();
        if let (Some(dim), Some(width), Some(heads)) =
            (file.size("head_dim")?, config.hidden_size, config.num_attention_heads)
            && dim * heads != width
        {
            let allowed = format!("supported is hidden_size / num_attention_heads, {width} / {heads}");
            return Err(file.refusal("head_dim", allowed));
        }
        Ok(config)
    }

    /// The pixels: of `preprocessor_config.json`, else of the image size that the model was trained at.
    fn fill_image(&mut self, file: Option<ImageSpec>, preset: Option<&Preset>) {
        let mut class = PROCESSOR;
        if preset.is_some() {
            // All of Microsoft's files say 2.
            class.filter = ResizeFilter::Bilinear;
        }
        let image = file.unwrap_or(class);
        if self.image_size.is_none_or(|side| side == image.side) {
            self.resize_to = self.resize_to.or(image.resize_to);
        }
        let trained = *self.trained_size.get_or_insert(self.image_size.unwrap_or(224));
        self.image_size.get_or_insert(file.map_or(trained, |image| image.side));
        self.fill_pixels(&image);
    }

    /// `BeitConfig`'s own.
    fn fill_defaults(&mut self) {
        self.patch_size.get_or_insert(16);
        self.hidden_size.get_or_insert(768);
        self.num_hidden_layers.get_or_insert(12);
        self.num_attention_heads.get_or_insert(12);
        self.intermediate_size.get_or_insert(3072);
        self.hidden_act.get_or_insert(CLASS.activation);
        self.layer_norm_eps.get_or_insert(CLASS.eps);
        self.use_absolute_position_embeddings.get_or_insert(false);
        self.use_relative_position_bias.get_or_insert(false);
        self.use_shared_relative_position_bias.get_or_insert(false);
        self.layer_scale_init_value.get_or_insert(0.1);
        self.use_mean_pooling.get_or_insert(true);
        self.initializer_range.get_or_insert(0.02);
    }

    /// The sizes of resolved settings.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let mut vit = self.vit().sizes("beit", CLASS)?;
        vit.image.resize_to = self.resize_to;
        if vit.image.resized() < vit.image.side {
            bail!("beit: resize_to {} is less than image_size {}", vit.image.resized(), vit.image.side)
        }
        let scale = self.layer_scale_init_value.unwrap_or(0.1);
        // transformers takes a deviation of 0 for one that is not set.
        let init_std = self.initializer_range.filter(|std| *std != 0.0).unwrap_or(0.02);
        if init_std.is_nan() || init_std < 0.0 {
            bail!("beit: initializer_range {init_std} is not allowed, it is 0 or above")
        }
        if !vit.image.std.iter().all(|std| *std > 0.0) {
            bail!("beit: std {:?} is not allowed, each is above 0", vit.image.std)
        }
        Ok(Sizes {
            vit,
            inner: size("beit", "intermediate_size", self.intermediate_size)?,
            absolute: self.use_absolute_position_embeddings.unwrap_or(false),
            relative: self.use_relative_position_bias.unwrap_or(false),
            shared: self.use_shared_relative_position_bias.unwrap_or(false),
            layer_scale: (scale > 0.0).then_some(scale),
            norm: self.post_norm.unwrap_or(self.layer.is_none() && !self.use_mean_pooling.unwrap_or(true)),
            init_std,
        })
    }
}

impl Preset {
    fn named(model: &str) -> Result<&'static Self> {
        let name = model.strip_prefix("microsoft/").unwrap_or(model);
        match PRESETS.iter().find(|preset| preset.name.eq_ignore_ascii_case(name)) {
            Some(preset) => Ok(preset),
            None => bail!("unknown beit model {model:?}; known models: {}", names()),
        }
    }

    /// What its name stands for.
    fn config(&self) -> Config {
        let (width, layers, heads) = if self.large { (1024, 24, 16) } else { (768, 12, 12) };
        Config {
            trained_size: Some(self.image_size),
            intermediate_size: Some(4 * width),
            use_relative_position_bias: Some(!self.shared),
            use_shared_relative_position_bias: Some(self.shared),
            ..Config::sized([16, width, layers, heads])
        }
    }
}

fn names() -> String {
    PRESETS.map(|preset| preset.name).join(", ")
}

/// A side in pixels, which may stand as equal height and width.
fn side(file: &ModelConfig, key: &str) -> Result<Option<usize>> {
    match file.value(key).and_then(Value::as_array).map(Vec::as_slice) {
        Some([height, width]) if height == width => match height.as_u64() {
            Some(side) => Ok(Some(side as usize)),
            None => file.size(key),
        },
        Some(_) => Err(file.refusal(key, "supported is one number, or an equal height and width")),
        None => file.size(key),
    }
}
