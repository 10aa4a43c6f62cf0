//! Settings of `beit`: explicit ones, then what `config.json` and `preprocessor_config.json` say, then a preset's.

use anyhow::{Result, bail};
use limber_core::ops::Activation;
use limber_core::spec::Augment;
use limber_core::{ImageSpec, ModelConfig, ResizeFilter, ResizeRule, WeightSource, preprocessor, settings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
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

/// The settings, in transformers' names where it has them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A preset, one of Microsoft's names: beit-{base,large}-patch16-224-pt22k, the same with -ft22k, and
    /// beit-{base,large}-patch16-{224,384}, beit-large-patch16-512.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Image side S in pixels. Where it is not what the position tables are for, they are resized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// The image side that the position tables are for: `image_size` of config.json.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_size: Option<usize>,
    /// Side of a patch in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_size: Option<usize>,
    /// Encoder width E.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_size: Option<usize>,
    /// Layers L.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_hidden_layers: Option<usize>,
    /// Heads H.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_attention_heads: Option<usize>,
    /// Width of the MLP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intermediate_size: Option<usize>,
    /// Activation of the MLP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_act: Option<Activation>,
    /// Epsilon of the layer norms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_norm_eps: Option<f64>,
    /// Whether a position's embedding is added to each token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_absolute_position_embeddings: Option<bool>,
    /// Whether each layer has its own bias by the distance of two patches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_relative_position_bias: Option<bool>,
    /// Whether all layers share such a bias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_shared_relative_position_bias: Option<bool>,
    /// What layer scale starts from; a model of 0 has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_scale_init_value: Option<f32>,
    /// Whether the last layer norm belongs to the pooled vector, so that the patches go without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_mean_pooling: Option<bool>,
    /// Deviation of random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initializer_range: Option<f32>,
    /// The hidden state whose patches are given: 0 enters the first layer, L leaves the last, negative numbers count
    /// back from L as -1; the last where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<i64>,
    /// Whether the patches go through the layer norm after the last layer; where it is not set, those of the last
    /// hidden state do unless use_mean_pooling (transformers' `last_hidden_state`), others do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_norm: Option<bool>,
    /// How an image becomes a square; preprocessor_config.json's, else both sides are resized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<ResizeRule>,
    /// What the image is resized to before the centre of side S is cut out, S or more; S where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize_to: Option<usize>,
    /// The resampling filter; preprocessor_config.json's, else bilinear for a preset and bicubic for another model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<ResizeFilter>,
    /// Mean a channel on the scale 0..1; preprocessor_config.json's, else 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<[f32; 3]>,
    /// Standard deviation a channel on the scale 0..1; preprocessor_config.json's, else 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<[f32; 3]>,
}

/// What the model is built from.
pub(super) struct Sizes {
    pub(super) image: ImageSpec,
    pub(super) patch: usize,
    /// Patches along a side of the image, and of the image that the tables are for.
    pub(super) grid: usize,
    pub(super) trained_grid: usize,
    pub(super) width: usize,
    pub(super) heads: usize,
    pub(super) inner: usize,
    /// Layers that run.
    pub(super) blocks: usize,
    pub(super) activation: Activation,
    pub(super) eps: f64,
    pub(super) absolute: bool,
    pub(super) relative: bool,
    pub(super) shared: bool,
    pub(super) layer_scale: Option<f32>,
    /// Whether the last layer norm is applied.
    pub(super) norm: bool,
    pub(super) init_std: f32,
}

/// transformers' `BeitImageProcessor` where its file leaves a key out.
const PROCESSOR: ImageSpec = ImageSpec {
    side: 224,
    resize: ResizeRule::Squash,
    resize_to: None,
    filter: ResizeFilter::Bicubic,
    mean: [0.5; 3],
    std: [0.5; 3],
    augment: Augment::None,
};

impl Config {
    /// All sizes filled in, the preset's name dropped, so that equal models have equal settings.
    pub(super) fn resolve(mut self, source: &dyn WeightSource) -> Result<Self> {
        let preset = self.model.take().map(|model| Preset::named(&model)).transpose()?;
        let file = ModelConfig::read(source)?;
        if let (Some(file), Some(preset)) = (&file, preset)
            && side(file, "image_size")?.is_some_and(|side| side != preset.image_size)
        {
            let named = format!("but {} in the model {:?}", preset.image_size, preset.name);
            return Err(file.refusal("image_size", named));
        }
        if self.hidden_size.is_none() && file.is_none() && preset.is_none() {
            bail!(
                "beit: no model is set and no config.json lies in {}; set model ({}), or hidden_size and the other sizes",
                source.label(),
                names()
            )
        }
        let found = file.as_ref().map(Self::of_file).transpose()?;
        let found = file.as_ref().map(ModelConfig::location).zip(found.as_ref());
        let named = preset.map(Preset::config);
        let named = preset.map(|preset| preset.name).zip(named.as_ref());
        let mut resolved = settings::layered(&self, named, found, &[])?;
        resolved.fill_image(preprocessor::read(source, PROCESSOR)?, preset);
        resolved.fill_defaults();
        resolved.sizes()?;
        Ok(resolved)
    }

