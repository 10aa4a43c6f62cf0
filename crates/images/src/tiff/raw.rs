//! Uncompressed pages: each strip or tile is read from its offset on, in the order of the file.

use super::super::ImageError;
use super::super::convert::cmyk_to_rgb;
use super::directory::tag;
use super::kind::Meaning;
use super::{Page, broken, truncated, unsupported};

/// A rectangle of one plane, or of all samples.
struct Tile {
    x: usize,
    y: usize,
    layer: usize,
    offset: usize,
}

/// RGB of an uncompressed page; what no strip covers has samples of 0.
pub(super) fn read(page: &Page) -> Result<Vec<u8>, ImageError> {
    let tags = &page.directory;
    let (width, height) = (page.width, page.height);
    let one = |tag: u16| tags.one(tag).map(|value| usize::try_from(value).unwrap_or(usize::MAX));
    let (mut offsets, tile_width, tile_height) = match (tags.all(tag::STRIP_OFFSETS), tags.all(tag::TILE_OFFSETS)) {
        ([], []) => return Err(broken("it has neither strips nor tiles")),
        ([], tiles) => match (one(tag::TILE_WIDTH), one(tag::TILE_HEIGHT)) {
            (Some(w @ 1..), Some(h @ 1..)) => (tiles, w, h),
            size => return Err(broken(format!("tiles of {size:?} pixels"))),
        },
        (strips, _) => (strips, width, one(tag::ROWS_PER_STRIP).unwrap_or(height).max(1)),
    };
    if tile_width == width && tile_height == height && !page.planar {
        offsets = &offsets[offsets.len() - 1..];
    }
    let (mut x, mut y, mut layer) = (0, 0, 0);
    let mut tiles = Vec::new();
    for offset in offsets {
        tiles.push(Tile { x, y, layer, offset: usize::try_from(*offset).unwrap_or(usize::MAX) });
        x = x.saturating_add(tile_width);
        if x >= width {
            (x, y) = (0, y.saturating_add(tile_height));
            if y >= height {
                (y, layer) = (0, layer + 1);
            }
        }
    }
    tiles.sort_by_key(|tile| tile.offset);
    if page.planar && page.kind.samples > 1 {
        return planes(page, &tiles, tile_width, tile_height);
    }
    let mut data = page.kind.blank().repeat(width * height);
    for tile in &tiles {
        let (w, h) = (tile_width.min(width - tile.x), tile_height.min(height - tile.y));
        let row = page.kind.row_bytes(w, page.kind.samples);
        let stride =
            if w < tile_width { tile_width.saturating_mul(page.kind.samples * page.kind.depth) / 8 } else { row };
        for line in 0..h {
            let bytes = line_of(page, tile.offset, line, stride, row)?;
            let at = ((tile.y + line) * width + tile.x) * 3;
            page.kind.to_rgb(bytes, page.little, &mut data[at..at + w * 3]);
        }
    }
    Ok(data)
}

/// The bytes of a line of a strip or tile.
fn line_of<'a>(page: &Page<'a>, offset: usize, line: usize, stride: usize, row: usize) -> Result<&'a [u8], ImageError> {
    let start = line.checked_mul(stride).and_then(|at| at.checked_add(offset));
    let bytes = start.and_then(|start| page.bytes.get(start..start.checked_add(row)?));
    bytes.ok_or_else(|| truncated(page.bytes, "it ends within a strip or tile"))
}

/// Pillow takes each plane for one of bytes, whatever its samples are.
fn planes(page: &Page, tiles: &[Tile], tile_width: usize, tile_height: usize) -> Result<Vec<u8>, ImageError> {
    let (width, height) = (page.width, page.height);
    let layers = match page.kind.meaning {
        Meaning::Rgb if page.kind.bands == 3 => 3,
        Meaning::Rgb | Meaning::Cmyk => 4,
        other => return Err(unsupported(format!("planes of {other:?} samples; read are those of RGB and CMYK"))),
    };
    let mut samples = vec![0; width * height * 4];
    for tile in tiles {
        if tile.layer >= layers {
            return Err(broken(format!("strips for a plane {} beside {layers} planes", tile.layer)));
        }
        let (w, h) = (tile_width.min(width - tile.x), tile_height.min(height - tile.y));
        let stride = if w < tile_width { tile_width.saturating_mul(page.kind.depth) / 8 } else { w };
        for line in 0..h {
            let bytes = line_of(page, tile.offset, line, stride, w)?;
            let at = ((tile.y + line) * width + tile.x) * 4 + tile.layer;
            samples[at..].iter_mut().step_by(4).zip(bytes).for_each(|(sample, byte)| *sample = *byte);
        }
    }
    let pixels = samples.as_chunks::<4>().0.iter();
    Ok(match page.kind.meaning {
        Meaning::Cmyk => pixels.flat_map(|ink| cmyk_to_rgb(*ink)).collect(),
        _ => pixels.flat_map(|[r, g, b, _]| [*r, *g, *b]).collect(),
    })
}
