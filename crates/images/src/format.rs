//! Formats, told by the first bytes of a file.

use std::fmt;

use super::{ImageError, targa};

/// The image formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Portable Network Graphics; the first picture of an animated one.
    Png,
    /// JPEG, baseline and progressive.
    Jpeg,
    /// WebP, lossy and lossless; the first frame of an animated one.
    WebP,
    /// The first frame of a GIF.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// Windows bitmap without its file header.
    Dib,
    /// The first page of a TIFF.
    Tiff,
    /// The largest picture of a Windows icon.
    Ico,
    /// PBM, PGM, PPM and grey PFM.
    Ppm,
    /// The "quite OK" image format.
    Qoi,
    /// Truevision Targa.
    Tga,
}

/// What messages say of the formats.
pub(super) const READ: &str = "known formats are PNG, JPEG, WebP, GIF, BMP, TIFF, ICO, PBM, PGM, PPM, PFM, QOI and TGA";

/// First bytes of formats that are known and not read, most of which Pillow reads.
const NOT_READ: [(&[u8], &str); 30] = [
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"8BPS", "Photoshop's PSD"),
    (b"DDS ", "DDS"),
    (b"icns", "ICNS"),
    (b"\x01\xda", "SGI"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
    (b"\x0a\x05\x01", "PCX"),
    (b"\x0a\x03\x01", "PCX"),
    (b"\xb1\x68\xde\x3a", "DCX"),
    (b"SIMPLE", "FITS"),
    (b"/* XPM */", "XPM"),
    (b"#define", "XBM"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"\xd7\xcd\xc6\x9a\0\0", "WMF"),
    (b"\x01\0\0\0\x6c\0\0\0", "EMF"),
    (b"\0\0\x01\xb3", "MPEG"),
    (b"BLP", "BLP"),
    (b"GRIB", "GRIB"),
    (b"\x89HDF", "HDF5"),
    (b"DanM", "MSP"),
    (b"LinS", "MSP"),
    (b"<svg", "SVG"),
];

impl Format {
    /// The format that the first bytes tell.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, ImageError> {
        let starts = |start: &[u8]| bytes.starts_with(start);
        let brand =
            |names: &[&[u8]]| bytes.get(4..8) == Some(b"ftyp") && names.contains(&bytes.get(8..12).unwrap_or(b""));
        let netpbm = starts(b"P") && bytes.get(1).is_some_and(|kind| b"0123456fy".contains(kind));
        let dib = bytes
            .first_chunk()
            .is_some_and(|head| matches!(u32::from_le_bytes(*head), 12 | 40 | 52 | 56 | 64 | 108 | 124));
        Ok(if starts(b"\x89PNG\r\n\x1a\n") {
            Self::Png
        } else if starts(b"\xff\xd8\xff") {
            Self::Jpeg
        } else if starts(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Self::WebP
        } else if starts(b"GIF87a") || starts(b"GIF89a") {
            Self::Gif
        } else if starts(b"BM") {
            Self::Bmp
        } else if [&b"II\x2a\0"[..], b"MM\0\x2a", b"MM\x2a\0", b"II\0\x2a", b"MM\0\x2b", b"II\x2b\0"]
            .iter()
            .any(|s| starts(s))
        {
            Self::Tiff
        } else if starts(b"\0\0\x01\0") {
            Self::Ico
        } else if netpbm {
            Self::Ppm
        } else if starts(b"qoif") {
            Self::Qoi
        } else if brand(&[b"avif", b"avis"]) {
            return Err(ImageError::NotRead { name: "AVIF" });
        } else if brand(&[b"heic", b"heix", b"hevc", b"mif1", b"msf1"]) {
            return Err(ImageError::NotRead { name: "HEIC" });
        } else if starts(b"\0\0\x02\0") && bytes.get(4..6).is_some_and(|count| count != [0, 0]) {
            // A Targa may begin alike, but with no number here.
            return Err(ImageError::NotRead { name: "CUR, a Windows cursor," });
        } else if let Some((_, name)) = NOT_READ.iter().find(|(start, _)| starts(start)) {
            return Err(ImageError::NotRead { name });
        } else if dib {
            Self::Dib
        } else if targa::accepts(bytes) {
            Self::Tga
        } else {
            return Err(ImageError::Unknown { start: bytes.iter().take(8).copied().collect() });
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Dib => "DIB",
            Self::Tiff => "TIFF",
            Self::Ico => "ICO",
            Self::Ppm => "PPM",
            Self::Qoi => "QOI",
            Self::Tga => "TGA",
        })
    }
}
