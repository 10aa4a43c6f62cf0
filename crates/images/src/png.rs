//! PNG as Pillow reads it: chunks by its rules of checksums and order, pixels through the `png` crate.
//!
//! Pillow compares the checksums of all chunks in front of the pixels and of none from there on; of the pixels, it compares that of zlib where it is there. So the chunks are read here, and the decoder gets a file of the header and the pixels alone.

use std::io::Cursor;

use ::png::{DecodeOptions, Decoder, DecodingError};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use image::RgbImage;
use image::metadata::Orientation;

use super::decode::{Decoded, Limits};
use super::tiff::inflate;
use super::{Format, ImageError};

const SIGNATURE: [u8; 8] = *b"\x89PNG\r\n\x1a\n";

/// What the chunks in front of the pixels say.
#[derive(Default)]
struct Header {
    width: u32,
    height: u32,
    depth: u8,
    colour: u8,
    interlaced: bool,
    palette: Vec<[u8; 3]>,
    /// Where the first frame of an animation lies, if the pixels are its: left, top, width, height.
    frame: Option<[u32; 4]>,
    /// The number that the next frame's header must have.
    sequence: u32,
    orientation: Option<Orientation>,
}

/// Decodes a PNG; of an animated one the first picture, as large as its canvas.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let mut header = Header::default();
    let mut at = SIGNATURE.len();
    loop {
        let (kind, body) = chunk(bytes, at)?;
        if matches!(&kind, b"IDAT" | b"fdAT" | b"IEND") {
            break;
        }
        let sum = body.end.checked_add(4).and_then(|end| bytes.get(body.end..end));
        let data = bytes.get(body.clone()).ok_or_else(|| cut(bytes, "it ends within a chunk"))?;
        header.read(kind, data)?;
        let mut crc = flate2::Crc::new();
        crc.update(&kind);
        crc.update(data);
        if sum != Some(&crc.sum().to_be_bytes()) {
            return Err(broken(format!("wrong checksum of the chunk {}", name(kind))));
        }
        at = body.end + 4;
    }
    let samples = header.samples()?;
    limits.check(Format::Png, header.width.into(), header.height.into())?;
    let pixels = pixels(bytes, at, &mut header)?;
    let [left, top, width, height] = header.frame.unwrap_or([0, 0, header.width, header.height]);
    let raw = read(bytes, &header, &pixels, width, height)?;
    let rgb = header.to_rgb(&raw, width as usize, height as usize, samples);
    let mut image =
        RgbImage::from_raw(width, height, rgb).ok_or_else(|| broken("fewer pixels than its header says"))?;
    if (width, height) != (header.width, header.height) {
        let frame = std::mem::replace(&mut image, RgbImage::new(header.width, header.height));
        image::imageops::replace(&mut image, &frame, left.into(), top.into());
    }
    Ok(Decoded { pixels: image, orientation: header.orientation.unwrap_or(Orientation::NoTransforms) })
}

/// The kind of the chunk at a position, and where its body lies, if the file goes on that far.
fn chunk(bytes: &[u8], at: usize) -> Result<([u8; 4], std::ops::Range<usize>), ImageError> {
    let head = bytes.get(at..at + 8).ok_or_else(|| cut(bytes, "it ends before its pixels"))?;
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let kind = [head[4], head[5], head[6], head[7]];
    // Pillow asks for characters of words.
    if !kind.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_') {
        return Err(broken(format!("a chunk named {}", name(kind))));
    }
    Ok((kind, at + 8..at + 8 + length))
}

