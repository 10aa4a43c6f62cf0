//! What transformers' image processors write beside the weights, read as an [`ImageSpec`]: `preprocessor_config.json`, or
//! the section `image_processor` of `processor_config.json`, which transformers 5 writes for models of several inputs.
//!
//! Source followed: transformers' `image_processing_base.py` (which file counts), `image_processing_backends.py` and
//! `CLIPImageProcessor`; files of all versions since 4.0 are read (`size` was a number once, or a list of two). A null is an
//! absent key. What an [`ImageSpec`] cannot express is refused by the name of its key.

use crate::model_config::ModelConfig;
use crate::spec::{ImageSpec, ResizeFilter, ResizeRule};
use crate::weights::WeightSource;
use anyhow::Result;
use serde_json::{Map, Value};

/// What changes pixels in processors of other models, and is not done here.
const OTHERS: [&str; 19] = [
    "do_pad",
    "crop_pct",
    "do_color_quantize",
    "do_flip_channel_order",
    "do_thumbnail",
    "do_align_long_axis",
    "do_image_splitting",
    "do_split_image",
    "do_crop_margin",
    "do_grayscale",
    "do_threshold",
    "crop_to_patches",
    "rescale_offset",
    "offset",
    "use_square_size",
    "keep_aspect_ratio",
    "ensure_multiple_of",
    "size_divisor",
    "include_top",
];

/// The pixels that the file beside the weights asks for; None where there is none.
///
/// `class` holds what the model's processor class does where a key is absent: a number as `size` is the shorter side
/// where it crops, both sides where it does not.
///
/// # Errors
/// A value of another type, or one that asks for what is not supported; the message names the key.
pub fn read(source: &dyn WeightSource, class: ImageSpec) -> Result<Option<ImageSpec>> {
    // As in transformers, the nested section counts where there are both.
    let whole = ModelConfig::document(source, "processor_config.json")?;
    let nested = whole.and_then(|file| file.section("image_processor"));
    let file = match nested {
        Some(section) => Some(section),
        None => ModelConfig::document(source, "preprocessor_config.json")?,
    };
    file.map(|file| spec(&file, class)).transpose()
}

/// What `size` asks for.
enum Size {
    /// The shorter side; the other keeps the aspect ratio.
    Shorter(usize),
    /// Both sides.
    Both(usize),
}

fn spec(file: &ModelConfig, class: ImageSpec) -> Result<ImageSpec> {
    file.refuse("limber", &OTHERS)?;
    if file.flag("do_resize")? == Some(false) {
        return Err(file.refusal("do_resize", "supported is true"));
    }
    let crops = file.flag("do_center_crop")?.unwrap_or(class.resize.crops());
    let size = size(file, class)?;
    let (resized, resize) = match size {
        Size::Shorter(side) => (side, ResizeRule::ShorterSideCropFloor),
        Size::Both(side) => (side, ResizeRule::Squash),
    };
    let side = if crops { square(file, "crop_size")?.unwrap_or(class.side) } else { resized };
    if !crops && resize.crops() {
        return Err(file.refusal("do_center_crop", "supported is true where size is the shorter side"));
    }
    if side > resized {
        // transformers would frame the image in black.
        return Err(file.refusal("crop_size", format!("supported is at most the size, {resized}")));
    }
    let resize_to = (resized != side).then_some(resized);
    let filter = filter(file)?.unwrap_or(class.filter);
    let (mean, std) = normalisation(file, class)?;
    Ok(ImageSpec { side, resize, resize_to, filter, mean, std, ..class })
}

/// Mean and deviation on the scale 0..1: pixels are multiplied with `rescale_factor`, then normalised, each unless it is
/// switched off.
fn normalisation(file: &ModelConfig, class: ImageSpec) -> Result<([f32; 3], [f32; 3])> {
    let factor = match (file.flag("do_rescale")?, file.number("rescale_factor")?) {
        (Some(false), _) => 1.0,
        (_, None) => 1.0 / 255.0,
        (_, Some(factor)) if factor.is_finite() && factor > 0.0 => factor,
        _ => return Err(file.refusal("rescale_factor", "expected a number above 0")),
    };
    let (mean, std) = match file.flag("do_normalize")? {
        Some(false) => ([0.0; 3], [1.0; 3]),
        _ => (channels(file, "image_mean")?.unwrap_or(class.mean), channels(file, "image_std")?.unwrap_or(class.std)),
    };
    if !std.iter().all(|d| d.is_finite() && *d > 0.0) {
        return Err(file.refusal("image_std", "expected numbers above 0"));
    }
    // 1/255 is written with more or fewer digits.
    let scale = factor * 255.0;
    if (scale - 1.0).abs() <= 1e-6 {
        return Ok((mean, std));
    }
    let scaled = |values: [f32; 3]| values.map(|x| (f64::from(x) / scale) as f32);
    Ok((scaled(mean), scaled(std)))
}

