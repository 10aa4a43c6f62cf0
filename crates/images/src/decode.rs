//! Decoding to RGB as Pillow's `Image.open(...).convert("RGB")` does: the format by content, the size checked first.
//!
//! Alpha is dropped, not composited; 16-bit grey is clipped at 255 and other 16-bit samples keep their high byte; the EXIF orientation is left alone unless asked for (a TIFF is always turned upright, as Pillow does).

use std::fs::File;
use std::io::Read;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::Duration;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};

use super::{Format, ImageError, bmp, fetch, gif, icon, jpeg, netpbm, png, qoi, targa, tiff, webp};

/// What an image may cost before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels, read off the header before anything is allocated; by default where Pillow suspects a decompression bomb.
    pub max_pixels: u64,
    /// Longest side in pixels: decoders take time for each row, however short it is.
    pub max_side: u64,
    /// Most bytes of the encoded image.
    pub max_bytes: u64,
    /// Longest time that fetching from an address may take.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: 178_956_970, max_side: 1 << 24, max_bytes: 1 << 28, timeout: Duration::from_secs(60) }
    }
}

impl Limits {
    /// Refuses a size that is over the limit, or that has no pixels.
    pub(super) fn check(&self, format: Format, width: u64, height: u64) -> Result<(), ImageError> {
        if width == 0 || height == 0 {
            let reason = format!("it has no pixels: {width} x {height}");
            return Err(ImageError::Broken { format, reason });
        }
        if width.saturating_mul(height) > self.max_pixels {
            return Err(ImageError::TooManyPixels { format, width, height, limit: self.max_pixels });
        }
        if width.max(height) > self.max_side {
            return Err(ImageError::SideTooLong { format, width, height, limit: self.max_side });
        }
        Ok(())
    }

    fn check_bytes(&self, bytes: u64) -> Result<(), ImageError> {
        if bytes > self.max_bytes {
            return Err(ImageError::TooManyBytes { bytes, limit: self.max_bytes });
        }
        Ok(())
    }
}

/// How images are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DecodeOptions {
    /// What an image may cost.
    pub limits: Limits,
    /// Turns an image upright as its EXIF orientation says; off by default, as in Pillow.
    pub exif_orientation: bool,
    /// Forbids [`load`] to fetch from addresses.
    pub offline: bool,
}

/// An image before its orientation is applied.
pub(super) struct Decoded {
    pub pixels: RgbImage,
    pub orientation: Orientation,
}

/// Decodes an image to RGB.
///
/// # Errors
/// Bytes that are no image of a known format, or one that is truncated, broken or over the limits.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<RgbImage, ImageError> {
    let limits = &options.limits;
    limits.check_bytes(bytes.len() as u64)?;
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let format = Format::of(bytes)?;
    let read = || match format {
        Format::Png => png::decode(bytes, limits),
        Format::Jpeg => jpeg::decode(bytes, limits),
        Format::WebP => webp::decode(bytes, limits),
        Format::Gif => gif::decode(bytes, limits),
        Format::Bmp => bmp::decode(bytes, limits),
        Format::Dib => bmp::bitmap(bytes, 0, 0, limits, format, 1),
        Format::Tiff => tiff::decode(bytes, limits),
        Format::Ico => icon::decode(bytes, limits),
        Format::Ppm => netpbm::decode(bytes, limits),
        Format::Qoi => qoi::decode(bytes, limits),
        Format::Tga => targa::decode(bytes, limits),
    };
    // Damage may still trip a decoder that is not ours; one bad image must not end a night of training.
    let decoded = catch_unwind(read)
        .unwrap_or_else(|_| Err(ImageError::Broken { format, reason: "its decoder gave up".to_owned() }))?;
    if format != Format::Tiff && !options.exif_orientation {
        return Ok(decoded.pixels);
    }
    let mut upright = DynamicImage::ImageRgb8(decoded.pixels);
    upright.apply_orientation(decoded.orientation);
    Ok(upright.into_rgb8())
}

/// Reads and decodes a file.
///
/// # Errors
/// As [`decode`], or a file that cannot be read; every message names the file.
pub fn open(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<RgbImage, ImageError> {
    let path = path.as_ref();
    let limits = &options.limits;
    let at = |source| ImageError::At { location: path.display().to_string(), error: Box::new(source) };
    let io = |source| ImageError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    limits.check_bytes(file.metadata().map_err(io)?.len()).map_err(at)?;
    let mut bytes = Vec::new();
    // A pipe or a device says nothing of its size, so the read is bounded as well.
    file.take(limits.max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    decode(&bytes, options).map_err(at)
}

/// Reads and decodes what a user names: a file, or an `http://` or `https://` address.
///
/// # Errors
/// As [`open`] and [`fetch`](fn@fetch).
pub fn load(source: &str, options: &DecodeOptions) -> Result<RgbImage, ImageError> {
    if !source.starts_with("http://") && !source.starts_with("https://") {
        return open(source, options);
    }
    if options.offline {
        let reason = "the network is forbidden; give a file instead".to_owned();
        return Err(ImageError::Fetch { url: source.to_owned(), reason });
    }
    let bytes = fetch(source, &options.limits)?;
    decode(&bytes, options).map_err(|error| ImageError::At { location: source.to_owned(), error: Box::new(error) })
}

#[cfg(test)]
mod tests {
    use super::super::format::READ;
    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        RgbImage::new(width, height).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn message(bytes: &[u8], limits: Limits) -> String {
        decode(bytes, &DecodeOptions { limits, ..Default::default() }).unwrap_err().to_string()
    }

    #[test]
    fn a_side_over_the_limit_is_refused_by_the_header() {
        let limits = Limits { max_side: 9, ..Limits::default() };
        for (width, height) in [(10, 1), (1, 10)] {
            let error = decode(&png(width, height), &DecodeOptions { limits, ..Default::default() }).unwrap_err();
            let expected = format!("PNG image of {width} x {height} pixels has a side over the limit of 9 pixels");
            assert_eq!(error.to_string(), expected);
        }
        assert!(decode(&png(9, 9), &DecodeOptions { limits, ..Default::default() }).is_ok());
        assert_eq!(Limits::default().max_side, 16_777_216);
    }

    #[test]
    fn messages_say_what_and_what_is_allowed() {
        let usual = Limits::default();
        assert_eq!(message(b"", usual), "the image is empty: 0 bytes");
        let unknown = message(b"what is this", usual);
        assert!(unknown.contains("77, 68, 61, 74") && unknown.contains("QOI and TGA"), "{unknown}");
        assert_eq!(message(b"%PDF-1.7 ...", usual), format!("PDF is not read; {READ}"));
        let pixels = message(&png(20, 30), Limits { max_pixels: 599, ..usual });
        assert_eq!(pixels, "PNG image of 20 x 30 pixels is over the limit of 599 pixels");
        let bytes = message(&png(20, 30), Limits { max_bytes: 10, ..usual });
        assert!(bytes.ends_with("over the limit of 10 bytes"), "{bytes}");
        let whole = png(20, 30);
        let cut = message(&whole[..whole.len() / 2], usual);
        assert!(cut.starts_with("truncated PNG image"), "{cut}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = open("no/such/image.png", &DecodeOptions::default()).unwrap_err().to_string();
        assert!(error.contains("no/such/image.png"), "{error}");
    }

    #[test]
    fn offline_forbids_addresses() {
        let options = DecodeOptions { offline: true, ..Default::default() };
        let error = load("http://127.0.0.1:9/a.png", &options).unwrap_err().to_string();
        assert!(error.contains("forbidden"), "{error}");
    }
}
