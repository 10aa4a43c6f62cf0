//! WebP; of an animated one the first frame, on a canvas that is black elsewhere, as libwebp's `WebPAnimDecoder` gives it to Pillow.

use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, RgbImage};

use super::decode::{Decoded, Limits};
use super::{Format, ImageError};

/// Decodes a WebP.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let four = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
    let end = four(4).unwrap_or(0).saturating_add(8);
    let cut = |reason| ImageError::Truncated { format: Format::WebP, bytes: bytes.len(), reason };
    let file = bytes.get(..end).ok_or_else(|| cut(format!("its header says {end} bytes")))?;
    let mut frame = None;
    for (kind, body) in chunks(file.get(12..).unwrap_or_default()) {
        let body = body.ok_or_else(|| cut("it ends within a chunk".to_owned()))?;
        if kind == *b"ANMF" && frame.is_none() {
            frame = Some(body);
        }
    }
    let flags = bytes.get(20).copied().unwrap_or(0);
    match frame {
        Some(frame) if bytes.get(12..16) == Some(b"VP8X") && flags & 2 != 0 => {
            let side = |body: &[u8], at: usize| {
                body.get(at..at + 3).map(|b| u32::from(b[0]) | u32::from(b[1]) << 8 | u32::from(b[2]) << 16)
            };
            let broken = || ImageError::Broken { format: Format::WebP, reason: "a frame without a header".to_owned() };
            let number = |body, at| side(body, at).ok_or_else(broken);
            let (width, height) = (number(bytes, 24)? + 1, number(bytes, 27)? + 1);
            limits.check(Format::WebP, width.into(), height.into())?;
            let (left, top) = (2 * number(frame, 0)?, 2 * number(frame, 3)?);
            let still = still(frame.get(16..).unwrap_or_default(), [number(frame, 6)?, number(frame, 9)?]);
            let picture = read(&still, limits)?;
            let fits = |from: u32, length: u32, all: u32| u64::from(from) + u64::from(length) <= u64::from(all);
            let (w, h) = picture.pixels.dimensions();
            if !fits(left, w, width) || !fits(top, h, height) {
                let reason = format!("a frame of {w} x {h} pixels at {left}, {top} of a canvas of {width} x {height}");
                return Err(ImageError::Broken { format: Format::WebP, reason });
            }
            let mut canvas = RgbImage::new(width, height);
            image::imageops::replace(&mut canvas, &picture.pixels, left.into(), top.into());
            let orientation = WebPDecoder::new(Cursor::new(file)).ok().and_then(|mut all| all.orientation().ok());
            Ok(Decoded { pixels: canvas, orientation: orientation.unwrap_or(Orientation::NoTransforms) })
        }
        _ => read(file, limits),
    }
}

/// The chunks of a file or frame: name and body, none where the body is cut short.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = ([u8; 4], Option<&[u8]>)> {
    std::iter::from_fn(move || {
        let (head, after) = rest.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let body = after.get(..length);
        rest = after.get(length.saturating_add(length % 2)..).unwrap_or_default();
        Some(([head[0], head[1], head[2], head[3]], body))
    })
}

/// A file of its own for the picture of a frame; `sides` are its width and height less one.
fn still(frame: &[u8], sides: [u32; 2]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    if frame.starts_with(b"ALPH") {
        body.extend(b"VP8X\x0a\0\0\0\x10\0\0\0");
        body.extend(sides.iter().flat_map(|side| side.to_le_bytes()[..3].to_vec()));
    }
    for (kind, data) in chunks(frame) {
        if let (b"ALPH" | b"VP8 " | b"VP8L", Some(data)) = (&kind, data) {
            body.extend(kind);
            body.extend((data.len() as u32).to_le_bytes());
            body.extend(data);
            body.resize(body.len().next_multiple_of(2), 0);
        }
    }
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

fn read(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let fail = |error: image::ImageError| ImageError::from_decoder(Format::WebP, bytes.len(), &error);
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(fail)?;
    let (width, height) = decoder.dimensions();
    limits.check(Format::WebP, width.into(), height.into())?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let pixels = match DynamicImage::from_decoder(decoder).map_err(fail)? {
        // Alpha is dropped, not composited.
        DynamicImage::ImageRgba8(rgba) => {
            let data = rgba.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect();
            RgbImage::from_raw(width, height, data).unwrap_or_default()
        }
        other => other.into_rgb8(),
    };
    Ok(Decoded { pixels, orientation })
}
