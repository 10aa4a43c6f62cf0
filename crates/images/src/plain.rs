//! PNG, WebP and BMP, through the `image` crate's decoders.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, RgbImage};

use super::decode::{Decoded, Limits};
use super::{Format, ImageError};

/// Decodes a PNG, WebP or BMP.
pub(super) fn decode(format: Format, bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let broken = |error: image::ImageError| ImageError::from_decoder(format, bytes.len(), &error);
    let input = Cursor::new(bytes);
    match format {
        Format::WebP => read(format, bytes, WebPDecoder::new(input).map_err(broken)?, limits),
        Format::Bmp => {
            let mut decoded = read(format, bytes, BmpDecoder::new(input).map_err(broken)?, limits)?;
            if let Some(most) = sixteen_bit_levels(bytes) {
                decoded.pixels.pixels_mut().for_each(|pixel| pixel.0 = truncate_levels(pixel.0, most));
            }
            Ok(decoded)
        }
        _ => read(format, bytes, PngDecoder::new(input).map_err(broken)?, limits),
    }
}

fn read(format: Format, bytes: &[u8], mut decoder: impl ImageDecoder, limits: &Limits) -> Result<Decoded, ImageError> {
    let (width, height) = decoder.dimensions();
    limits.check(format, width.into(), height.into())?;
    // Bit depth and colour type of a PNG. A grey one with a transparent value comes as grey and alpha, but Pillow clips it as grey.
    let clipped = format == Format::Png && bytes.get(24..26) == Some(&[16, 0]);
    let broken = |error: image::ImageError| ImageError::from_decoder(format, bytes.len(), &error);
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let pixels = to_rgb(DynamicImage::from_decoder(decoder).map_err(broken)?, clipped);
    Ok(Decoded { pixels, orientation })
}

/// The highest level of red, green and blue in a bitmap of 16 bits a pixel; nothing for other bitmaps.
fn sixteen_bit_levels(bytes: &[u8]) -> Option<[u32; 3]> {
    let four = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
    let (header, depth, masked) = (four(14)?, bytes.get(28..30)?, four(30)? == 3);
    let green_is_wide = masked && four(58)? == 0x7e0;
    (header >= 40 && depth == [16, 0]).then_some([31, if green_is_wide { 63 } else { 31 }, 31])
}

/// Levels that the decoder rounded to 0..255, truncated instead, as Pillow does.
fn truncate_levels(rgb: [u8; 3], most: [u32; 3]) -> [u8; 3] {
    std::array::from_fn(|c| ((u32::from(rgb[c]) * most[c] + 127) / 255 * 255 / most[c]) as u8)
}

/// Pillow's `convert("RGB")` of what the decoders give: alpha dropped, 16-bit grey clipped, else the high byte.
fn to_rgb(image: DynamicImage, clipped: bool) -> RgbImage {
    let (width, height) = (image.width(), image.height());
    let narrow = |sample: u16| if clipped { sample.min(255) as u8 } else { (sample >> 8) as u8 };
    let data: Vec<u8> = match &image {
        DynamicImage::ImageRgb8(_) => return image.into_rgb8(),
        DynamicImage::ImageLuma8(grey) => grey.iter().flat_map(|l| [*l; 3]).collect(),
        DynamicImage::ImageLumaA8(grey) => grey.pixels().flat_map(|p| [p[0]; 3]).collect(),
        DynamicImage::ImageRgba8(rgba) => rgba.pixels().flat_map(|p| [p[0], p[1], p[2]]).collect(),
        DynamicImage::ImageLuma16(grey) => grey.iter().flat_map(|l| [narrow(*l); 3]).collect(),
        DynamicImage::ImageLumaA16(grey) => grey.pixels().flat_map(|p| [narrow(p[0]); 3]).collect(),
        DynamicImage::ImageRgb16(rgb) => rgb.iter().map(|s| narrow(*s)).collect(),
        DynamicImage::ImageRgba16(rgba) => rgba.pixels().flat_map(|p| [p[0], p[1], p[2]].map(narrow)).collect(),
        _ => return image.into_rgb8(),
    };
    RgbImage::from_raw(width, height, data).unwrap_or_else(|| image.into_rgb8())
}
