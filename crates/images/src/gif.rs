//! The first frame of a GIF, on a canvas as large as the screen and the frame together, as Pillow loads it.

use ::gif::{DecodeOptions, DecodingError, MemoryLimit};
use image::RgbImage;
use image::metadata::Orientation;

use super::decode::{Decoded, Limits};
use super::{Format, ImageError};

/// Decodes the first frame.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let format = Format::Gif;
    let broken = |error: DecodingError| ImageError::from_decoder(format, bytes.len(), &error);
    let mut options = DecodeOptions::new();
    options.set_memory_limit(MemoryLimit::Unlimited);
    let frame = first_frame(bytes)?;
    let mut decoder = options.read_info(&*frame).map_err(broken)?;
    let (screen_width, screen_height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    let Some(frame) = decoder.next_frame_info().map_err(broken)? else {
        return Err(ImageError::Broken { format, reason: "it has no frame".to_owned() });
    };
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (frame_width, frame_height) = (usize::from(frame.width), usize::from(frame.height));
    let width = screen_width.max(left + frame_width);
    let height = screen_height.max(top + frame_height);
    limits.check(format, width as u64, height as u64)?;
    limits.check(format, frame_width as u64, frame_height as u64)?;

    // What the frame leaves bare has the transparent colour, or else the first.
    let bare = frame.transparent.unwrap_or(0);
    let local = frame.palette.clone();
    let palette = local.or_else(|| decoder.global_palette().map(<[u8]>::to_vec)).unwrap_or_default();
    // Indices past the palette's end are shades of grey, as is everything where there is no palette.
    let mut colours: [[u8; 3]; 256] = std::array::from_fn(|index| [index as u8; 3]);
    for (colour, entry) in colours.iter_mut().zip(palette.as_chunks().0) {
        *colour = *entry;
    }
    let mut indices = vec![0; frame_width * frame_height];
    decoder.read_into_buffer(&mut indices).map_err(broken)?;

    let mut data = vec![0; width * height * 3];
    for pixel in data.as_chunks_mut().0 {
        *pixel = colours[usize::from(bare)];
    }
    let rows = data.chunks_exact_mut(width * 3).skip(top);
    for (row, line) in rows.zip(indices.chunks_exact(frame_width)) {
        for (pixel, index) in row[left * 3..].as_chunks_mut().0.iter_mut().zip(line) {
            *pixel = colours[usize::from(*index)];
        }
    }
    let pixels = RgbImage::from_raw(width as u32, height as u32, data)
        .ok_or_else(|| ImageError::Broken { format, reason: "fewer pixels than its header says".to_owned() })?;
    Ok(Decoded { pixels, orientation: Orientation::NoTransforms })
}

/// A file of the first frame alone, without what Pillow passes over: extensions, bytes between blocks, all that follows.
///
/// A picture without a palette gets one of greys.
fn first_frame(bytes: &[u8]) -> Result<Vec<u8>, ImageError> {
    let format = Format::Gif;
    let cut = || {
        let reason = "it ends before its first frame does".to_owned();
        ImageError::Truncated { format, bytes: bytes.len(), reason }
    };
    let part = |at: usize, length: usize| bytes.get(at..at + length).ok_or_else(cut);
    let palette_bytes = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut head = part(0, 13)?.to_vec();
    let global = palette_bytes(head[10]);
    let mut at = 13 + global;
    let mut transparent = None;
    loop {
        match part(at, 1)?[0] {
            b',' => break,
            b';' => return Err(ImageError::Broken { format, reason: "it has no frame".to_owned() }),
            b'!' => {
                let (label, length) = (part(at + 1, 1)?[0], usize::from(part(at + 2, 1)?[0]));
                if label == 0xf9 && length >= 4 && part(at + 3, 4)?[0] & 1 == 1 {
                    transparent = Some(bytes[at + 6]);
                }
                at += 2;
                while let Some(length @ 1..) = bytes.get(at) {
                    at += 1 + usize::from(*length);
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    let local = palette_bytes(part(at, 10)?[9]);
    let mut end = at + 11 + local;
    part(at, 11 + local)?;
    while let Some(length @ 1..) = bytes.get(end) {
        part(end + 1, usize::from(*length))?;
        end += 1 + usize::from(*length);
    }
    match global + local {
        0 => {
            head[10] |= 0x87;
            head.extend((0..=255_u8).flat_map(|level| [level; 3]));
        }
        _ => head.extend(part(13, global)?),
    }
    if let Some(index) = transparent {
        head.extend([b'!', 0xf9, 4, 1, 0, 0, index, 0]);
    }
    head.extend(&bytes[at..end]);
    head.extend(b"\0;");
    Ok(head)
}