    /// What `config.json` says, in transformers' `BeitConfig` names; what this encoder cannot do is refused by name.
    fn of_file(file: &ModelConfig) -> Result<Self> {
        let part = "the encoder beit";
        file.expect_type(part, &["beit"])?;
        file.expect("num_channels", &[json!(3)])?;
        file.refuse(part, &["quantization_config", "adapters"])?;
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
        self.resize.get_or_insert(image.resize);
        self.filter.get_or_insert(image.filter);
        self.mean.get_or_insert(image.mean);
        self.std.get_or_insert(image.std);
    }

    /// `BeitConfig`'s own.
    fn fill_defaults(&mut self) {
        self.patch_size.get_or_insert(16);
        self.hidden_size.get_or_insert(768);
        self.num_hidden_layers.get_or_insert(12);
        self.num_attention_heads.get_or_insert(12);
        self.intermediate_size.get_or_insert(3072);
        self.hidden_act.get_or_insert(Activation::Gelu);
        self.layer_norm_eps.get_or_insert(1e-12);
        self.use_absolute_position_embeddings.get_or_insert(false);
        self.use_relative_position_bias.get_or_insert(false);
        self.use_shared_relative_position_bias.get_or_insert(false);
        self.layer_scale_init_value.get_or_insert(0.1);
        self.use_mean_pooling.get_or_insert(true);
        self.initializer_range.get_or_insert(0.02);
    }

    /// The sizes of resolved settings.
    pub(super) fn sizes(&self) -> Result<Sizes> {
        let need = |value: Option<usize>, key: &str| match value {
            Some(0) => bail!("beit: {key} is 0, expected at least 1"),
            Some(n) => Ok(n),
            None => bail!("beit: {key} is not set"),
        };
        let (width, heads) =
            (need(self.hidden_size, "hidden_size")?, need(self.num_attention_heads, "num_attention_heads")?);
        if width % heads != 0 {
            bail!("beit: hidden_size {width} is not a multiple of num_attention_heads {heads}")
        }
        let patch = need(self.patch_size, "patch_size")?;
        let grid = |value: Option<usize>, key: &str| match need(value, key)? {
            side if side < patch => bail!("beit: {key} {side} is less than patch_size {patch}"),
            side => Ok(side / patch),
        };
        let (grid, trained_grid) = (grid(self.image_size, "image_size")?, grid(self.trained_size, "trained_size")?);
        let side = self.image_size.unwrap_or(PROCESSOR.side);
        if let Some(to) = self.resize_to
            && to < side
        {
            bail!("beit: resize_to {to} is less than image_size {side}")
        }
        let layers = need(self.num_hidden_layers, "num_hidden_layers")?;
        let blocks = match self.layer {
            None => layers,
            Some(at) => match at.checked_add(if at < 0 { layers as i64 + 1 } else { 0 }) {
                Some(index) if (0..=layers as i64).contains(&index) => index as usize,
                _ => bail!(
                    "beit: layer {at} is not allowed, the hidden states are 0 to {layers} or -{} to -1",
                    layers + 1
                ),
            },
        };
        let scale = self.layer_scale_init_value.unwrap_or(0.1);
        // transformers takes a deviation of 0 for one that is not set.
        let init_std = self.initializer_range.filter(|std| *std != 0.0).unwrap_or(0.02);
        if init_std.is_nan() || init_std < 0.0 {
            bail!("beit: initializer_range {init_std} is not allowed, it is 0 or above")
        }
        let image = ImageSpec {
            side,
            resize: self.resize.unwrap_or(PROCESSOR.resize),
            resize_to: self.resize_to,
            filter: self.filter.unwrap_or(PROCESSOR.filter),
            mean: self.mean.unwrap_or(PROCESSOR.mean),
            std: self.std.unwrap_or(PROCESSOR.std),
            augment: Augment::None,
        };
        if !image.std.iter().all(|std| *std > 0.0) {
            bail!("beit: std {:?} is not allowed, each is above 0", image.std)
        }
        Ok(Sizes {
            image,
            patch,
            grid,
            trained_grid,
            width,
            heads,
            inner: need(self.intermediate_size, "intermediate_size")?,
            blocks,
            activation: self.hidden_act.unwrap_or(Activation::Gelu),
            eps: self.layer_norm_eps.unwrap_or(1e-12),
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
            patch_size: Some(16),
            hidden_size: Some(width),
            num_hidden_layers: Some(layers),
            num_attention_heads: Some(heads),
            intermediate_size: Some(4 * width),
            use_relative_position_bias: Some(!self.shared),
            use_shared_relative_position_bias: Some(self.shared),
            ..Config::default()
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
