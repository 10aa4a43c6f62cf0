//! `preprocessor_config.json` as transformers' image processors write it, read as an [`ImageSpec`].
//!
//! Source followed: transformers' `image_processing_backends.py` and `CLIPImageProcessor`; files of all versions since 4.0
//! are read (`size` was a number once). What an [`ImageSpec`] cannot express is refused by the name of its key.

use crate::model_config::ModelConfig;
use crate::spec::{ImageSpec, ResizeFilter, ResizeRule};
use crate::weights::WeightSource;
use anyhow::Result;
use serde_json::Value;

/// The pixels that the file beside the weights asks for; None where there is none.
///
/// `class` holds what the model's processor class does where a key is absent: a number as `size` is the shorter side
/// where it crops, both sides where it does not.
///
/// # Errors
/// A value of another type, or one that asks for what is not supported; the message names the key.
pub fn read(source: &dyn WeightSource, class: ImageSpec) -> Result<Option<ImageSpec>> {
    match ModelConfig::document(source, "preprocessor_config.json")? {
        Some(file) => Ok(Some(spec(&file, class)?)),
        None => Ok(None),
    }
}

/// What `size` asks for.
enum Size {
    /// The shorter side; the other keeps the aspect ratio.
    Shorter(usize),
    /// Both sides.
    Both(usize),
}

fn spec(file: &ModelConfig, class: ImageSpec) -> Result<ImageSpec> {
    file.refuse("limber", &["do_pad", "crop_pct", "do_color_quantize", "do_flip_channel_order"])?;
    for key in ["do_resize", "do_rescale"] {
        if file.flag(key)? == Some(false) {
            return Err(file.refusal(key, "supported is true"));
        }
    }
    if file.number("rescale_factor")?.is_some_and(|f| (f * 255.0 - 1.0).abs() > 1e-6) {
        return Err(file.refusal("rescale_factor", "supported is 1/255"));
    }
    let crops = file.flag("do_center_crop")?.unwrap_or(class.resize == ResizeRule::ShorterSideCrop);
    let size = size(file, class)?;
    let (resized, resize) = match size {
        Size::Shorter(side) => (side, ResizeRule::ShorterSideCrop),
        Size::Both(side) => (side, ResizeRule::Squash),
    };
    let side = if crops { square(file, "crop_size")?.unwrap_or(class.side) } else { resized };
    if !crops && resize == ResizeRule::ShorterSideCrop {
        return Err(file.refusal("do_center_crop", "supported is true where size is the shorter side"));
    }
    if side > resized {
        // transformers would frame the image in black.
        return Err(file.refusal("crop_size", format!("supported is at most the size, {resized}")));
    }
    let resize_to = (resized != side).then_some(resized);
    let filter = match file.size("resample")? {
        None => class.filter,
        Some(2) => ResizeFilter::Bilinear,
        Some(3) => ResizeFilter::Bicubic,
        Some(_) => return Err(file.refusal("resample", "supported is 2 (bilinear), 3 (bicubic)")),
    };
    let (mean, std) = match file.flag("do_normalize")? {
        Some(false) => ([0.0; 3], [1.0; 3]),
        _ => (channels(file, "image_mean")?.unwrap_or(class.mean), channels(file, "image_std")?.unwrap_or(class.std)),
    };
    if !std.iter().all(|d| *d > 0.0) {
        return Err(file.refusal("image_std", "expected a number above 0"));
    }
    Ok(ImageSpec { side, resize, resize_to, filter, mean, std, ..class })
}

fn size(file: &ModelConfig, class: ImageSpec) -> Result<Size> {
    let of_class = |side| match class.resize {
        ResizeRule::ShorterSideCrop => Size::Shorter(side),
        ResizeRule::Squash => Size::Both(side),
    };
    match file.value("size") {
        None => Ok(of_class(class.resized())),
        Some(Value::Number(_)) => Ok(of_class(file.size("size")?.unwrap_or(class.resized()))),
        Some(Value::Object(map)) if map.len() == 1 && map.contains_key("shortest_edge") => {
            match map["shortest_edge"].as_u64() {
                Some(side) if side > 0 => Ok(Size::Shorter(side as usize)),
                _ => Err(file.refusal("size", "expected a whole number of pixels")),
            }
        }
        Some(_) => match square(file, "size")? {
            Some(side) => Ok(Size::Both(side)),
            None => Ok(of_class(class.resized())),
        },
    }
}

/// A number, or equal height and width.
fn square(file: &ModelConfig, key: &str) -> Result<Option<usize>> {
    let allowed = "supported is a number, an equal height and width, or (for size) the shortest_edge";
    let Some(value) = file.value(key) else { return Ok(None) };
    let side = |value: &Value| value.as_u64().map(|side| side as usize).filter(|side| *side > 0);
    let found = match value {
        Value::Object(map) if map.len() == 2 => {
            match (map.get("height").and_then(side), map.get("width").and_then(side)) {
                (Some(height), Some(width)) if height == width => Some(height),
                _ => None,
            }
        }
        value => side(value),
    };
    found.map(Some).ok_or_else(|| file.refusal(key, allowed))
}

fn channels(file: &ModelConfig, key: &str) -> Result<Option<[f32; 3]>> {
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

    fn spec_of(file: Value, class: ImageSpec) -> Result<ImageSpec> {
        Ok(read(&Texts(vec![("preprocessor_config.json", file.to_string())]), class)?.unwrap())
    }

    #[test]
    fn files_of_all_ages_are_read() {
        let clip = ImageSpec::clip(224);
        let squash = ImageSpec { resize: ResizeRule::Squash, ..clip };
        let check = |file: Value, class: ImageSpec, expected: ImageSpec| {
            assert_eq!(spec_of(file.clone(), class).unwrap(), expected, "{file}");
        };
        assert_eq!(read(&Texts(vec![]), clip).unwrap(), None);
        check(json!({}), clip, clip);
        check(json!({"size": 336, "crop_size": 336, "do_center_crop": true}), clip, ImageSpec::clip(336));
        check(
            json!({"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, "rescale_factor": 0.00392156862745098}),
            clip,
            ImageSpec::clip(336),
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
            let message = spec_of(file, ImageSpec::clip(224)).unwrap_err().to_string();
            assert_eq!(message, format!("here: preprocessor_config.json: {expected}"));
        };
        check(json!({"do_resize": false}), "do_resize is false, supported is true");
        check(json!({"do_rescale": false}), "do_rescale is false, supported is true");
        check(json!({"rescale_factor": 1.0}), "rescale_factor is 1.0, supported is 1/255");
        check(json!({"do_pad": true}), "do_pad is true, which limber does not support");
        check(json!({"resample": 1}), "resample is 1, supported is 2 (bilinear), 3 (bicubic)");
        check(json!({"crop_size": 256}), "crop_size is 256, supported is at most the size, 224");
        check(
            json!({"do_center_crop": false}),
            "do_center_crop is false, supported is true where size is the shorter side",
        );
        check(json!({"image_mean": [0.5]}), "image_mean is [0.5], expected one number a channel");
        check(json!({"image_std": [1, 0, 1]}), "image_std is [1,0,1], expected a number above 0");
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
