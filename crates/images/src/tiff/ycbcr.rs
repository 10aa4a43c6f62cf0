//! Compressed YCbCr with its own samplings, converted as libtiff's `TIFFYCbCrToRGBInit` does (`tif_color.c`).

use super::super::ImageError;
use super::coded::Layout;
use super::directory::tag;
use super::{Page, broken, codec, unsupported};

/// libtiff's tables: fixed point with 16 bits after the point.
struct Tables {
    luma: Vec<i32>,
    red: Vec<i32>,
    blue: Vec<i32>,
    green_of_red: Vec<i32>,
    green_of_blue: Vec<i32>,
}

impl Tables {
    fn new(page: &Page) -> Result<Self, ImageError> {
        let [red, green, blue] = match page.directory.fractions(tag::YCBCR_COEFFICIENTS) {
            Some([r, g, b, ..]) => [*r, *g, *b],
            _ => [0.299, 0.587, 0.114],
        };
        if green == 0.0 || [red, green, blue].iter().any(|value| !value.is_finite()) {
            return Err(broken(format!("YCbCr coefficients {:?}", [red, green, blue])));
        }
        let range = match page.directory.fractions(tag::REFERENCE_BLACK_WHITE) {
            Some([a, b, c, d, e, f, ..]) => [*a, *b, *c, *d, *e, *f],
            _ => [0.0, 255.0, 128.0, 255.0, 128.0, 255.0],
        };
        let fixed = |value: f32| (f64::from(value.clamp(0.0, 2.0)) * 65_536.0 + 0.5) as i32;
        let (of_red, of_blue) = (2.0 - 2.0 * red, 2.0 - 2.0 * blue);
        let (d1, d2) = (fixed(of_red), -fixed(red * of_red / green));
        let (d3, d4) = (fixed(of_blue), -fixed(blue * of_blue / green));
        let value = |code: i32, black: f32, white: f32, most: f32| {
            let span = if white - black != 0.0 { white - black } else { 1.0 };
            (((code - black as i32) as f32 * most / span).clamp(-4096.0, 4096.0)) as i32
        };
        let half = 1 << 15;
        let chroma = |i: i32, black: f32, white: f32| value(i - 128, black - 128.0, white - 128.0, 127.0);
        let table = |of: &dyn Fn(i32) -> i32| (0..256).map(of).collect::<Vec<i32>>();
        Ok(Self {
            luma: table(&|i| value(i, range[0], range[1], 255.0)),
            red: table(&|i| (d1 * chroma(i, range[4], range[5]) + half) >> 16),
            blue: table(&|i| (d3 * chroma(i, range[2], range[3]) + half) >> 16),
            green_of_red: table(&|i| d2 * chroma(i, range[4], range[5])),
            green_of_blue: table(&|i| d4 * chroma(i, range[2], range[3]) + half),
        })
    }

    fn rgb(&self, luma: u8, blue: u8, red: u8) -> [u8; 3] {
        let (luma, blue, red) = (self.luma[usize::from(luma)], usize::from(blue), usize::from(red));
        let green = luma + ((self.green_of_blue[blue] + self.green_of_red[red]) >> 16);
        [luma + self.red[red], green, luma + self.blue[blue]].map(|value| value.clamp(0, 255) as u8)
    }
}

/// RGB of a page whose samples lie in units: the lumas of a block of pixels, then their two chromas.
pub(super) fn read(page: &Page) -> Result<Vec<u8>, ImageError> {
    let layout = Layout::of(page)?;
    let tables = Tables::new(page)?;
    let (h, v) = match page.directory.all(tag::YCBCR_SUBSAMPLING) {
        [] => (2, 2),
        [h, v, ..] => (*h as usize, *v as usize),
        [h] => (*h as usize, 2),
    };
    let known = matches!((h, v), (4, 4 | 2 | 1) | (2, 2 | 1) | (1, 2 | 1));
    if !known || page.planar {
        return Err(unsupported(format!("YCbCr in planes, or with a sampling of {h} x {v}")));
    }
    let unit = h * v + 2;
    let across = layout.tile_width.div_ceil(h);
    let mut data = vec![0; page.width * page.height * 3];
    for index in 0..layout.count() {
        let (x, y, width, height) = layout.place(page, index);
        let down = layout.rows(page, index).div_ceil(v);
        // As many samples as there are bytes: `unit` of them for each unit.
        let decoded = codec::decode(page, layout.bytes(page, index)?, across * unit, down, 1)?;
        for line in 0..height {
            for column in 0..width {
                let at = (line / v * across + column / h) * unit;
                let luma = decoded[at + line % v * h + column % h];
                let out = ((y + line) * page.width + x + column) * 3;
                data[out..out + 3].copy_from_slice(&tables.rgb(luma, decoded[at + h * v], decoded[at + h * v + 1]));
            }
        }
    }
    Ok(data)
}
