//! The first page of a TIFF, with the sample kinds and conversions of Pillow.

use std::io::Cursor;

use ::tiff::decoder::{Decoder, DecodingResult, Limits as TiffLimits};
use ::tiff::tags::Tag;
use ::tiff::{ColorType, TiffError};
use image::RgbImage;
use image::metadata::Orientation;

use super::decode::{Decoded, Limits};
use super::jpeg::{cmyk_to_rgb, ycc_to_rgb};
use super::{Format, ImageError};

// Values of the tag that says what samples mean.
const WHITE_IS_ZERO: u16 = 0;
const BLACK_IS_ZERO: u16 = 1;
const PALETTE: u16 = 3;
/// Value of the extra samples' tag where the colours have been multiplied with alpha.
const ASSOCIATED: u16 = 1;

/// Decodes the first page.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let format = Format::Tiff;
    let fail = |error: TiffError| match error {
        TiffError::UnsupportedError(what) => ImageError::Unsupported { format, reason: what.to_string() },
        other => ImageError::from_decoder(format, bytes.len(), &other),
    };
    let unsupported = |reason: String| ImageError::Unsupported { format, reason };
    // The decoder refuses palettes, and inverts kinds that Pillow does not; shown plain grey, it gives the samples as they are.
    let mut copy = bytes.to_vec();
    let meaning = photometric(&mut copy);
    let mut decoder = Decoder::new(Cursor::new(&copy)).map_err(fail)?;
    let (width, height) = decoder.dimensions().map_err(fail)?;
    limits.check(format, width.into(), height.into())?;
    // 16 bytes a pixel hold four samples of 32 bits, the most that is read.
    let most = usize::try_from(limits.max_pixels.saturating_mul(16)).unwrap_or(usize::MAX);
    let mut bounds = TiffLimits::default();
    (bounds.decoding_buffer_size, bounds.intermediate_buffer_size) = (most, most);
    decoder = decoder.with_limits(bounds);

    let tag = |decoder: &mut Decoder<_>, tag| decoder.find_tag_unsigned_vec::<u16>(tag).map_err(fail);
    if tag(&mut decoder, Tag::FillOrder)?.is_some_and(|order| order != [1]) {
        return Err(unsupported("bits filled from the low end; read are those from the high end".to_owned()));
    }
    let planar = tag(&mut decoder, Tag::PlanarConfiguration)?.is_some_and(|config| config == [2]);
    let associated = tag(&mut decoder, Tag::ExtraSamples)?.is_some_and(|kinds| kinds.first() == Some(&ASSOCIATED));
    let orientation = tag(&mut decoder, Tag::Orientation)?.and_then(|values| values.first().copied());
    let map = if meaning == Some(PALETTE) { tag(&mut decoder, Tag::ColorMap)? } else { None };
    let colour = decoder.colortype().map_err(fail)?;
    let mut samples = DecodingResult::U8(Vec::new());
    decoder.read_image_to_buffer(&mut samples).map_err(fail)?;

    let grey = matches!(colour, ColorType::Gray(_));
    let mut samples = to_bytes(samples, grey).map_err(unsupported)?;
    let (width, height) = (width as usize, height as usize);
    if let ColorType::Gray(depth @ (1 | 2 | 4)) = colour {
        samples = unpack(&samples, width, depth.into(), map.is_none());
    }
    if meaning == Some(WHITE_IS_ZERO) && matches!(colour, ColorType::Gray(1..=8)) {
        samples.iter_mut().for_each(|sample| *sample = !*sample);
    }
    let count = usize::from(colour.num_samples());
    let area = width * height;
    if samples.len() < area * count {
        let reason = format!("{} samples where {} are due", samples.len(), area * count);
        return Err(ImageError::Truncated { format, bytes: bytes.len(), reason });
    }
    let (step, jump) = if planar { (1, area) } else { (count, 1) };
    let at = |pixel: usize, sample: usize| samples[pixel * step + sample * jump];
    let rgb = |pixel| [at(pixel, 0), at(pixel, 1), at(pixel, 2)];
    let of: Box<dyn Fn(usize) -> [u8; 3]> = match (colour, &map) {
        (ColorType::Gray(1..=8), Some(map)) => {
            let third = map.len() / 3;
            // Pillow keeps the high byte of the map's 16 bits.
            let entry = move |index: usize| map.get(index).map_or(0, |value| (value >> 8) as u8);
            Box::new(move |pixel| [0, 1, 2].map(|c| entry(c * third + usize::from(at(pixel, 0)))))
        }
        (ColorType::Gray(_) | ColorType::GrayA(_) | ColorType::Multiband { num_samples: 2, .. }, None) => {
            Box::new(move |pixel| [at(pixel, 0); 3])
        }
        (ColorType::RGBA(_), None) if associated => {
            Box::new(move |pixel| rgb(pixel).map(|value| divide(value, at(pixel, 3))))
        }
        (ColorType::RGB(_) | ColorType::RGBA(_), None) => Box::new(rgb),
        (ColorType::CMYK(_) | ColorType::CMYKA(_), None) => {
            Box::new(move |pixel| cmyk_to_rgb([0, 1, 2, 3].map(|sample| at(pixel, sample))))
        }
        (ColorType::YCbCr(8), None) => Box::new(move |pixel| ycc_to_rgb(rgb(pixel))),
        (other, _) => return Err(unsupported(format!("{other:?}; read are grey, RGB, palette, CMYK and YCbCr"))),
    };
    let data = (0..area).flat_map(of).collect();
    let pixels = RgbImage::from_raw(width as u32, height as u32, data)
        .ok_or_else(|| ImageError::Broken { format, reason: "fewer pixels than its header says".to_owned() })?;
    let orientation = orientation.and_then(|value| Orientation::from_exif(value.try_into().ok()?));
    Ok(Decoded { pixels, orientation: orientation.unwrap_or(Orientation::NoTransforms) })
}

