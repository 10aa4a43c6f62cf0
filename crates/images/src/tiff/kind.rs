//! What the samples of a page are, as Pillow's table of kinds has it, and their conversion to RGB.

use super::super::ImageError;
use super::super::convert::{cmyk_to_rgb, divide, ycbcr_to_rgb};
use super::directory::{Directory, tag};
use super::lab::LabGrid;
use super::{broken, codec, unsupported};

/// What the samples of a pixel mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Grey of 1 to 8 bits.
    Grey,
    /// Grey of 1 to 8 bits whose lowest value is white.
    White,
    /// Whole numbers of 12, 16 or 32 bits, clipped to 0..255.
    Whole,
    /// The same with a sign.
    Signed,
    /// Numbers of 32 bits with a point, clipped to 0..255.
    Float,
    Palette,
    Rgb,
    /// Colours that have been multiplied with the alpha behind them.
    Premultiplied,
    Cmyk,
    YCbCr,
    /// L without a sign, a and b with one.
    Lab,
}

/// The samples of a pixel.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub meaning: Meaning,
    /// Bits of a sample.
    pub depth: usize,
    /// Samples of a pixel, those that nothing is made of included.
    pub samples: usize,
    /// Planes that Pillow's image has, where samples lie in planes.
    pub bands: usize,
    /// Bits of each byte lie low first.
    pub reversed: bool,
    /// Colours of a palette.
    palette: Vec<[u8; 3]>,
    /// What Lab becomes.
    lab: Option<LabGrid>,
}

impl Kind {
    /// The kind that the tags tell.
    pub fn of(tags: &Directory, little: bool, compression: u32, planar: bool) -> Result<Self, ImageError> {
        let mut photometric = tags.one(tag::PHOTOMETRIC).unwrap_or(0);
        if compression == codec::OLD_JPEG {
            photometric = 6;
        }
        let colours = if matches!(photometric, 2 | 6) && matches!(compression, codec::OLD_JPEG) { 3 } else { 1 };
        let mut samples = tags.one(tag::SAMPLES).unwrap_or(colours) as usize;
        let mut bits = match tags.all(tag::BITS) {
            [] => vec![1],
            bits => bits.to_vec(),
        };
        let mut extra = tags.all(tag::EXTRA_SAMPLES);
        if planar && !extra.is_empty() && extra.iter().all(|kind| *kind == 0) {
            bits.truncate(bits.len().saturating_sub(extra.len()));
            samples = samples.saturating_sub(extra.len());
            extra = &[];
        }
        if samples > 6 {
            return Err(broken(format!("{samples} samples a pixel, over the limit of 6")));
        }
        if samples < bits.len() {
            bits.truncate(samples);
        } else if bits.len() == 1 {
            bits.resize(samples, bits[0]);
        }
        let depth = bits.first().copied().unwrap_or(0);
        if bits.len() != samples || bits.iter().any(|b| *b != depth) {
            return Err(broken(format!("{samples} samples a pixel of {bits:?} bits")));
        }
        let formats = tags.all(tag::SAMPLE_FORMAT);
        let format = match formats {
            [] => Some(1),
            [first, rest @ ..] => rest.iter().all(|f| f == first).then_some(*first),
        };
        let fill = tags.one(tag::FILL_ORDER).unwrap_or(1);
        let unknown = || {
            unsupported(format!(
                "photometric interpretation {photometric}, {samples} samples of {depth} bits, formats {formats:?}, extra samples {extra:?}, fill order {fill}; read are those that Pillow reads"
            ))
        };
        let format = format.ok_or_else(unknown)?;
        let reversed = match fill {
            1 => false,
            // libtiff puts the bits in order.
            2 => compression == 1,
            _ => return Err(unknown()),
        };
        let meaning = meaning(photometric, format, depth, samples, extra, little).ok_or_else(unknown)?;
        let fits = match (fill, meaning, depth) {
            (1, _, _) => true,
            // Pillow has kinds with reversed bits for these alone, and of those it unpacks but a few.
            (_, Meaning::Grey, _) => format == 1 && samples == 1 && photometric == 1,
            (_, Meaning::White, _) => compression != 1 || depth < 8,
            (_, Meaning::Palette, _) => samples == 1 && (compression != 1 || depth == 8),
            (_, Meaning::Whole, 16) => little,
            (_, Meaning::Rgb, 8) => samples == 3,
            _ => false,
        };
        if !fits {
            return Err(unknown());
        }
        let palette = if meaning == Meaning::Palette { palette(tags)? } else { Vec::new() };
        let lab = (meaning == Meaning::Lab).then(LabGrid::new);
        let bands = match meaning {
            Meaning::Rgb if samples > 3 && extra.first() != Some(&0) => 4,
            Meaning::Rgb | Meaning::YCbCr => 3,
            Meaning::Premultiplied | Meaning::Cmyk => 4,
            _ => samples.min(2),
        };
        Ok(Self { meaning, depth: depth as usize, samples, bands, reversed, palette, lab })
    }

