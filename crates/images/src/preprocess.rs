//! From an image of any size to the pixels an encoder takes: `[3, S, S]` f32.
//!
//! `ShorterSideCrop` is torchvision's `Resize(R)`, `CenterCrop(S)`, `ToTensor`, `Normalize`; `ShorterSideCropFloor` is that of transformers' image processors, whose crop begins elsewhere; `Squash` is their resize to R x R, the centre S x S of it where R is more than S.

use image::RgbImage;
use limber_core::spec::{ImageSpec, ResizeRule};

use super::ImageError;
use super::resample::{PassOrder, Window, resize_window};

/// Resizes, crops and normalises an image: channel-major `[3, S, S]`.
///
/// # Errors
/// An empty image, or a side S of zero.
pub fn preprocess(image: &RgbImage, spec: &ImageSpec, order: PassOrder) -> Result<Vec<f32>, ImageError> {
    Ok(normalise(&fit(image, spec, order)?, spec))
}

/// The square of side S that the spec cuts out of an image, before normalisation.
///
/// # Errors
/// An empty image, a side S of zero, or one above what the image is resized to.
pub fn fit(image: &RgbImage, spec: &ImageSpec, order: PassOrder) -> Result<RgbImage, ImageError> {
    let (side, resized) = (spec.side, spec.resized());
    let (width, height) = match spec.resize {
        ResizeRule::Squash => (resized, resized),
        ResizeRule::ShorterSideCrop | ResizeRule::ShorterSideCropFloor => {
            shorter_side(image.width(), image.height(), resized)
        }
    };
    // Only the crop is computed, so an image of 1 x 100,000 pixels costs no more than a square one.
    let begin = |size: usize| match spec.resize {
        ResizeRule::ShorterSideCrop => centre(size, side),
        ResizeRule::ShorterSideCropFloor | ResizeRule::Squash => size.saturating_sub(side) / 2,
    };
    let window = Window { left: begin(width), top: begin(height), width: side, height: side };
    resize_window(image, (width, height), window, spec.filter, order)
}

/// Channel-major `[3, H, W]`: scales bytes to 0..1, subtracts the mean and divides by the deviation, all in f32 and in torchvision's order.
pub fn normalise(image: &RgbImage, spec: &ImageSpec) -> Vec<f32> {
    let mut out = Vec::with_capacity(image.as_raw().len());
    for channel in 0..3 {
        let (mean, std) = (spec.mean[channel], spec.std[channel]);
        let table: [f32; 256] = std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std);
        out.extend(image.as_raw().iter().skip(channel).step_by(3).map(|byte| table[usize::from(*byte)]));
    }
    out
}

/// The size whose shorter side is `side`, the other truncated as Python's `int` does.
fn shorter_side(width: u32, height: u32, side: usize) -> (usize, usize) {
    let long = |long: u32, short: u32| (side as u64 * u64::from(long)) as f64 / f64::from(short.max(1));
    if width <= height { (side, long(height, width) as usize) } else { (long(width, height) as usize, side) }
}

/// Where a centred crop of `side` begins: half the excess, halves rounded to the even neighbour as Python does.
fn centre(size: usize, side: usize) -> usize {
    let excess = size.saturating_sub(side);
    let half = excess / 2;
    half + usize::from(excess % 2 == 1 && half % 2 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use limber_core::spec::ResizeFilter;

    #[test]
    fn the_longer_side_is_truncated() {
        for (from, side, to) in [
            ((640, 480), 224, (298, 224)),
            ((480, 640), 224, (224, 298)),
            ((7, 7), 384, (384, 384)),
            ((1, 3), 5, (5, 15)),
        ] {
            assert_eq!(shorter_side(from.0, from.1, side), to);
        }
    }

    #[test]
    fn halves_go_to_the_even_offset() {
        // Python: round(0.5) = 0, round(1.5) = 2, round(2.5) = 2, round(3.5) = 4.
        for (excess, offset) in [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4)] {
            assert_eq!(centre(10 + excess, 10), offset);
        }
    }

    #[test]
    fn a_flat_image_gives_flat_channels() {
        let spec = ImageSpec { mean: [0.5, 0.0, 0.25], std: [0.5, 1.0, 0.25], ..ImageSpec::clip(8) };
        let image = RgbImage::from_pixel(31, 9, image::Rgb([255, 51, 0]));
        let pixels = preprocess(&image, &spec, PassOrder::default()).unwrap();
        assert_eq!(pixels[..64], [1.0; 64]);
        assert_eq!(pixels[64..128], [0.2; 64]);
        assert_eq!(pixels[128..], [-1.0; 64]);
    }

    #[test]
    fn the_crop_begins_where_each_library_says() {
        let image = RgbImage::from_fn(24, 21, |x, _| image::Rgb([x as u8; 3]));
        let first = |resize, resize_to, side| {
            let spec = ImageSpec { resize, resize_to, ..ImageSpec::clip(side) };
            fit(&image, &spec, PassOrder::default()).unwrap().get_pixel(0, 0)[0]
        };
        // 3 too many: half of them is 1.5, which Python rounds to 2.
        assert_eq!(first(ResizeRule::ShorterSideCrop, None, 21), 2);
        assert_eq!(first(ResizeRule::ShorterSideCropFloor, None, 21), 1);
    }

    #[test]
    fn a_thin_image_costs_no_more_than_its_crop() {
        let spec = ImageSpec { filter: ResizeFilter::Bilinear, ..ImageSpec::clip(64) };
        let image = RgbImage::from_pixel(1, 2_000_000, image::Rgb([9, 9, 9]));
        assert_eq!(preprocess(&image, &spec, PassOrder::default()).unwrap().len(), 3 * 64 * 64);
    }

    #[test]
    fn a_side_of_zero_is_an_error() {
        let image = RgbImage::new(4, 4);
        assert!(preprocess(&image, &ImageSpec::clip(0), PassOrder::default()).is_err());
    }

    #[test]
    fn a_crop_above_the_resized_image_is_an_error() {
        let image = RgbImage::new(9, 7);
        let spec = |resize_to| ImageSpec { resize_to: Some(resize_to), ..ImageSpec::clip(8) };
        assert!(preprocess(&image, &spec(7), PassOrder::default()).is_err());
        assert!(preprocess(&image, &spec(8), PassOrder::default()).is_ok());
    }
}