/// `resample`: Pillow's number of a filter, or its name.
fn filter(file: &ModelConfig) -> Result<Option<ResizeFilter>> {
    let Some(value) = file.value("resample") else { return Ok(None) };
    let name = value.as_str().map(str::to_ascii_lowercase);
    // Names as Pillow, torchvision and their enumerations spell them.
    let name = name.as_deref().map(|name| name.rsplit('.').next().unwrap_or(name));
    match (value.as_u64(), name) {
        (Some(2), _) | (_, Some("bilinear" | "2")) => Ok(Some(ResizeFilter::Bilinear)),
        (Some(3), _) | (_, Some("bicubic" | "3")) => Ok(Some(ResizeFilter::Bicubic)),
        _ => Err(file.refusal("resample", "supported is 2 (bilinear), 3 (bicubic)")),
    }
}

fn size(file: &ModelConfig, class: ImageSpec) -> Result<Size> {
    let squashes = file.flag("default_to_square")?.unwrap_or(class.resize == ResizeRule::Squash);
    let of_class = |side| if squashes { Size::Both(side) } else { Size::Shorter(side) };
    let Some(value) = file.value("size") else { return Ok(of_class(class.resized())) };
    match value.as_object().map(set) {
        None if value.is_number() => match square(file, "size")? {
            Some(side) => Ok(of_class(side)),
            None => Ok(of_class(class.resized())),
        },
        Some(map) if map.len() == 1 && map.contains_key("shortest_edge") => match map["shortest_edge"].as_u64() {
            Some(side) if side > 0 => Ok(Size::Shorter(side as usize)),
            _ => Err(file.refusal("size", "expected a whole number of pixels")),
        },
        _ => match square(file, "size")? {
            Some(side) => Ok(Size::Both(side)),
            None => Ok(of_class(class.resized())),
        },
    }
}

