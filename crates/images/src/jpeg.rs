//! JPEG, bit for bit as libjpeg-turbo decodes it: integer DCT, smooth chroma upsampling, fixed-point colour.
//!
//! The usual pure-Rust decoders differ from it by up to 4 levels, and by dozens at the borders of thin images, which is why the port of libjpeg-turbo is used here.

use image::RgbImage;
use image::metadata::Orientation;
use libjpeg_turbo_rs::{ComponentInfo, DecodeLimits, Decoder, Image, JpegError, PixelFormat};

use super::convert::cmyk_to_rgb;
use super::decode::{Decoded, Limits};
use super::{Format, ImageError, jpeg_end};

/// Scans after which a progressive image is an attack; real ones have about ten.
const MAX_SCANS: usize = 1000;

const START: [u8; 2] = [0xff, 0xd8];
const END: [u8; 2] = [0xff, 0xd9];

/// Decodes a grey, colour or CMYK JPEG.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let format = Format::Jpeg;
    let fail = |error: JpegError| match error {
        JpegError::UnexpectedEof => truncated(bytes),
        JpegError::Unsupported(reason) => ImageError::Unsupported { format, reason },
        other => ImageError::Broken { format, reason: other.to_string() },
    };
    let size = size_of(bytes)?;
    limits.check(format, size.0, size.1)?;
    let ended;
    let bytes = match ends(bytes) {
        true => bytes,
        false if jpeg_end::reaches(bytes) => {
            ended = [bytes, &END].concat();
            &ended
        }
        false => return Err(truncated(bytes)),
    };
    let bounds = DecodeLimits { max_pixels: limits.max_pixels, max_scans: MAX_SCANS, ..Default::default() };
    let mut decoder = Decoder::new_with_limits(bytes, bounds).map_err(fail)?;
    let header = decoder.header();
    let (components, precision) = (header.components.len(), header.precision);
    if precision != 8 || header.is_lossless || !matches!(components, 1 | 3 | 4) {
        let reason = format!("{components} components of {precision} bits; read are 1, 3 or 4 of 8 bits, not lossless");
        return Err(ImageError::Unsupported { format, reason });
    }
    let widest =
        |of: fn(&ComponentInfo) -> u8| header.components.iter().map(of).max() == header.components.first().map(of);
    if !widest(|c| c.horizontal_sampling) || !widest(|c| c.vertical_sampling) {
        let reason = "its first component is not the finest".to_owned();
        return Err(ImageError::Unsupported { format, reason });
    }
    // As libjpeg does by default: it decodes on past damage, and smooths what a cut progressive image left coarse.
    decoder.set_lenient(true);
    decoder.set_block_smoothing(true);
    decoder.set_output_format(if components == 4 { PixelFormat::Cmyk } else { PixelFormat::Rgb });
    let orientation = decoder.exif_orientation().and_then(Orientation::from_exif);
    let image = decoder.decode_image().map_err(fail)?;
    let data = match components {
        // Pillow takes every CMYK JPEG for one of Adobe's, which are inverted.
        4 => image.data.as_chunks().0.iter().flat_map(|cmyk| cmyk_to_rgb(cmyk.map(|ink| 255 - ink))).collect(),
        _ => image.data,
    };
    let pixels = RgbImage::from_raw(image.width as u32, image.height as u32, data)
        .ok_or_else(|| ImageError::Broken { format, reason: "fewer pixels than its header says".to_owned() })?;
    Ok(Decoded { pixels, orientation: orientation.unwrap_or(Orientation::NoTransforms) })
}