    /// RGB of a pixel that Pillow leaves as it was made, of zeros.
    pub fn blank(&self) -> [u8; 3] {
        match self.meaning {
            Meaning::Palette => self.palette.first().copied().unwrap_or([0; 3]),
            Meaning::Cmyk => cmyk_to_rgb([0; 4]),
            Meaning::YCbCr => ycbcr_to_rgb([0; 3]),
            Meaning::Lab => self.lab.as_ref().map_or([0; 3], |grid| grid.rgb([0, 0x80, 0x80])),
            _ => [0; 3],
        }
    }

    /// Bytes of a row of samples.
    pub fn row_bytes(&self, width: usize, samples: usize) -> usize {
        (width * samples * self.depth).div_ceil(8)
    }

    /// RGB of the pixels of a row; `row` has them whole, samples of several bytes with the low one first where `little` says so.
    pub fn to_rgb(&self, row: &[u8], little: bool, out: &mut [u8]) {
        let pixels = out.as_chunks_mut::<3>().0.iter_mut();
        let step = self.samples * self.depth / 8;
        let four = |at: usize| {
            let bytes = [row[at], row[at + 1], row[at + 2], row[at + 3]];
            if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
        };
        let two = |at: usize| {
            let bytes = [row[at], row[at + 1]];
            if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
        };
        // The high byte of a sample of a colour, of 8 or 16 bits.
        let (wide, high) = (self.depth / 8, usize::from(little && self.depth == 16));
        let high = |pixel: usize, sample: usize| row[pixel * step + sample * wide + high];
        let four_of = |pixel| [0, 1, 2, 3].map(|sample| high(pixel, sample));
        let three_of = |pixel| [0, 1, 2].map(|sample| high(pixel, sample));
        for (x, pixel) in pixels.enumerate() {
            *pixel = match (self.meaning, self.depth) {
                (Meaning::Grey, _) => [self.small(row, x, true); 3],
                (Meaning::White, _) => [!self.small(row, x, true); 3],
                (Meaning::Palette, _) => {
                    self.palette.get(usize::from(self.small(row, x, false))).copied().unwrap_or([0; 3])
                }
                (Meaning::Whole, 12) => {
                    let at = x / 2 * 3;
                    let last = row.get(at + 2).copied().unwrap_or(0);
                    let value = match x % 2 {
                        0 => u16::from(row[at]) << 4 | u16::from(row[at + 1]) >> 4,
                        _ => u16::from(row[at + 1] & 15) << 8 | u16::from(last),
                    };
                    [value.min(255) as u8; 3]
                }
                (Meaning::Whole, 16) => [two(2 * x).min(255) as u8; 3],
                (Meaning::Signed, 16) => [(two(2 * x) as i16).clamp(0, 255) as u8; 3],
                (Meaning::Whole | Meaning::Signed, _) => [(four(4 * x) as i32).clamp(0, 255) as u8; 3],
                (Meaning::Float, _) => [f32::from_bits(four(4 * x)) as u8; 3],
                (Meaning::Rgb, _) => three_of(x),
                (Meaning::Premultiplied, _) => divide(three_of(x), high(x, 3)),
                (Meaning::Cmyk, _) => cmyk_to_rgb(four_of(x)),
                (Meaning::YCbCr, _) => ycbcr_to_rgb(three_of(x)),
                (Meaning::Lab, _) => self.lab.as_ref().map_or([0; 3], |grid| grid.rgb(three_of(x))),
            };
        }
    }