impl Header {
    /// Takes what matters of a chunk, and refuses those that Pillow refuses.
    fn read(&mut self, kind: [u8; 4], data: &[u8]) -> Result<(), ImageError> {
        let four = |at: usize| data.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        let least = match &kind {
            b"IHDR" => 13,
            b"tRNS" if self.colour == 2 => 6,
            b"tRNS" if self.colour == 0 && self.depth > 0 => 2,
            b"gAMA" => 4,
            b"cHRM" => 32,
            b"sRGB" => 1,
            b"pHYs" => 9,
            b"acTL" => 8,
            b"fcTL" => 26,
            _ => 0,
        };
        if data.len() < least {
            return Err(broken(format!("{} bytes in the chunk {}, {least} expected", data.len(), name(kind))));
        }
        match &kind {
            b"IHDR" => {
                (self.width, self.height, self.depth, self.colour) = (four(0), four(4), data[8], data[9]);
                self.interlaced |= data[12] != 0;
                if data[11] != 0 {
                    return Err(broken(format!("filter method {}, 0 expected", data[11])));
                }
            }
            b"PLTE" if self.colour == 3 => self.palette = data.as_chunks().0.to_vec(),
            b"iCCP" | b"zTXt" => {
                let end = data.iter().position(|byte| *byte == 0);
                let method = end.and_then(|end| data.get(end + 1)).copied();
                let missing = kind == *b"iCCP" && method.is_none();
                if missing || method.is_some_and(|method| method != 0) {
                    return Err(broken(format!(
                        "compression method {method:?} in the chunk {}, 0 expected",
                        name(kind)
                    )));
                }
            }
            b"fcTL" => {
                let [number, width, height, left, top] = [0, 4, 8, 12, 16].map(four);
                let fits = |from: u32, length: u32, all| from.checked_add(length).is_some_and(|end| end <= all);
                if number != self.sequence || !fits(left, width, self.width) || !fits(top, height, self.height) {
                    return Err(broken("a frame out of order or outside of its canvas"));
                }
                self.sequence += 1;
                self.frame = Some([left, top, width, height]);
            }
            b"eXIf" => self.orientation = Orientation::from_exif_chunk(data),
            _ => {}
        }
        Ok(())
    }

    /// Samples of a pixel.
    fn samples(&self) -> Result<usize, ImageError> {
        match (self.colour, self.depth) {
            (0, 1 | 2 | 4 | 8 | 16) | (3, 1 | 2 | 4 | 8) => Ok(1),
            (4, 8 | 16) => Ok(2),
            (2, 8 | 16) => Ok(3),
            (6, 8 | 16) => Ok(4),
            (colour, depth) => Err(broken(format!("colour type {colour} of {depth} bits"))),
        }
    }

    /// Alpha is dropped; 16-bit grey is clipped at 255, other samples of 16 bits keep their high byte.
    fn to_rgb(&self, raw: &[u8], width: usize, height: usize, samples: usize) -> Vec<u8> {
        let depth = usize::from(self.depth);
        let grey = |value: u8| [value; 3];
        match (self.colour, depth) {
            (2, 8) => raw.to_vec(),
            (0, 8) => raw.iter().flat_map(|value| grey(*value)).collect(),
            (0, 16) => raw.as_chunks().0.iter().flat_map(|b| grey(u16::from_be_bytes(*b).min(255) as u8)).collect(),
            (4, _) => raw.iter().step_by(samples * depth / 8).flat_map(|value| grey(*value)).collect(),
            (2 | 6, _) => {
                let step = depth / 8;
                raw.chunks_exact(samples * step).flat_map(|pixel| [pixel[0], pixel[step], pixel[2 * step]]).collect()
            }
            _ => {
                let most = ((1_u16 << depth) - 1) as u8;
                let colour = |index: u8| match self.colour {
                    3 => self.palette.get(usize::from(index)).copied().unwrap_or([0; 3]),
                    _ => grey(index * (255 / most)),
                };
                let rows = raw.chunks_exact((width * depth).div_ceil(8)).take(height);
                let value = |row: &[u8], x: usize| row[x * depth / 8] >> (8 - depth - x * depth % 8) & most;
                rows.flat_map(|row| (0..width).flat_map(move |x| colour(value(row, x)))).collect()
            }
        }
    }
}