/// Samples as Pillow narrows them: grey is clipped to 0..255, the samples of a colour keep their high byte.
fn to_bytes(samples: DecodingResult, grey: bool) -> Result<Vec<u8>, String> {
    Ok(match samples {
        DecodingResult::U8(values) => values,
        DecodingResult::I8(values) => values.into_iter().map(|v| v as u8).collect(),
        DecodingResult::U16(values) if grey => values.into_iter().map(|v| v.min(255) as u8).collect(),
        DecodingResult::U16(values) => values.into_iter().map(|v| (v >> 8) as u8).collect(),
        DecodingResult::I16(values) if grey => values.into_iter().map(|v| v.clamp(0, 255) as u8).collect(),
        DecodingResult::I32(values) if grey => values.into_iter().map(|v| v.clamp(0, 255) as u8).collect(),
        // Pillow holds these as signed integers.
        DecodingResult::U32(values) if grey => values.into_iter().map(|v| (v as i32).clamp(0, 255) as u8).collect(),
        DecodingResult::F32(values) if grey => values.into_iter().map(|v| v as u8).collect(),
        _ => return Err("samples of this size; read are 8 and 16 bits, and grey of 32 bits".to_owned()),
    })
}

/// One byte for each sample of `depth` bits, rows of `width` samples; scaled to 0..255 unless they are indices.
fn unpack(packed: &[u8], width: usize, depth: usize, scale: bool) -> Vec<u8> {
    let most = (1_u8 << depth) - 1;
    let factor = if scale { 255 / most } else { 1 };
    let per_byte = 8 / depth;
    let rows = packed.chunks_exact(width.div_ceil(per_byte));
    rows.flat_map(|row| {
        (0..width).map(move |x| (row[x / per_byte] >> (8 - depth - x % per_byte * depth) & most) * factor)
    })
    .collect()
}

/// Takes alpha out of a colour that was multiplied with it, as Pillow does.
fn divide(value: u8, alpha: u8) -> u8 {
    match alpha {
        0 => 0,
        _ => (255 * u32::from(value) / u32::from(alpha)).min(255) as u8,
    }
}

/// What the samples of the first page mean; where that is a palette or inverted grey, the bytes are changed to say grey.
fn photometric(bytes: &mut [u8]) -> Option<u16> {
    let little = bytes.starts_with(b"II");
    let short = |at: usize| {
        let pair = [*bytes.get(at)?, *bytes.get(at + 1)?];
        Some(if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) })
    };
    let long = |at: usize| {
        let (first, second) = (usize::from(short(at)?), usize::from(short(at + 2)?));
        Some(if little { second << 16 | first } else { first << 16 | second })
    };
    let start = long(4)?;
    let entries = usize::from(short(start)?);
    let at = (0..entries)
        .map(|i| start + 2 + 12 * i)
        .find(|at| short(*at) == Some(Tag::PhotometricInterpretation.to_u16()))?;
    let meaning = short(at + 8)?;
    if matches!(meaning, PALETTE | WHITE_IS_ZERO) {
        let grey = if little { BLACK_IS_ZERO.to_le_bytes() } else { BLACK_IS_ZERO.to_be_bytes() };
        bytes.get_mut(at + 8..at + 10)?.copy_from_slice(&grey);
    }
    Some(meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_samples_come_apart() {
        assert_eq!(unpack(&[0b1010_0000, 0b1100_0000], 2, 1, true), [255, 0, 255, 255]);
        assert_eq!(unpack(&[0x1f, 0x20], 3, 4, false), [1, 15, 2]);
        assert_eq!(unpack(&[0b0001_1011], 4, 2, true), [0, 85, 170, 255]);
    }

    #[test]
    fn alpha_is_taken_out() {
        assert_eq!([divide(64, 128), divide(9, 0), divide(200, 100), divide(7, 255)], [127, 0, 255, 7]);
    }
}
