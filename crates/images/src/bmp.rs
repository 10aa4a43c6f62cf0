//! Windows bitmaps, with and without their file header, as Pillow reads them.

use image::RgbImage;
use image::metadata::Orientation;

use super::decode::{Decoded, Limits};
use super::{Format, ImageError};

/// How the bytes of a pixel become RGB.
enum Kind {
    /// Positions of red, green and blue in a pixel of so many bytes.
    Bytes(usize, [usize; 3]),
    /// 5 bits each, or 6 for green.
    Short { wide_green: bool },
    /// Indices of a palette.
    Indices,
}

/// Decodes a file.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let offset = number(bytes, 10, 4)?;
    bitmap(bytes, 14, offset, limits, Format::Bmp, 1)
}

/// Decodes a bitmap whose header lies at a position, of an icon only the upper half, which its header counts double.
pub(super) fn bitmap(
    bytes: &[u8],
    start: usize,
    mut offset: usize,
    limits: &Limits,
    format: Format,
    halves: usize,
) -> Result<Decoded, ImageError> {
    let broken = |reason: String| ImageError::Broken { format, reason };
    let head = number(bytes, start, 4)?;
    if bytes.len() < start.saturating_add(head) {
        return Err(cut(bytes));
    }
    let at = |offset: usize, size: usize| number(bytes, start + 4 + offset, size);
    let mut after = start + head;
    let (width, mut height, bits, padding);
    let (mut compression, mut colours, mut down, mut masks) = (0, 0, false, [0; 4]);
    match head {
        12 => {
            (width, height, bits) = (at(0, 2)?, at(2, 2)?, at(6, 2)?);
            padding = 3;
        }
        40 | 52 | 56 | 64 | 108 | 124 => {
            down = at(7, 1)? == 0xff;
            (width, height, bits) = (at(0, 4)?, at(4, 4)?, at(10, 2)?);
            height = if down { (1 << 32) - height } else { height };
            (compression, colours, padding) = (at(12, 4)?, at(28, 4)?, 4);
            if compression == 3 {
                let (from, count) = match head {
                    40 => (start + 40, 3),
                    52 => (start + 40, 3),
                    _ => (start + 40, 4),
                };
                for (i, mask) in masks.iter_mut().enumerate().take(count) {
                    *mask = number(bytes, from + 4 * i, 4)?;
                }
                after += if head == 40 { 12 } else { 0 };
            }
        }
        _ => return Err(broken(format!("a header of {head} bytes; known are 12, 40, 52, 56, 64, 108 and 124"))),
    }
    height /= halves;
    limits.check(format, width as u64, height as u64)?;
    if colours == 0 {
        colours = 1_usize.checked_shl(bits as u32).unwrap_or(0);
    }
    if offset == start + head && bits <= 8 {
        offset += padding * colours;
    }
    let kind = match (bits, compression) {
        (1 | 4 | 8, 0..=2) => Kind::Indices,
        (16, 0) => Kind::Short { wide_green: false },
        (24, 0) => Kind::Bytes(3, [2, 1, 0]),
        (32, 0) => Kind::Bytes(4, [2, 1, 0]),
        (16, 3) if masks[..3] == [0xf800, 0x7e0, 0x1f] => Kind::Short { wide_green: true },
        (16, 3) if masks[..3] == [0x7c00, 0x3e0, 0x1f] => Kind::Short { wide_green: false },
        (24, 3) if masks[..3] == [0xff_0000, 0xff00, 0xff] => Kind::Bytes(3, [2, 1, 0]),
        (32, 3) => match masks {
            [0xff_0000, 0xff00, 0xff, 0 | 0xff00_0000] | [0, 0, 0, 0] => Kind::Bytes(4, [2, 1, 0]),
            [0xff00_0000, 0xff_0000, 0xff00, 0 | 0xff] => Kind::Bytes(4, [3, 2, 1]),
            [0xff00_0000, 0xff00, 0xff, 0 | 0xff_0000] => Kind::Bytes(4, [3, 1, 0]),
            [0xff, 0xff00, 0xff_0000, 0xff00_0000] => Kind::Bytes(4, [0, 1, 2]),
            _ => return Err(broken(format!("masks {masks:x?} that Pillow does not read"))),
        },
        _ => return Err(broken(format!("compression {compression} of {bits} bits"))),
    };
    let mut palette = Vec::new();
    let mut indexed = bits;
    if matches!(kind, Kind::Indices) {
        if !(1..=65_536).contains(&colours) {
            return Err(broken(format!("a palette of {colours} colours")));
        }
        let end = after.saturating_add(padding * colours).min(bytes.len());
        let entries = bytes.get(after..end).unwrap_or_default();
        after = end;
        let (grey, plain) = greys(entries, padding, colours);
        if grey {
            palette = plain;
            // Pillow reads levels of grey a byte each, whatever the bits, and fails where rows are shorter.
            if colours > 2 && bits != 8 {
                return Err(broken(format!(
                    "{bits} bits with a palette of {colours} greys, which Pillow does not read"
                )));
            }
            indexed = if colours <= 2 { 1 } else { 8 };
        } else {
            if entries.len() > 256 * padding {
                return Err(broken(format!("a palette of {colours} colours, at most 256 expected")));
            }
            palette = entries.chunks_exact(padding).map(|entry| [entry[2], entry[1], entry[0]]).collect();
        }
    }
    let offset = if offset == 0 { after } else { offset };
    let stride = (width * bits).div_ceil(32) * 4;
    let colour = |index: u8| palette.get(usize::from(index)).copied().unwrap_or([0; 3]);
    let mut data = vec![0; width * height * 3];
    let rows = data.chunks_exact_mut(width * 3);
    let rows: Vec<&mut [u8]> = if down { rows.collect() } else { rows.rev().collect() };
    if matches!(compression, 1 | 2) {
        let indices = run_lengths(bytes, offset, width, height, compression == 2).ok_or_else(|| cut(bytes))?;
        for (row, line) in rows.into_iter().zip(indices.chunks_exact(width)) {
            row.as_chunks_mut().0.iter_mut().zip(line).for_each(|(pixel, index)| *pixel = colour(*index));
        }
    } else {
        let length = match kind {
            Kind::Indices => (width * indexed).div_ceil(8),
            _ => width * bits / 8,
        };
        for (y, row) in rows.into_iter().enumerate() {
            let from = offset.saturating_add(y * stride);
            let line = bytes.get(from..from.saturating_add(length)).ok_or_else(|| cut(bytes))?;
            for (x, pixel) in row.as_chunks_mut().0.iter_mut().enumerate() {
                *pixel = match kind {
                    Kind::Bytes(size, order) => order.map(|at| line[x * size + at]),
                    Kind::Short { wide_green } => short(u16::from_le_bytes([line[2 * x], line[2 * x + 1]]), wide_green),
                    Kind::Indices => {
                        let most = ((1_u16 << indexed) - 1) as u8;
                        colour(line[x * indexed / 8] >> (8 - indexed - x * indexed % 8) & most)
                    }
                };
            }
        }
    }
    let pixels = RgbImage::from_raw(width as u32, height as u32, data)
        .ok_or_else(|| broken("fewer pixels than its header says".to_owned()))?;
    Ok(Decoded { pixels, orientation: Orientation::NoTransforms })
}

