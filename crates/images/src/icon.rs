//! Windows icons: the largest picture, of those with the fewest bits, as Pillow picks it.

use super::decode::{Decoded, Limits};
use super::{Format, ImageError, bmp, png};

/// Decodes the largest picture; its mask is alpha, which is dropped.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let cut =
        |reason: &str| ImageError::Truncated { format: Format::Ico, bytes: bytes.len(), reason: reason.to_owned() };
    let two = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let four = |at: usize| two(at) | two(at + 2) << 16;
    let count = if bytes.len() < 6 { 0 } else { two(4) };
    if bytes.len() < 6 + 16 * count {
        return Err(cut("it ends within its list of pictures"));
    }
    let side = |byte: u8| if byte == 0 { 256 } else { usize::from(byte) };
    let best = (0..count).map(|i| 6 + 16 * i).min_by_key(|at| {
        let area = side(bytes[*at]) * side(bytes[at + 1]);
        let depth = match (two(at + 6), bytes[at + 2]) {
            (0, 0) => 256,
            (0, colours) => usize::from(colours).next_power_of_two().ilog2().max(1) as usize,
            (bits, _) => bits,
        };
        (usize::MAX - area, depth)
    });
    let Some(best) = best else {
        return Err(ImageError::Broken { format: Format::Ico, reason: "it has no picture".to_owned() });
    };
    let (bits, size, start) = (two(best + 6), four(best + 8), four(best + 12));
    let picture = bytes.get(start..).ok_or_else(|| cut("it ends before its picture"))?;
    if picture.starts_with(b"\x89PNG\r\n\x1a\n") {
        return png::decode(picture, limits);
    }
    let decoded = bmp::bitmap(bytes, start, 0, limits, Format::Ico, 2)?;
    let (width, height) = (decoded.pixels.width() as usize, decoded.pixels.height() as usize);
    let mask = width.next_multiple_of(32) * height / 8;
    let end = start.saturating_add(size);
    if bits != 32 && (end < mask || end.min(bytes.len()) < mask || end > bytes.len()) {
        return Err(cut("it ends within its mask"));
    }
    Ok(decoded)
}
