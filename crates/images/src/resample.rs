//! Pillow's 8-bit resampling, bit for bit: bilinear and bicubic, with antialiasing where the image shrinks.
//!
//! Weights are computed in f64, rounded to fixed point with 22 bits after the point, and applied along rows and along columns, each time rounded and clipped to a byte (Pillow, `src/libImaging/Resample.c`).
//! Which of the two comes first shows in the result: see [`PassOrder`].
//! Both passes run on the same kernel: a weighted sum of rows of bytes.
//! For the pass along image rows, bands of `BAND` rows are transposed first, so that their pixels lie side by side.

use image::RgbImage;
use limber_core::spec::ResizeFilter;
use pulp::Arch;
use rayon::prelude::*;

use super::ImageError;

/// Bits after the point: 32 less 8 for the byte and 2 for weights that overshoot.
const PRECISION: u32 = 22;
/// Image rows that the horizontal pass handles side by side.
const BAND: usize = 8;
/// Bytes that the inner loop sums at a time, so that the sums stay in registers.
const LANES: usize = 3 * BAND;
/// Multiplications above which threads are worth waking.
const PARALLEL_WORK: usize = 1 << 20;

/// Which pass comes first; rounding and clipping between the passes make the results differ by a few levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PassOrder {
    /// Rows, then columns: Pillow up to 12, and so the original system.
    HorizontalFirst,
    /// Pillow 13: columns first where the height loses more than twice the pixels that the width loses.
    #[default]
    Pillow13,
}

/// The part of a resized image that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Columns left out on the left.
    pub left: usize,
    /// Rows left out at the top.
    pub top: usize,
    /// Columns wanted.
    pub width: usize,
    /// Rows wanted.
    pub height: usize,
}

/// For each output position, the input positions that weigh on it.
struct Weights {
    /// First input position and number of weights, an output position.
    spans: Vec<(usize, usize)>,
    /// Fixed-point weights, `stride` for each output position.
    values: Vec<i32>,
    stride: usize,
}

