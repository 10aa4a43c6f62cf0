//! QOI, the "quite OK" image format (qoiformat.org), as Pillow reads it.

use image::RgbImage;
use image::metadata::Orientation;

use super::decode::{Decoded, Limits};
use super::{Format, ImageError};

/// Decodes a picture; alpha is dropped.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let cut = || {
        let reason = "it ends within its header or its pixels".to_owned();
        ImageError::Truncated { format: Format::Qoi, bytes: bytes.len(), reason }
    };
    let head = bytes.get(..14).ok_or_else(cut)?;
    let four = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (width, height) = (four(4), four(8));
    limits.check(Format::Qoi, width.into(), height.into())?;
    let whole = width as usize * height as usize * 3;
    let mut data = Vec::with_capacity(whole.min(bytes.len().saturating_mul(63 * 3)));
    let (mut pixel, mut seen) = ([0, 0, 0, 255_u8], [[0; 4]; 64]);
    let mut rest = bytes[14..].iter().copied();
    let mut next = || rest.next().ok_or_else(cut);
    while data.len() < whole {
        let byte = next()?;
        let [r, g, b, a] = pixel;
        pixel = match byte {
            0xfe => [next()?, next()?, next()?, a],
            0xff => [next()?, next()?, next()?, next()?],
            0..=0x3f => seen[usize::from(byte)],
            0x40..=0x7f => {
                let part = |shift: u8| (byte >> shift & 3).wrapping_sub(2);
                [r.wrapping_add(part(4)), g.wrapping_add(part(2)), b.wrapping_add(part(0)), a]
            }
            0x80..=0xbf => {
                let (green, second) = ((byte & 63).wrapping_sub(32), next()?);
                let part = |nibble: u8| green.wrapping_add(nibble).wrapping_sub(8);
                [r.wrapping_add(part(second >> 4)), g.wrapping_add(green), b.wrapping_add(part(second & 15)), a]
            }
            _ => {
                let count = usize::from(byte & 63) + 1;
                (0..count).for_each(|_| data.extend([r, g, b]));
                continue;
            }
        };
        let [r, g, b, a] = pixel.map(usize::from);
        seen[(r * 3 + g * 5 + b * 7 + a * 11) % 64] = pixel;
        data.extend(&pixel[..3]);
    }
    let pixels = RgbImage::from_raw(width, height, data).ok_or_else(cut)?;
    Ok(Decoded { pixels, orientation: Orientation::NoTransforms })
}