/// The entries of a map that say something.
fn set(map: &Map<String, Value>) -> Map<String, Value> {
    map.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// A number, or equal height and width.
fn square(file: &ModelConfig, key: &str) -> Result<Option<usize>> {
    let allowed = "supported is a number, an equal height and width, or (for size) the shortest_edge";
    let Some(value) = file.value(key) else { return Ok(None) };
    let side = |value: &Value| value.as_u64().map(|side| side as usize).filter(|side| *side > 0);
    let equal = |height: Option<&Value>, width: Option<&Value>| match (height.and_then(side), width.and_then(side)) {
        (Some(height), Some(width)) if height == width => Some(height),
        _ => None,
    };
    let found = match value {
        Value::Object(map) => {
            let map = set(map);
            equal(map.get("height"), map.get("width")).filter(|_| map.len() == 2)
        }
        Value::Array(list) => equal(list.first(), list.get(1)).filter(|_| list.len() == 2),
        value => side(value),
    };
    found.map(Some).ok_or_else(|| file.refusal(key, allowed))
}

/// One number a channel, or one for all.
fn channels(file: &ModelConfig, key: &str) -> Result<Option<[f32; 3]>> {
    if let Some(number) = file.value(key).and_then(Value::as_f64) {
        return Ok(Some([number as f32; 3]));
    }
    let Some(numbers) = file.numbers(key)? else { return Ok(None) };
    match numbers.as_slice() {
        [r, g, b] => Ok(Some([*r as f32, *g as f32, *b as f32])),
        _ => Err(file.refusal(key, "expected one number a channel")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_config::tests::Texts;
    use serde_json::json;

    /// CLIP's, cropped as transformers does.
    fn cropped(side: usize) -> ImageSpec {
        ImageSpec { resize: ResizeRule::ShorterSideCropFloor, ..ImageSpec::clip(side) }
    }

    /// 1/255 of a pixel is what a factor of 1 would make of one of 255 times its deviation.
    #[test]
    fn factors_and_switches_are_obeyed() {
        let clip = cropped(224);
        let of = |file: Value| spec_of(file, clip).unwrap();
        let near = |found: [f32; 3], expected: [f32; 3]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-6), "{found:?} {expected:?}");
        };
        let plain = of(json!({"do_rescale": false}));
        near(plain.std, clip.std.map(|x| x / 255.0));
        near(plain.mean, clip.mean.map(|x| x / 255.0));
        let half = of(json!({"rescale_factor": 1.0 / 127.5, "do_normalize": false}));
        assert_eq!((half.mean, half.std), ([0.0; 3], [0.5; 3]));
        assert_eq!(of(json!({"rescale_factor": 0.003_921_57})), clip);
        assert_eq!(of(json!({"image_mean": 0.5, "image_std": [1, 2, 3]})).mean, [0.5; 3]);
    }

    #[test]
    fn nulls_names_and_nested_sections_are_read() {
        let clip = cropped(224);
        let of = |file: Value| spec_of(file, clip).unwrap();
        let nulls = json!({"size": {"shortest_edge": 336, "longest_edge": null, "height": null, "width": null},
            "crop_size": {"height": 336, "width": 336, "shortest_edge": null}, "image_mean": null, "image_std": null,
            "do_pad": null, "pad_size": null, "resample": null, "do_resize": null, "do_rescale": null, "device": null});
        assert_eq!(of(nulls), cropped(336));
        assert_eq!(of(json!({"size": [336, 336], "crop_size": 336})).resize, ResizeRule::Squash);
        assert_eq!(of(json!({"size": 224, "default_to_square": true})).resize, ResizeRule::Squash);
        for name in ["bilinear", "BILINEAR", "PILImageResampling.BILINEAR"] {
            assert_eq!(of(json!({"resample": name})).filter, ResizeFilter::Bilinear);
        }
        let texts = |nested: Value| {
            let own = json!({"size": 336, "crop_size": 336}).to_string();
            Texts(vec![("processor_config.json", nested.to_string()), ("preprocessor_config.json", own)])
        };
        let nested =
            texts(json!({"image_processor": {"size": 448, "crop_size": 448}, "processor_class": "CLIPProcessor"}));
        assert_eq!(read(&nested, clip).unwrap(), Some(cropped(448)));
        let other = texts(json!({"processor_class": "CLIPProcessor"}));
        assert_eq!(read(&other, clip).unwrap(), Some(cropped(336)));
        let wrong = read(&texts(json!({"image_processor": {"do_resize": false}})), clip).unwrap_err().to_string();
        assert_eq!(wrong, "here: processor_config.json, image_processor: do_resize is false, supported is true");
    }

    fn spec_of(file: Value, class: ImageSpec) -> Result<ImageSpec> {
        Ok(read(&Texts(vec![("preprocessor_config.json", file.to_string())]), class)?.unwrap())
    }

    #[test]
    fn files_of_all_ages_are_read() {
        let clip = cropped(224);
        let squash = ImageSpec { resize: ResizeRule::Squash, ..clip };
        let check = |file: Value, class: ImageSpec, expected: ImageSpec| {
            assert_eq!(spec_of(file.clone(), class).unwrap(), expected, "{file}");
        };
        assert_eq!(read(&Texts(vec![]), clip).unwrap(), None);
        check(json!({}), clip, clip);
        check(json!({"size": 336, "crop_size": 336, "do_center_crop": true}), clip, cropped(336));
        check(
            json!({"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, "rescale_factor": 0.00392156862745098}),
            clip,
            cropped(336),
        );
        check(
            json!({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}),
            clip,
            ImageSpec { resize_to: Some(256), ..clip },
        );
        check(
            json!({"size": {"height": 256, "width": 256}, "crop_size": 224, "do_center_crop": true}),
            squash,
            ImageSpec { resize_to: Some(256), ..squash },
        );
        check(
            json!({"size": 384, "do_center_crop": false, "crop_size": 224}),
            squash,
            ImageSpec { side: 384, ..squash },
        );
        check(
            json!({"size": {"height": 256, "width": 256}, "resample": 2, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 1]}),
            squash,
            ImageSpec { side: 256, filter: ResizeFilter::Bilinear, mean: [0.5; 3], std: [0.5, 0.25, 1.0], ..squash },
        );
        check(
            json!({"size": {"height": 224, "width": 224}, "crop_size": 224, "do_normalize": false, "image_mean": [9, 9, 9]}),
            clip,
            ImageSpec { mean: [0.0; 3], std: [1.0; 3], ..squash },
        );
    }

    #[test]
    fn what_no_spec_expresses_is_refused_by_its_key() {
        let check = |file: Value, expected: &str| {
            let message = spec_of(file, cropped(224)).unwrap_err().to_string();
            assert_eq!(message, format!("here: preprocessor_config.json: {expected}"));
        };
        check(json!({"do_resize": false}), "do_resize is false, supported is true");
        check(json!({"rescale_factor": 0.0}), "rescale_factor is 0.0, expected a number above 0");
        check(json!({"resample": "lanczos"}), "resample is \"lanczos\", supported is 2 (bilinear), 3 (bicubic)");
        check(json!({"offset": true}), "offset is true, which limber does not support");
        check(json!({"do_pad": true}), "do_pad is true, which limber does not support");
        check(json!({"resample": 1}), "resample is 1, supported is 2 (bilinear), 3 (bicubic)");
        check(json!({"crop_size": 256}), "crop_size is 256, supported is at most the size, 224");
        check(
            json!({"do_center_crop": false}),
            "do_center_crop is false, supported is true where size is the shorter side",
        );
        check(json!({"image_mean": [0.5]}), "image_mean is [0.5], expected one number a channel");
        check(json!({"image_std": [1, 0, 1]}), "image_std is [1,0,1], expected numbers above 0");
        check(
            json!({"size": {"height": 224, "width": 448}}),
            "size is {\"height\":224,\"width\":448}, supported is a number, an equal height and width, or (for size) the shortest_edge",
        );
        check(
            json!({"size": {"shortest_edge": 224, "longest_edge": 448}}),
            "size is {\"shortest_edge\":224,\"longest_edge\":448}, supported is a number, an equal height and width, or (for size) the shortest_edge",
        );
    }
}