    /// A sample of at most 8 bits, scaled to 0..255 unless it is an index.
    fn small(&self, row: &[u8], x: usize, scale: bool) -> u8 {
        if self.depth == 8 {
            let byte = row[x * self.samples];
            return if self.reversed { byte.reverse_bits() } else { byte };
        }
        let bit = x * self.depth;
        let byte = if self.reversed { row[bit / 8].reverse_bits() } else { row[bit / 8] };
        let most = (1_u8 << self.depth) - 1;
        let value = byte >> (8 - self.depth - bit % 8) & most;
        if scale { value * (255 / most) } else { value }
    }
}

fn meaning(photometric: u64, format: u64, depth: u64, samples: usize, extra: &[u64], little: bool) -> Option<Meaning> {
    let unused = |extra: &[u64]| extra.iter().all(|kind| *kind == 0);
    Some(match (photometric, format, depth, samples, extra) {
        (0, 1, 1 | 2 | 4 | 8, 1, []) => Meaning::White,
        (1, 1, 1 | 2 | 4 | 8, 1, []) | (1, 2, 8, 1, []) | (6, 1, 8, 1, []) => Meaning::Grey,
        (1, 1, 8, 2, [0 | 2]) => Meaning::Grey,
        (1, 1, 12, 1, []) if little => Meaning::Whole,
        (0, 1, 16, 1, []) if little => Meaning::Whole,
        (1, 1, 16, 1, []) => Meaning::Whole,
        (1, 1, 32, 1, []) if little => Meaning::Whole,
        (1, 2, 16 | 32, 1, []) => Meaning::Signed,
        (0 | 1, 3, 32, 1, []) => Meaning::Float,
        (2, 1, 8 | 16, 3, []) | (2, 1, 8 | 16, 4, [] | [0] | [2]) | (2, 1, 8, 4, [999]) => Meaning::Rgb,
        (2, 1, 8 | 16, 4, [1]) => Meaning::Premultiplied,
        (2, 1, 8, 5 | 6, [0 | 2, rest @ ..]) if rest.len() + 4 == samples && unused(rest) => Meaning::Rgb,
        (2, 1, 8, 5 | 6, [1, rest @ ..]) if rest.len() + 4 == samples && unused(rest) => Meaning::Premultiplied,
        (3, 1, 1 | 2 | 4 | 8, 1, []) | (3, 1, 8, 2, [0 | 2]) => Meaning::Palette,
        (5, 1, 8 | 16, 4, []) => Meaning::Cmyk,
        (5, 1, 8, 5 | 6, extra) if extra.len() + 4 == samples && unused(extra) => Meaning::Cmyk,
        (6, 1, 8, 3, []) => Meaning::YCbCr,
        (8, 1, 8, 3, []) => Meaning::Lab,
        _ => return None,
    })
}

/// The high bytes of a map that has all reds first, then all greens and blues.
fn palette(tags: &Directory) -> Result<Vec<[u8; 3]>, ImageError> {
    let map = tags.all(tag::COLOUR_MAP);
    if map.is_empty() {
        return Err(broken("it has a palette's indices and no palette"));
    }
    let third = map.len() / 3;
    Ok((0..third).map(|i| [0, 1, 2].map(|c| (map[c * third + i] >> 8) as u8)).collect())
}