/// Decodes a strip or tile of a TIFF: samples as they lie, but for YCbCr, which becomes RGB. All share their tables.
pub(super) fn strip(tables: &[u8], bytes: &[u8], samples: usize, is_ycbcr: bool) -> Result<Image, ImageError> {
    let format = Format::Tiff;
    let broken = |reason: String| ImageError::Broken { format, reason };
    let colours = |(kind, _): &(u8, &[u8])| !matches!(kind, 0xe0 | 0xee | 0xda | 0xd8 | 0xd9);
    let mut whole = START.to_vec();
    if samples > 1 {
        // Adobe's mark tells the colours, whatever the components are called.
        whole.extend(b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0");
        whole.push(u8::from(is_ycbcr));
    }
    let scan = segments(bytes).find(|(kind, _)| *kind == 0xda).map(|(_, body)| body.as_ptr() as usize);
    let scan = scan.map(|body| body - bytes.as_ptr() as usize - 4);
    let scan = scan.ok_or_else(|| broken("a JPEG without a scan".to_owned()))?;
    for (kind, body) in segments(tables).chain(segments(&bytes[..scan])).filter(colours) {
        whole.extend([0xff, kind]);
        whole.extend((body.len() as u16 + 2).to_be_bytes());
        whole.extend(body);
    }
    whole.extend(&bytes[scan..]);
    whole.extend(END);
    let fail = |error: JpegError| broken(error.to_string());
    let bounds = DecodeLimits { max_scans: MAX_SCANS, ..Default::default() };
    let mut decoder = Decoder::new_with_limits(&whole, bounds).map_err(fail)?;
    let header = decoder.header();
    if header.precision != 8 || header.is_lossless || header.components.len() != samples {
        let reason = format!("JPEG of {} components in a TIFF of {samples}", header.components.len());
        return Err(ImageError::Unsupported { format, reason });
    }
    let plain = header.components.iter().all(|c| c.horizontal_sampling == 1 && c.vertical_sampling == 1);
    if samples > 1 && !is_ycbcr && !plain {
        return Err(broken("JPEG whose components differ in size, in a TIFF that is not YCbCr".to_owned()));
    }
    decoder.set_lenient(true);
    decoder.set_block_smoothing(true);
    decoder.set_output_format(match samples {
        1 => PixelFormat::Grayscale,
        3 => PixelFormat::Rgb,
        4 => PixelFormat::Cmyk,
        other => return Err(broken(format!("JPEG of {other} components; read are 1, 3 and 4"))),
    });
    decoder.decode_image().map_err(fail)
}

fn truncated(bytes: &[u8]) -> ImageError {
    let reason = "it has no end mark".to_owned();
    ImageError::Truncated { format: Format::Jpeg, bytes: bytes.len(), reason }
}

/// A marker segment: its kind, and what follows its length.
pub(super) fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes.get(2..).unwrap_or_default();
    std::iter::from_fn(move || {
        let start = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff))?;
        let (kind, body) = (rest[start + 1], &rest[start + 2..]);
        if matches!(kind, 0x01 | 0xd0..=0xd9) {
            rest = body;
            return Some((kind, &body[..0]));
        }
        let length = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?])).max(2);
        // The last segment may be cut short.
        let end = length.min(body.len());
        rest = &body[end..];
        Some((kind, &body[2..end]))
    })
}

/// Width and height, read off the frame header alone.
fn size_of(bytes: &[u8]) -> Result<(u64, u64), ImageError> {
    let frame = |kind: u8| matches!(kind, 0xc0..=0xcf) && !matches!(kind, 0xc4 | 0xc8 | 0xcc);
    let header = segments(bytes).take_while(|(kind, _)| *kind != 0xda).find(|(kind, _)| frame(*kind));
    match header {
        Some((_, [_, h0, h1, w0, w1, ..])) => {
            Ok((u16::from_be_bytes([*w0, *w1]).into(), u16::from_be_bytes([*h0, *h1]).into()))
        }
        _ if ends(bytes) => {
            Err(ImageError::Broken { format: Format::Jpeg, reason: "it has no frame header".to_owned() })
        }
        _ => Err(truncated(bytes)),
    }
}

/// Whether an end mark follows the pixels; Pillow calls an image without one truncated.
fn ends(bytes: &[u8]) -> bool {
    let scans = segments(bytes).find(|(kind, _)| *kind == 0xda);
    let Some((_, scan)) = scans else { return false };
    let from = scan.as_ptr() as usize - bytes.as_ptr() as usize;
    bytes[from..].windows(2).any(|pair| pair == [0xff, 0xd9])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_header_is_refused_before_decoding() {
        let bytes = [&[0xff, 0xd8, 0xff, 0xc0, 0, 17, 8, 0xff, 0xff, 0xff, 0xff, 3][..], &[0; 9]].concat();
        let error = decode(&bytes, &Limits::default()).err().unwrap().to_string();
        assert_eq!(error, "JPEG image of 65535 x 65535 pixels is over the limit of 178956970 pixels");
    }
}
