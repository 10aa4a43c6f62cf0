//! Targa, as Pillow reads it; it has no mark of its own, so a header whose every field makes sense is taken for one.

use image::RgbImage;
use image::metadata::Orientation;

use super::bmp::short;
use super::decode::{Decoded, Limits};
use super::{Format, ImageError};

/// Whether the header makes sense.
pub(super) fn accepts(bytes: &[u8]) -> bool {
    let Some(head) = bytes.get(..18) else { return false };
    let sides = [head[12] | head[13], head[14] | head[15]];
    head[1] <= 1
        && matches!(head[2], 1..=3 | 9..=11)
        && sides.iter().all(|side| *side != 0)
        && matches!(head[16], 1 | 8 | 16 | 24 | 32)
        && (head[1] == 0 || matches!(head[7], 16 | 24 | 32))
}

/// Decodes a picture; alpha is dropped.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let cut = || {
        let reason = "it ends within its header or its pixels".to_owned();
        ImageError::Truncated { format: Format::Tga, bytes: bytes.len(), reason }
    };
    let Some(head) = bytes.get(..18) else { return Err(cut()) };
    let two = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let (width, height) = (two(12), two(14));
    limits.check(Format::Tga, width as u64, height as u64)?;
    let (mapped, kind, depth) = (head[1] == 1, head[2] & 7, usize::from(head[16]));
    let mut at = 18 + usize::from(head[0]);
    let mut palette: Vec<[u8; 3]> = Vec::new();
    if mapped {
        let (start, count, size) = (two(3), two(5), usize::from(head[7]) / 8);
        let entries = bytes.get(at..bytes.len().min(at + count * size)).unwrap_or_default();
        palette = vec![[0; 3]; start];
        palette.extend(entries.chunks_exact(size).map(colour));
        at += count * size;
        if palette.len() > 256 {
            let reason = format!("a palette of {} colours, at most 256 expected", palette.len());
            return Err(ImageError::Broken { format: Format::Tga, reason });
        }
    }
    let known = matches!((kind, depth), (1, 8) | (3, 1 | 8 | 16) | (2, 16 | 24 | 32)) && (kind != 1 || mapped);
    if !known || (depth == 1 && head[2] & 8 != 0) {
        let reason = format!("type {} of {depth} bits", head[2]);
        return Err(ImageError::Unsupported { format: Format::Tga, reason });
    }
    let row = (width * depth).div_ceil(8);
    let rest = bytes.get(at..).ok_or_else(cut)?;
    let unpacked;
    let raw = if head[2] & 8 != 0 {
        unpacked = run_lengths(rest, depth / 8, row * height).ok_or_else(cut)?;
        &unpacked
    } else {
        rest.get(..row * height).ok_or_else(cut)?
    };
    let mut data = vec![0; width * height * 3];
    for (y, line) in raw.chunks_exact(row).enumerate() {
        let y = if head[17] & 0x20 != 0 { y } else { height - 1 - y };
        for (x, pixel) in data[y * width * 3..][..width * 3].as_chunks_mut().0.iter_mut().enumerate() {
            let x = if head[17] & 0x10 != 0 { width - 1 - x } else { x };
            let size = depth / 8;
            *pixel = match (kind, depth) {
                (1, _) => palette.get(usize::from(line[x])).copied().unwrap_or([0; 3]),
                (3, 1) => [if line[x / 8] << (x % 8) & 0x80 == 0 { 0 } else { 255 }; 3],
                (3, _) => [line[x * size]; 3],
                _ => colour(&line[x * size..][..size]),
            };
        }
    }
    let pixels = RgbImage::from_raw(width as u32, height as u32, data).ok_or_else(cut)?;
    Ok(Decoded { pixels, orientation: Orientation::NoTransforms })
}

fn colour(bytes: &[u8]) -> [u8; 3] {
    match *bytes {
        [low, high] => short(u16::from_le_bytes([low, high]), false),
        [blue, green, red, ..] => [red, green, blue],
        _ => [0; 3],
    }
}

/// Packets of a repeated pixel or of several, which may go on from row to row.
fn run_lengths(bytes: &[u8], size: usize, whole: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(whole);
    let mut rest = bytes;
    while out.len() < whole {
        let (head, after) = rest.split_first()?;
        let count = usize::from(head & 0x7f) + 1;
        if head & 0x80 != 0 {
            let pixel = after.get(..size)?;
            (0..count).for_each(|_| out.extend(pixel));
            rest = &after[size..];
        } else {
            out.extend(after.get(..count * size)?);
            rest = &after[count * size..];
        }
    }
    out.truncate(whole);
    Some(out)
}
