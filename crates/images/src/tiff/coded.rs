//! Compressed pages: strips and tiles through their codec, as libtiff gives them.

use super::super::ImageError;
use super::super::convert::{cmyk_to_rgb, divide};
use super::directory::tag;
use super::kind::Meaning;
use super::{Page, broken, codec, truncated, unsupported};

/// Where the strips or tiles of a page lie.
pub(super) struct Layout {
    pub tile_width: usize,
    pub tile_height: usize,
    pub tiled: bool,
    across: usize,
    down: usize,
}

impl Layout {
    pub fn of(page: &Page) -> Result<Self, ImageError> {
        let one = |tag: u16| page.directory.one(tag).and_then(|value| usize::try_from(value).ok());
        let tiled = page.directory.one(tag::TILE_WIDTH).is_some();
        let (w, h) = match tiled {
            true => (one(tag::TILE_WIDTH).unwrap_or(0), one(tag::TILE_HEIGHT).unwrap_or(0)),
            false => (page.width, one(tag::ROWS_PER_STRIP).unwrap_or(page.height).min(page.height)),
        };
        // Tiles reach past the page by less than themselves, so no sound file has much larger ones.
        if w == 0 || h == 0 || w.saturating_mul(h) > (page.width * page.height).saturating_mul(4).max(1 << 22) {
            return Err(broken(format!("strips or tiles of {w} x {h} pixels")));
        }
        Ok(Self { tile_width: w, tile_height: h, tiled, across: page.width.div_ceil(w), down: page.height.div_ceil(h) })
    }

    /// Strips or tiles of a plane.
    pub fn count(&self) -> usize {
        self.across * self.down
    }

    /// The corner of one of them within the page, and its size there.
    pub fn place(&self, page: &Page, index: usize) -> (usize, usize, usize, usize) {
        let (x, y) = (index % self.across * self.tile_width, index / self.across * self.tile_height);
        (x, y, self.tile_width.min(page.width - x), self.tile_height.min(page.height - y))
    }

    /// Rows that are coded: all of a tile's, and those of a strip that the page has.
    pub fn rows(&self, page: &Page, index: usize) -> usize {
        if self.tiled { self.tile_height } else { self.place(page, index).3 }
    }

    /// The coded bytes of a strip or tile.
    pub fn bytes<'a>(&self, page: &Page<'a>, index: usize) -> Result<&'a [u8], ImageError> {
        let (offsets, counts) = match self.tiled {
            true => (tag::TILE_OFFSETS, tag::TILE_COUNTS),
            false => (tag::STRIP_OFFSETS, tag::STRIP_COUNTS),
        };
        let of = |tag| page.directory.all(tag).get(index).and_then(|value| usize::try_from(*value).ok());
        match (of(offsets), of(counts)) {
            (Some(offset), Some(count @ 1..)) => offset
                .checked_add(count)
                .and_then(|end| page.bytes.get(offset..end))
                .ok_or_else(|| truncated(page.bytes, "it ends within a strip or tile")),
            _ => Err(broken(format!("no bytes for strip or tile {index}"))),
        }
    }
}

/// RGB of a compressed page.
pub(super) fn read(page: &Page) -> Result<Vec<u8>, ImageError> {
    let layout = Layout::of(page)?;
    let kind = &page.kind;
    let mut data = vec![0; page.width * page.height * 3];
    if page.planar && kind.samples > 1 {
        return planes(page, &layout);
    }
    let row = kind.row_bytes(layout.tile_width, kind.samples);
    // libtiff gives samples in the order of the machine, which Pillow heeds for whole numbers without a sign alone.
    let little = page.little || !matches!(kind.meaning, Meaning::Float | Meaning::Signed);
    for index in 0..layout.count() {
        let (x, y, w, h) = layout.place(page, index);
        let rows = layout.rows(page, index);
        let decoded = codec::decode(page, layout.bytes(page, index)?, layout.tile_width, rows, kind.samples)?;
        for line in 0..h {
            let at = ((y + line) * page.width + x) * 3;
            let out = &mut data[at..at + w * 3];
            match (page.compression, kind.meaning) {
                (codec::JPEG, Meaning::YCbCr) => out.copy_from_slice(&decoded[line * row..][..w * 3]),
                _ => kind.to_rgb(&decoded[line * row..(line + 1) * row], little, out),
            }
        }
    }
    Ok(data)
}

/// Planes of 8 or 16 bits, of the latter the high bytes.
fn planes(page: &Page, layout: &Layout) -> Result<Vec<u8>, ImageError> {
    let kind = &page.kind;
    if !matches!(kind.depth, 8 | 16) || kind.bands < 3 {
        return Err(unsupported(format!("planes of {} bits; read are 8 and 16, of three planes or more", kind.depth)));
    }
    let step = kind.depth / 8;
    let mut samples = vec![0; page.width * page.height * 4];
    for band in 0..kind.bands {
        for index in 0..layout.count() {
            let (x, y, w, h) = layout.place(page, index);
            let bytes = layout.bytes(page, band * layout.count() + index)?;
            let decoded = codec::decode(page, bytes, layout.tile_width, layout.rows(page, index), 1)?;
            for line in 0..h {
                let at = ((y + line) * page.width + x) * 4 + band;
                let row = decoded[line * layout.tile_width * step..].iter().skip(step - 1).step_by(step);
                samples[at..].iter_mut().step_by(4).zip(row).take(w).for_each(|(sample, byte)| *sample = *byte);
            }
        }
    }
    let pixels = samples.as_chunks::<4>().0.iter();
    Ok(match kind.meaning {
        Meaning::Cmyk => pixels.flat_map(|ink| cmyk_to_rgb(*ink)).collect(),
        Meaning::Premultiplied => pixels.flat_map(|[r, g, b, a]| divide([*r, *g, *b], *a)).collect(),
        _ => pixels.flat_map(|[r, g, b, _]| [*r, *g, *b]).collect(),
    })
}
