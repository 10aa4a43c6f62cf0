//! What lies beside the weights: `open_clip_config.json` for OpenAI's names, `config.json` for Hugging Face's.
//!
//! Sources followed: open_clip's `CLIPVisionCfg` and `factory.py`, transformers' `CLIPConfig`, with their defaults.
//! What changes the tower's arithmetic and is not supported is refused by the name of its key.

use super::names::{Library, Names};
use super::settings::{Config, Found};
use anyhow::Result;
use limber_core::ops::Activation;
use limber_core::{ImageSpec, ModelConfig, ResizeFilter, ResizeRule, WeightSource, model_config, preprocessor};
use serde_json::{Value, json};

const PART: &str = "clip-vit";
const TYPES: [&str; 2] = ["clip", "clip_vision_model"];

/// Whether the weights are a CLIP tower's: by their names, and where these are Hugging Face's by the model's type,
/// because other models name theirs alike.
pub(super) fn recognises(source: &dyn WeightSource) -> Result<bool> {
    match Names::find(source).map(|names| names.library) {
        Some(Library::OpenAi) => Ok(source.tensors().is_some()),
        Some(Library::HuggingFace) => model_config::recognises(source, &TYPES),
        None => Ok(false),
    }
}

/// The document that belongs to the weights' names, and what messages call it; None where it is not there.
pub(super) fn read(source: &dyn WeightSource, config: &Config) -> Result<Option<(Found, String)>> {
    let library = Names::find(source).map(|names| names.library);
    let found = |found: Found, name: &str| Some((found, format!("the {name} beside it")));
    // A tower that is not found may have a document that says why.
    if library != Some(Library::HuggingFace)
        && let Some(file) = ModelConfig::document(source, "open_clip_config.json")?
    {
        return Ok(found(open_clip(&file, config)?, "open_clip_config.json"));
    }
    if library != Some(Library::OpenAi)
        && let Some(file) = ModelConfig::read(source)?
    {
        return Ok(found(hugging_face(&file, source)?, "config.json"));
    }
    Ok(None)
}

/// Every key of open_clip's `CLIPVisionCfg` that has no effect on a tower without timm, and those that are read here.
const VISION_KEYS: [&str; 21] = [
    "layers",
    "width",
    "head_width",
    "mlp_ratio",
    "patch_size",
    "image_size",
    "ls_init_value",
    "patch_dropout",
    "attentional_pool",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "no_ln_pre",
    "pos_embed_type",
    "final_ln_after_pool",
    "pool_type",
    "global_average_pool",
    "output_tokens",
    "act_kwargs",
    "norm_kwargs",
    "block_type",
    "timm_model_pretrained",
];

fn open_clip(file: &ModelConfig, config: &Config) -> Result<Found> {
    let Some(model) = file.section("model_cfg") else {
        return Err(file.refusal("model_cfg", "it says what the model is"));
    };
    let Some(vision) = model.section("vision_cfg") else {
        return Err(model.refusal("vision_cfg", "it says what the vision tower is"));
    };
    if vision.value("layers").is_some_and(Value::is_array) {
        return Err(vision.refusal("layers", "a list is a ResNet's, see kind clip-resnet"));
    }
    vision.refuse(
        PART,
        &[
            "timm_model_name",
            "qk_norm",
            "scaled_cosine_attn",
            "scale_heads",
            "scale_attn_inner",
            "scale_attn",
            "scale_fc",
            "input_patchnorm",
        ],
    )?;
    vision.expect("block_type", &[json!("default")])?;
    vision.only(PART, &VISION_KEYS)?;
    // Patch tokens before the last norm know nothing of the pooling.
    if config.pool || config.post_norm {
        vision.refuse("clip-vit with pool or post_norm", &["attentional_pool"])?;
    }
    if config.pool {
        vision.refuse("clip-vit with pool", &["global_average_pool"])?;
        vision.expect("pool_type", &[json!("tok")])?;
    }
    let width = vision.size("width")?.unwrap_or(768);
    let ratio = vision.number("mlp_ratio")?.unwrap_or(4.0);
    let head_width = vision.size("head_width")?.unwrap_or(64);
    if head_width == 0 || width % head_width != 0 {
        return Err(vision.refusal("head_width", format!("it must divide the width {width}")));
    }
    Ok(Found {
        config: Config {
            image_size: Some(vision.size("image_size")?.unwrap_or(224)),
            patch_size: Some(vision.size("patch_size")?.unwrap_or(16)),
            width: Some(width),
            layers: Some(vision.size("layers")?.unwrap_or(12)),
            heads: Some(width / head_width),
            mlp_width: Some((width as f64 * ratio) as usize),
            activation: Some(open_clip_activation(&model, &vision)?),
            epsilon: Some(epsilon(&vision)?),
            pre_norm: Some(!vision.flag("no_ln_pre")?.unwrap_or(false)),
            layer_scale: Some(vision.number("ls_init_value")?.is_some()),
            ..Config::default()
        },
        image: file.section("preprocess_cfg").map(|preprocess| open_clip_image(&preprocess)).transpose()?,
        grid: None,
    })
}