/// The compressed pixels from the first chunk of them on; what follows is looked over as Pillow does.
fn pixels(bytes: &[u8], mut at: usize, header: &mut Header) -> Result<Vec<u8>, ImageError> {
    let mut pixels = Vec::new();
    loop {
        let (kind, body) = match chunk(bytes, at) {
            Ok(found) => found,
            // The file may end, or turn into something else, once the pixels are there.
            Err(_) if !pixels.is_empty() => return Ok(pixels),
            Err(error) => return Err(error),
        };
        let skip = match &kind {
            b"IDAT" => 0,
            b"fdAT" => 4,
            _ => break,
        };
        let end = body.end.min(bytes.len());
        pixels.extend_from_slice(bytes.get(body.start + skip..end).unwrap_or_default());
        at = body.end + 4;
    }
    while let Ok((kind, body)) = chunk(bytes, at) {
        // The next frame of an animation.
        if matches!(&kind, b"IEND" | b"fcTL") {
            break;
        }
        let data = bytes.get(body.clone()).ok_or_else(|| cut(bytes, "it ends within a chunk"))?;
        if !matches!(&kind, b"IDAT" | b"fdAT" | b"IHDR" | b"PLTE") {
            header.read(kind, data)?;
        }
        at = body.end + 4;
    }
    Ok(pixels)
}

/// Samples as they are, rows of whole bytes.
fn read(bytes: &[u8], header: &Header, pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>, ImageError> {
    let fail = |error: DecodingError| ImageError::from_decoder(Format::Png, bytes.len(), &error);
    let first = unfilter(header, pixels, width, height);
    let Err(error) = first else { return first.map_err(fail) };
    // Pillow stops once it has all rows, so what follows them may be damaged or missing.
    let due = filtered_bytes(header, width as usize, height as usize)?;
    let mut raw = vec![0; due];
    if !inflate(pixels, &mut raw) {
        return Err(fail(error));
    }
    let mut stored = ZlibEncoder::new(Vec::new(), Compression::none());
    std::io::Write::write_all(&mut stored, &raw).map_err(|error| fail(error.into()))?;
    let stored = stored.finish().map_err(|error| fail(error.into()))?;
    unfilter(header, &stored, width, height).map_err(fail)
}

/// Bytes of all rows with their filters' numbers, pass by pass.
fn filtered_bytes(header: &Header, width: usize, height: usize) -> Result<usize, ImageError> {
    let bits = header.samples()? * usize::from(header.depth);
    let rows = |w: usize, h: usize| if w == 0 { 0 } else { h * (1 + (w * bits).div_ceil(8)) };
    if !header.interlaced {
        return Ok(rows(width, height));
    }
    let passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];
    let along = |size: usize, from, step: usize| size.saturating_sub(from).div_ceil(step);
    Ok(passes.iter().map(|(x, y, dx, dy)| rows(along(width, *x, *dx), along(height, *y, *dy))).sum())
}

/// Decodes a file of the header and the pixels alone; a palette's indices go as grey, which is packed alike.
fn unfilter(header: &Header, pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>, DecodingError> {
    let mut file = Vec::with_capacity(pixels.len() + 64);
    file.extend(SIGNATURE);
    let mut add = |kind: &[u8; 4], body: &[u8]| {
        file.extend((body.len() as u32).to_be_bytes());
        file.extend(kind);
        file.extend(body);
        // Checksums that are not looked at.
        file.extend([0; 4]);
    };
    let colour = if header.colour == 3 { 0 } else { header.colour };
    let tail = [header.depth, colour, 0, 0, u8::from(header.interlaced)];
    add(b"IHDR", &[&width.to_be_bytes()[..], &height.to_be_bytes(), &tail].concat());
    add(b"IDAT", pixels);
    add(b"IEND", &[]);
    let mut options = DecodeOptions::default();
    options.set_ignore_crc(true);
    options.set_ignore_adler32(false);
    let mut decoder = Decoder::new_with_options(Cursor::new(file), options);
    decoder.set_limits(::png::Limits { bytes: usize::MAX });
    let mut reader = decoder.read_info()?;
    let mut out = vec![0; reader.output_buffer_size().ok_or(DecodingError::LimitsExceeded)?];
    reader.next_frame(&mut out)?;
    reader.finish()?;
    Ok(out)
}

fn name(kind: [u8; 4]) -> String {
    kind.escape_ascii().to_string()
}

fn broken(reason: impl Into<String>) -> ImageError {
    ImageError::Broken { format: Format::Png, reason: reason.into() }
}

fn cut(bytes: &[u8], reason: &str) -> ImageError {
    ImageError::Truncated { format: Format::Png, bytes: bytes.len(), reason: reason.to_owned() }
}