/// Whether a palette is the levels of grey in order, and these.
fn greys(entries: &[u8], padding: usize, colours: usize) -> (bool, Vec<[u8; 3]>) {
    let levels: Vec<[u8; 3]> = match colours {
        2 => vec![[0; 3], [255; 3]],
        _ => (0..colours.min(256)).map(|level| [level as u8; 3]).collect(),
    };
    let mut found = entries.chunks(padding).map(|entry| entry.get(..3));
    let grey = colours <= 256 && levels.iter().all(|level| found.next() == Some(Some(level)));
    // A single black is one of two levels.
    let levels = if colours == 1 { vec![[0; 3], [255; 3]] } else { levels };
    (grey, levels)
}

/// Levels of 5 or 6 bits to 0..255, truncated.
pub(super) fn short(value: u16, wide_green: bool) -> [u8; 3] {
    let level = |shift: u32, most: u16| (u32::from(value >> shift & most) * 255 / u32::from(most)) as u8;
    match wide_green {
        true => [level(11, 31), level(5, 63), level(0, 31)],
        false => [level(10, 31), level(5, 31), level(0, 31)],
    }
}

/// Indices of run-length codes; none where they end before the picture does.
fn run_lengths(bytes: &[u8], mut at: usize, width: usize, height: usize, halves: bool) -> Option<Vec<u8>> {
    let whole = width * height;
    let mut data = Vec::with_capacity(whole);
    let mut x = 0_usize;
    while data.len() < whole {
        let (Some(count), Some(value)) = (bytes.get(at).copied(), bytes.get(at + 1).copied()) else { break };
        at += 2;
        match (count, value) {
            (0, 0) => {
                data.resize(data.len().next_multiple_of(width), 0);
                x = 0;
            }
            (0, 1) => break,
            (0, 2) => {
                let (Some(right), Some(up)) = (bytes.get(at), bytes.get(at + 1)) else { break };
                at += 2;
                let skip = usize::from(*right) + usize::from(*up) * width;
                data.resize(data.len() + skip.min(whole - data.len()), 0);
                x = data.len() % width;
            }
            (0, count) => {
                let pixels = usize::from(count).min(whole - data.len());
                let length = if halves { pixels.div_ceil(2) } else { pixels };
                let end = (at + length).min(bytes.len());
                let run = bytes.get(at..end).unwrap_or_default();
                at += run.len();
                match halves {
                    true => data.extend(run.iter().flat_map(|b| [b >> 4, b & 15]).take(pixels)),
                    false => data.extend(run),
                }
                if run.len() < length || data.len() == whole {
                    break;
                }
                x += usize::from(count);
                at += at % 2;
            }
            (count, value) => {
                let count = usize::from(count).min(width.saturating_sub(x));
                match halves {
                    true => data.extend([value >> 4, value & 15].iter().cycle().take(count)),
                    false => data.resize(data.len() + count, value),
                }
                x += count;
            }
        }
    }
    (data.len() >= whole).then_some(data)
}

/// The number of `size` bytes at a position, low byte first.
fn number(bytes: &[u8], at: usize, size: usize) -> Result<usize, ImageError> {
    let field = at.checked_add(size).and_then(|end| bytes.get(at..end)).ok_or_else(|| cut(bytes))?;
    Ok(field.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

fn cut(bytes: &[u8]) -> ImageError {
    let reason = "it ends within its header or its pixels".to_owned();
    ImageError::Truncated { format: Format::Bmp, bytes: bytes.len(), reason }
}