impl Weights {
    /// Weights from `input` positions to `output`, for the outputs `from .. from + count` alone.
    fn new(input: usize, output: usize, from: usize, count: usize, filter: ResizeFilter) -> Self {
        let (kernel, radius): (fn(f64) -> f64, f64) = match filter {
            ResizeFilter::Bilinear => (bilinear, 1.0),
            ResizeFilter::Bicubic => (bicubic, 2.0),
        };
        // Pillow passes the size through an f32.
        let scale = f64::from(input as f32) / output as f64;
        let stretch = scale.max(1.0);
        let support = radius * stretch;
        let inverse = 1.0 / stretch;
        let stride = (support.ceil() as usize * 2 + 1).min(input);

        let mut spans = Vec::with_capacity(count);
        let mut values = vec![0; count * stride];
        let mut row = Vec::with_capacity(stride);
        for (position, slot) in (from..from + count).zip(values.chunks_exact_mut(stride)) {
            let centre = (position as f64 + 0.5) * scale;
            let first = ((centre - support + 0.5) as i64).max(0) as usize;
            let last = ((centre + support + 0.5) as i64).clamp(0, input as i64) as usize;
            row.clear();
            row.extend((first..last).map(|x| kernel((x as f64 - centre + 0.5) * inverse)));
            let total: f64 = row.iter().sum();
            for (value, weight) in slot.iter_mut().zip(&row) {
                let weight = if total == 0.0 { *weight } else { weight / total };
                let scaled = weight * f64::from(1 << PRECISION);
                *value = (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32;
            }
            spans.push((first, row.len()));
        }
        Self { spans, values, stride }
    }

    /// The first input position and the weights of the output position `at`.
    fn of(&self, at: usize) -> (usize, &[i32]) {
        let (first, count) = self.spans[at];
        (first, &self.values[at * self.stride..][..count])
    }

    /// The input positions that any output position uses.
    fn reach(&self) -> std::ops::Range<usize> {
        let first = self.spans.first().map_or(0, |span| span.0);
        first..self.spans.last().map_or(0, |span| span.0 + span.1)
    }
}

fn bilinear(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

/// Keys' cubic with a = -1/2, its terms in Pillow's order so that every bit agrees.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Resizes an image to `width` x `height` as Pillow does 8-bit images, rows first.
///
/// # Errors
/// A side of zero pixels.
pub fn resize(image: &RgbImage, width: usize, height: usize, filter: ResizeFilter) -> Result<RgbImage, ImageError> {
    let all = Window { left: 0, top: 0, width, height };
    resize_window(image, (width, height), all, filter, PassOrder::default())
}

/// A window of the image resized to `to` (width, height), computed without the rest.
///
/// # Errors
/// A side of zero pixels, or a window that leaves the resized image.
pub fn resize_window(
    image: &RgbImage,
    to: (usize, usize),
    window: Window,
    filter: ResizeFilter,
    order: PassOrder,
) -> Result<RgbImage, ImageError> {
    let (from_width, from_height) = (image.width() as usize, image.height() as usize);
    let error = ImageError::Resize { from: (from_width, from_height), to, window };
    let fits = |at: usize, size: usize, of: usize| size > 0 && at.checked_add(size).is_some_and(|end| end <= of);
    if from_width == 0
        || from_height == 0
        || !fits(window.left, window.width, to.0)
        || !fits(window.top, window.height, to.1)
    {
        return Err(error);
    }
    let arch = Arch::new();
    let columns = (to.0 != from_width).then(|| Weights::new(from_width, to.0, window.left, window.width, filter));
    let rows = (to.1 != from_height).then(|| Weights::new(from_height, to.1, window.top, window.height, filter));
    let reach = rows.as_ref().map_or(window.top..window.top + window.height, Weights::reach);
    let source = &image.as_raw()[reach.start * from_width * 3..reach.end * from_width * 3];

    let across = |source: &[u8]| match &columns {
        Some(weights) => horizontal(arch, source, from_width, weights),
        None => {
            let rows = source.chunks_exact(from_width * 3);
            rows.flat_map(|row| &row[window.left * 3..][..window.width * 3]).copied().collect()
        }
    };
    let data = match &rows {
        None => across(source),
        Some(weights) if order == PassOrder::Pillow13 && columns_first((from_width, from_height), to) => {
            across(&vertical(arch, source, from_width * 3, reach.start, weights))
        }
        Some(weights) => vertical(arch, &across(source), window.width * 3, reach.start, weights),
    };
    RgbImage::from_raw(window.width as u32, window.height as u32, data).ok_or(error)
}

/// Pillow 13's rule, found by trying thousands of sizes.
fn columns_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let lost = |from: usize, to: usize| from as i128 - to as i128;
    to.1 < from.1 && lost(from.1, to.1) > 2 * lost(from.0, to.0)
}

/// Resamples every row of an RGB image `[rows, width, 3]` to as many pixels as there are weights.
fn horizontal(arch: Arch, source: &[u8], width: usize, weights: &Weights) -> Vec<u8> {
    let (out_width, rows) = (weights.spans.len(), source.len() / (width * 3));
    let mut out = vec![0; rows * out_width * 3];
    let reach = weights.reach();
    let band = |(rows_in, rows_out): (&[u8], &mut [u8])| {
        arch.dispatch(|| {
            // [columns in reach, 3, BAND]; rows missing from the last band stay 0 and are not copied back.
            let mut side_by_side = vec![0; reach.len() * LANES];
            for (r, row) in rows_in.chunks_exact(width * 3).enumerate() {
                let used = &row[reach.start * 3..reach.end * 3];
                for (lane, byte) in side_by_side[r..].iter_mut().step_by(BAND).zip(used) {
                    *lane = *byte;
                }
            }
            let mut pixels = vec![0; out_width * LANES];
            for (x, lanes) in pixels.chunks_exact_mut(LANES).enumerate() {
                let (first, weights) = weights.of(x);
                accumulate(lanes, &side_by_side[(first - reach.start) * LANES..], LANES, weights);
            }
            for (r, row) in rows_out.chunks_exact_mut(out_width * 3).enumerate() {
                for (byte, lane) in row.iter_mut().zip(pixels[r..].iter().step_by(BAND)) {
                    *byte = *lane;
                }
            }
        });
    };
    let bands = (source.chunks(BAND * width * 3), out.chunks_mut(BAND * out_width * 3));
    if rows * out_width * weights.stride * 3 > PARALLEL_WORK {
        (source.par_chunks(BAND * width * 3), out.par_chunks_mut(BAND * out_width * 3)).into_par_iter().for_each(band);
    } else {
        bands.0.zip(bands.1).for_each(band);
    }
    out
}

/// Resamples the columns of rows of `row` bytes, the first of which is input row `start`.
fn vertical(arch: Arch, source: &[u8], row: usize, start: usize, weights: &Weights) -> Vec<u8> {
    let mut out = vec![0; weights.spans.len() * row];
    let line = |(y, out): (usize, &mut [u8])| {
        arch.dispatch(|| {
            let (first, weights) = weights.of(y);
            let source = &source[(first - start) * row..];
            let mut at = 0;
            let mut blocks = out.chunks_exact_mut(LANES);
            for block in &mut blocks {
                accumulate(block, &source[at..], row, weights);
                at += LANES;
            }
            for (i, byte) in blocks.into_remainder().iter_mut().enumerate() {
                let column = source[at + i..].iter().step_by(row);
                *byte = finish(weights.iter().zip(column).fold(HALF, |sum, (w, b)| sum + w * i32::from(*b)));
            }
        });
    };
    if out.len() * weights.stride > PARALLEL_WORK {
        out.par_chunks_mut(row).enumerate().for_each(line);
    } else {
        out.chunks_mut(row).enumerate().for_each(line);
    }
    out
}

/// One half in fixed point, so that the shift in [`finish`] rounds.
const HALF: i32 = 1 << (PRECISION - 1);

/// Weighted sum of `LANES` bytes of each of several rows that lie `stride` bytes apart.
#[inline(always)]
fn accumulate(out: &mut [u8], source: &[u8], stride: usize, weights: &[i32]) {
    let mut sums = [HALF; LANES];
    for (k, weight) in weights.iter().enumerate() {
        let Some(bytes) = source.get(k * stride..k * stride + LANES) else { break };
        for (sum, byte) in sums.iter_mut().zip(bytes) {
            *sum += weight * i32::from(*byte);
        }
    }
    for (byte, sum) in out.iter_mut().zip(sums) {
        *byte = finish(sum);
    }
}

#[inline(always)]
fn finish(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture that any language can make again: a multiplicative generator's high bytes.
    fn picture(width: u32, height: u32) -> RgbImage {
        let mut state = 1_u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let data = std::iter::repeat_with(next).take((width * height * 3) as usize).collect();
        RgbImage::from_raw(width, height, data).expect("as many bytes as the size asks for")
    }

    #[test]
    fn a_window_is_a_cut_of_the_whole() {
        for filter in [ResizeFilter::Bilinear, ResizeFilter::Bicubic] {
            for (from, to) in [
                ((53, 31), (97, 70)),
                ((53, 31), (17, 9)),
                ((53, 31), (53, 11)),
                ((53, 31), (80, 31)),
                ((31, 53), (40, 9)),
            ] {
                let image = picture(from.0, from.1);
                let window = Window { left: 3, top: 2, width: 11, height: 7 };
                let all = Window { left: 0, top: 0, width: to.0, height: to.1 };
                for order in [PassOrder::HorizontalFirst, PassOrder::Pillow13] {
                    let whole = resize_window(&image, to, all, filter, order).unwrap();
                    let part = resize_window(&image, to, window, filter, order).unwrap();
                    let cut = image::imageops::crop_imm(&whole, 3, 2, 11, 7).to_image();
                    assert_eq!(part, cut, "{filter:?} {from:?} -> {to:?} {order:?}");
                }
            }
        }
    }

    #[test]
    fn the_same_size_changes_nothing() {
        let image = picture(19, 23);
        assert_eq!(resize(&image, 19, 23, ResizeFilter::Bicubic).unwrap(), image);
    }

    #[test]
    fn a_flat_image_stays_flat() {
        let image = RgbImage::from_pixel(301, 7, image::Rgb([255, 128, 1]));
        let small = resize(&image, 13, 91, ResizeFilter::Bicubic).unwrap();
        assert!(small.pixels().all(|p| p.0 == [255, 128, 1]));
    }

    #[test]
    fn a_zero_side_or_a_window_outside_is_an_error() {
        let image = picture(5, 5);
        let message = resize(&image, 0, 4, ResizeFilter::Bicubic).unwrap_err().to_string();
        assert!(message.contains("5 x 5") && message.contains("0 x 4"), "{message}");
        let window = Window { left: 3, top: 0, width: 2, height: 4 };
        assert!(resize_window(&image, (4, 4), window, ResizeFilter::Bilinear, PassOrder::default()).is_err());
    }
}
