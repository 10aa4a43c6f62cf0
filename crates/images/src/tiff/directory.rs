//! The header and the first directory of a TIFF, classic or big: tags and their numbers.

use std::collections::BTreeMap;

use super::super::ImageError;
use super::{broken, truncated};

/// Numbers of the tags that are read.
pub(super) mod tag {
    pub const WIDTH: u16 = 256;
    pub const HEIGHT: u16 = 257;
    pub const BITS: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const STRIP_OFFSETS: u16 = 273;
    pub const ORIENTATION: u16 = 274;
    pub const SAMPLES: u16 = 277;
    pub const ROWS_PER_STRIP: u16 = 278;
    pub const STRIP_COUNTS: u16 = 279;
    pub const PLANAR: u16 = 284;
    pub const T4_OPTIONS: u16 = 292;
    pub const PREDICTOR: u16 = 317;
    pub const COLOUR_MAP: u16 = 320;
    pub const TILE_WIDTH: u16 = 322;
    pub const TILE_HEIGHT: u16 = 323;
    pub const TILE_OFFSETS: u16 = 324;
    pub const TILE_COUNTS: u16 = 325;
    pub const EXTRA_SAMPLES: u16 = 338;
    pub const SAMPLE_FORMAT: u16 = 339;
    pub const JPEG_TABLES: u16 = 347;
    pub const YCBCR_COEFFICIENTS: u16 = 529;
    pub const YCBCR_SUBSAMPLING: u16 = 530;
    pub const REFERENCE_BLACK_WHITE: u16 = 532;
    pub const WINDOWS_MEDIA_PHOTO: u16 = 0xbc01;
}

/// Tags with their values; a value is what Pillow would see, so one whose bytes are not in the file is none.
#[derive(Debug, Default)]
pub(super) struct Directory {
    numbers: BTreeMap<u16, Vec<u64>>,
    fractions: BTreeMap<u16, Vec<f32>>,
}

impl Directory {
    /// The first value of a tag of whole numbers.
    pub fn one(&self, tag: u16) -> Option<u64> {
        self.all(tag).first().copied()
    }

    /// The values of a tag of whole numbers; none where it is absent.
    pub fn all(&self, tag: u16) -> &[u64] {
        self.numbers.get(&tag).map_or(&[], Vec::as_slice)
    }

    /// The values of a tag of fractions.
    pub fn fractions(&self, tag: u16) -> Option<&[f32]> {
        self.fractions.get(&tag).map(Vec::as_slice)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    little: bool,
}

impl Reader<'_> {
    /// The number of `size` bytes at a position.
    fn number(&self, at: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
        Some(if self.little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) })
    }
}

/// Reads the header and the first directory; whether numbers lie low byte first comes with it.
pub(super) fn read(bytes: &[u8]) -> Result<(Directory, bool), ImageError> {
    let little = bytes.starts_with(b"II");
    let reader = Reader { bytes, little };
    // Pillow knows a big TIFF by the third byte, and so reads none that has its high bytes first.
    let big = bytes.get(2) == Some(&43);
    let (entry, room) = if big { (20, 8) } else { (12, 4) };
    let cut = || truncated(bytes, "it ends before its directory");
    let start = if big { reader.number(8, 8) } else { reader.number(4, 4) }.ok_or_else(cut)?;
    let start = usize::try_from(start).map_err(|_| cut())?;
    let count = reader.number(start, if big { 8 } else { 2 }).ok_or_else(cut)?;
    let first = start + if big { 8 } else { 2 };
    let mut directory = Directory::default();
    for index in 0..usize::try_from(count).unwrap_or(usize::MAX) {
        let at = index.checked_mul(entry).and_then(|offset| first.checked_add(offset)).ok_or_else(cut)?;
        if at.checked_add(entry).is_none_or(|end| end > bytes.len()) {
            return Err(cut());
        }
        take(&reader, &mut directory, at, room);
    }
    if directory.one(tag::WINDOWS_MEDIA_PHOTO).is_some() {
        return Err(broken("it is a Windows Media Photo, which is not read"));
    }
    Ok((directory, little))
}

/// Adds the entry at a position, if it is of a known type and its values are in the file.
fn take(reader: &Reader, directory: &mut Directory, at: usize, room: usize) -> Option<()> {
    let (tag, kind) = (reader.number(at, 2)? as u16, reader.number(at + 2, 2)?);
    let size = match kind {
        1 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16 => 8,
        _ => return None,
    };
    let count = usize::try_from(reader.number(at + 4, room)?).ok()?;
    let length = count.checked_mul(size)?;
    let values = at + 4 + room;
    let start = if length > room { usize::try_from(reader.number(values, room)?).ok()? } else { values };
    if count == 0 || start.checked_add(length)? > reader.bytes.len() {
        return None;
    }
    let number = |index: usize, size| reader.number(start + index * size, size);
    if kind == 5 {
        let part = |index| number(index, 4).map(|value| value as f32);
        let values = (0..count).filter_map(|i| Some(part(2 * i)? / part(2 * i + 1)?)).collect();
        directory.fractions.insert(tag, values);
    } else if !matches!(kind, 10..=12) {
        directory.numbers.insert(tag, (0..count).filter_map(|i| number(i, size)).collect());
    }
    Some(())
}
