//! The first page of a TIFF, read as Pillow reads it.
//!
//! Pillow reads uncompressed pages itself, from each offset on and whatever the byte counts say, and all others through libtiff; the two differ in their treatment of damage, of planes and of YCbCr, and so do [`raw`] and [`coded`] here.

mod ccitt;
mod codec;
mod coded;
mod directory;
mod kind;
mod lab;
mod raw;
mod ycbcr;

use image::RgbImage;
use image::metadata::Orientation;

pub(super) use self::codec::inflate;
use self::directory::{Directory, tag};
use self::kind::{Kind, Meaning};
use super::decode::{Decoded, Limits};
use super::{Format, ImageError};

/// What is read of a page before its pixels.
struct Page<'a> {
    bytes: &'a [u8],
    /// Byte order of samples of 16 and 32 bits.
    little: bool,
    directory: Directory,
    width: usize,
    height: usize,
    compression: u32,
    /// Samples lie in planes, each of one of the colours.
    planar: bool,
    kind: Kind,
}

/// Decodes the first page.
pub(super) fn decode(bytes: &[u8], limits: &Limits) -> Result<Decoded, ImageError> {
    let (directory, little) = directory::read(bytes)?;
    let (Some(width), Some(height)) = (directory.one(tag::WIDTH), directory.one(tag::HEIGHT)) else {
        return Err(broken("it has no width or no height"));
    };
    limits.check(Format::Tiff, width, height)?;
    let compression = directory.one(tag::COMPRESSION).unwrap_or(1) as u32;
    let planar = directory.one(tag::PLANAR) == Some(2);
    let kind = Kind::of(&directory, little, compression, planar)?;
    let page =
        Page { bytes, little, width: width as usize, height: height as usize, compression, planar, kind, directory };
    let mut data = match (compression, page.kind.meaning) {
        (1, _) => raw::read(&page)?,
        (codec::JPEG, _) | (_, Meaning::Grey) => coded::read(&page)?,
        (_, Meaning::YCbCr) => ycbcr::read(&page)?,
        _ => coded::read(&page)?,
    };
    data.truncate(page.width * page.height * 3);
    let pixels = RgbImage::from_raw(page.width as u32, page.height as u32, data)
        .ok_or_else(|| broken("fewer pixels than its header says"))?;
    let orientation =
        page.directory.one(tag::ORIENTATION).and_then(|value| Orientation::from_exif(value.try_into().ok()?));
    Ok(Decoded { pixels, orientation: orientation.unwrap_or(Orientation::NoTransforms) })
}

fn broken(reason: impl Into<String>) -> ImageError {
    ImageError::Broken { format: Format::Tiff, reason: reason.into() }
}

fn unsupported(reason: impl Into<String>) -> ImageError {
    ImageError::Unsupported { format: Format::Tiff, reason: reason.into() }
}

fn truncated(bytes: &[u8], reason: impl Into<String>) -> ImageError {
    ImageError::Truncated { format: Format::Tiff, bytes: bytes.len(), reason: reason.into() }
}