/// open_clip's default is GELU; `quick_gelu` stands beside the towers' sections.
fn open_clip_activation(model: &ModelConfig, vision: &ModelConfig) -> Result<Activation> {
    let quick = model.flag("quick_gelu")?.unwrap_or(false);
    let Some(arguments) = vision.section("act_kwargs") else {
        return Ok(if quick { Activation::QuickGelu } else { Activation::Gelu });
    };
    let allowed = "supported is {\"approximate\": \"tanh\"} without quick_gelu";
    if quick || arguments.only(PART, &["approximate"]).is_err() {
        return Err(vision.refusal("act_kwargs", allowed));
    }
    match arguments.text("approximate")?.as_deref() {
        Some("tanh") => Ok(Activation::GeluNew),
        None | Some("none") => Ok(Activation::Gelu),
        Some(_) => Err(vision.refusal("act_kwargs", allowed)),
    }
}

fn epsilon(vision: &ModelConfig) -> Result<f64> {
    let Some(arguments) = vision.section("norm_kwargs") else { return Ok(1e-5) };
    arguments.only(PART, &["eps"])?;
    Ok(arguments.number("eps")?.unwrap_or(1e-5))
}

/// `preprocess_cfg`; its `size` is always the tower's.
fn open_clip_image(preprocess: &ModelConfig) -> Result<ImageSpec> {
    let mut image = ImageSpec::clip(0);
    preprocess.expect("mode", &[json!("RGB")])?;
    preprocess.expect("resize_mode", &[json!("shortest"), json!("squash")])?;
    preprocess.expect("interpolation", &[json!("bicubic"), json!("bilinear"), json!("random")])?;
    if preprocess.text("resize_mode")?.as_deref() == Some("squash") {
        image.resize = ResizeRule::Squash;
    }
    // `random` is of training; it is bicubic at evaluation.
    if preprocess.text("interpolation")?.as_deref() == Some("bilinear") {
        image.filter = ResizeFilter::Bilinear;
    }
    for (key, slot) in [("mean", &mut image.mean), ("std", &mut image.std)] {
        match preprocess.value(key) {
            None => {}
            Some(Value::Number(_)) => *slot = [preprocess.number(key)?.unwrap_or_default() as f32; 3],
            Some(_) => match preprocess.numbers(key)?.as_deref() {
                Some([r, g, b]) => *slot = [*r as f32, *g as f32, *b as f32],
                _ => return Err(preprocess.refusal(key, "expected one number a channel")),
            },
        }
    }
    Ok(image)
}

fn hugging_face(file: &ModelConfig, source: &dyn WeightSource) -> Result<Found> {
    file.expect_type(PART, &TYPES)?;
    file.refuse(PART, &["quantization_config"])?;
    // Older files carry the section twice; transformers lets the second count, absent keys being its defaults.
    let section = file.section("vision_config_dict").or_else(|| file.section("vision_config"));
    // A file of the whole model without a section means the defaults, a tower's own file has the keys itself.
    let vision = match (section, file.model_type()) {
        (Some(section), _) => section,
        (None, Some("clip")) => ModelConfig::default(),
        (None, _) => file.clone(),
    };
    vision.expect("num_channels", &[json!(3)])?;
    let activation = vision.text("hidden_act")?.unwrap_or_else(|| "quick_gelu".into());
    let Some(activation) = Activation::named(&activation) else {
        return Err(vision.refusal("hidden_act", format!("supported is {}", Activation::NAMES)));
    };
    let side = vision.size("image_size")?.unwrap_or(224);
    let image = preprocessor::read(source, ImageSpec::clip(side))?;
    if let Some(image) = image
        && image.side != side
    {
        let message = format!("preprocessor_config.json makes images of side {}", image.side);
        return Err(vision.refusal("image_size", message));
    }
    Ok(Found {
        config: Config {
            image_size: Some(side),
            patch_size: Some(vision.size("patch_size")?.unwrap_or(32)),
            width: Some(vision.size("hidden_size")?.unwrap_or(768)),
            layers: Some(vision.size("num_hidden_layers")?.unwrap_or(12)),
            heads: Some(vision.size("num_attention_heads")?.unwrap_or(12)),
            mlp_width: Some(vision.size("intermediate_size")?.unwrap_or(3072)),
            activation: Some(activation),
            epsilon: Some(vision.number("layer_norm_eps")?.unwrap_or(1e-5)),
            ..Config::default()
        },
        image,
        grid: None,
    })
}
