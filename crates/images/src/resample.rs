//! Pillow's 8-bit resampling, bit for bit: bilinear and bicubic, with antialiasing where the image shrinks.
//!
//! Weights are computed in f64, rounded to fixed point with 22 bits after the point, and applied along rows and along columns, each time rounded and clipped to a byte (Pillow, `src/libImaging/Resample.c`).
//! Which of the two comes first shows in the result: see [`PassOrder`].
//! Both passes run on the same kernel: a weighted sum of rows of bytes.
//! For the pass along image rows, bands of `BAND` rows are transposed first, so that their pixels lie side by side.
//! Weights are made a block of output positions at a time, so that what a resize takes does not grow with its longer side.

use image::RgbImage;
use limber_core::spec::ResizeFilter;
use pulp::Arch;
use rayon::prelude::*;

use super::ImageError;
use super::filter::{Axis, PRECISION, Weights};

/// Image rows that the horizontal pass handles side by side.
const BAND: usize = 8;
/// Bytes that the inner loop sums at a time, so that the sums stay in registers.
const LANES: usize = 3 * BAND;
/// Multiplications above which threads are worth waking.
const PARALLEL_WORK: usize = 1 << 20;
/// Most pixels between the passes, as many as an image may have by default.
const BETWEEN: u64 = 178_956_970;

/// Which pass comes first; rounding and clipping between the passes make the results differ by a few levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PassOrder {
    /// Rows, then columns: Pillow up to 12, and so the original system.
    HorizontalFirst,
    /// Pillow 13: columns first where the height loses more than twice the pixels that the width loses.
    #[default]
    Pillow13,
}

/// The window of a resized image that is wanted.
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
    let axis = |input, output, from, count| (output != input).then_some(Axis { input, output, from, count, filter });
    let columns = axis(from_width, to.0, window.left, window.width);
    let rows = axis(from_height, to.1, window.top, window.height);
    let reach = rows.map_or(window.top..window.top + window.height, |rows| rows.reach());
    let source = &image.as_raw()[reach.start * from_width * 3..reach.end * from_width * 3];

    let across = |source: &[u8]| match &columns {
        Some(columns) => horizontal(arch, source, from_width, *columns),
        None => {
            let rows = source.chunks_exact(from_width * 3);
            rows.flat_map(|row| &row[window.left * 3..][..window.width * 3]).copied().collect()
        }
    };
    let data = match rows {
        None => across(source),
        Some(rows) if order == PassOrder::Pillow13 && columns_first((from_width, from_height), to) => {
            across(&vertical(arch, source, from_width * 3, reach.start, rows))
        }
        Some(rows) => {
            let pixels = (reach.len() as u64).saturating_mul(window.width as u64);
            if pixels > BETWEEN {
                return Err(ImageError::Between { from: (from_width, from_height), to, pixels, limit: BETWEEN });
            }
            vertical(arch, &across(source), window.width * 3, reach.start, rows)
        }
    };
    RgbImage::from_raw(window.width as u32, window.height as u32, data).ok_or(error)
}

/// Pillow 13's rule, found by trying thousands of sizes.
fn columns_first(from: (usize, usize), to: (usize, usize)) -> bool {
    let lost = |from: usize, to: usize| from as i128 - to as i128;
    to.1 < from.1 && lost(from.1, to.1) > 2 * lost(from.0, to.0)
}

/// Resamples every row of an RGB image `[rows, width, 3]` to the wanted positions of `columns`.
fn horizontal(arch: Arch, source: &[u8], width: usize, columns: Axis) -> Vec<u8> {
    let (out_width, rows) = (columns.count, source.len() / (width * 3));
    let mut out = vec![0; rows * out_width * 3];
    let is_long = (rows * out_width).saturating_mul(columns.stride() * 3) > PARALLEL_WORK;
    for weights in columns.blocks() {
        let band = |(rows_in, rows_out): (&[u8], &mut [u8])| {
            arch.dispatch(|| {
                if rows_in.len() < BAND * width * 3 {
                    for (row, out) in rows_in.chunks_exact(width * 3).zip(rows_out.chunks_exact_mut(out_width * 3)) {
                        alone(row, 0, &mut out[weights.block.start * 3..weights.block.end * 3], &weights);
                    }
                } else {
                    side_by_side(rows_in, rows_out, width, out_width, &weights);
                }
            });
        };
        let (band_in, band_out) = (BAND * width * 3, BAND * out_width * 3);
        if is_long {
            (source.par_chunks(band_in), out.par_chunks_mut(band_out)).into_par_iter().for_each(band);
        } else {
            source.chunks(band_in).zip(out.chunks_mut(band_out)).for_each(band);
        }
    }
    out
}

/// One block of output positions of a whole band of rows.
#[inline(always)]
fn side_by_side(rows_in: &[u8], rows_out: &mut [u8], width: usize, out_width: usize, weights: &Weights) {
    let (reach, block) = (weights.reach(), weights.block.clone());
    // [columns in reach, 3, BAND]
    let mut lanes = vec![0; reach.len() * LANES];
    for (r, row) in rows_in.chunks_exact(width * 3).enumerate() {
        for (lane, byte) in lanes[r..].iter_mut().step_by(BAND).zip(&row[reach.start * 3..reach.end * 3]) {
            *lane = *byte;
        }
    }
    let mut pixels = vec![0; block.len() * LANES];
    for (at, sums) in pixels.chunks_exact_mut(LANES).enumerate() {
        let (first, weights) = weights.of(at);
        accumulate(sums, &lanes[(first - reach.start) * LANES..], LANES, weights);
    }
    for (r, row) in rows_out.chunks_exact_mut(out_width * 3).enumerate() {
        for (byte, lane) in row[block.start * 3..block.end * 3].iter_mut().zip(pixels[r..].iter().step_by(BAND)) {
            *byte = *lane;
        }
    }
}

/// One block of output positions of one row (or of the one column of an image), whose first pixel is input position `start`:
/// what a band that is not full consists of.
#[inline(always)]
fn alone(row: &[u8], start: usize, out: &mut [u8], weights: &Weights) {
    let pixel = |(at, out): (usize, &mut [u8])| {
        let (first, weights) = weights.of(at);
        let mut sums = [HALF; 3];
        for (weight, pixel) in weights.iter().zip(row[(first - start) * 3..].chunks_exact(3)) {
            for (sum, byte) in sums.iter_mut().zip(pixel) {
                *sum += weight * i32::from(*byte);
            }
        }
        for (byte, sum) in out.iter_mut().zip(sums) {
            *byte = finish(sum);
        }
    };
    if out.len() * weights.reach().len() > PARALLEL_WORK {
        out.par_chunks_exact_mut(3).enumerate().for_each(pixel);
    } else {
        out.chunks_exact_mut(3).enumerate().for_each(pixel);
    }
}

/// Resamples the columns of rows of `row` bytes, the first of which is input row `start`.
fn vertical(arch: Arch, source: &[u8], row: usize, start: usize, rows: Axis) -> Vec<u8> {
    let mut out = vec![0; rows.count * row];
    let is_long = out.len().saturating_mul(rows.stride()) > PARALLEL_WORK;
    for weights in rows.blocks() {
        let line = |(at, out): (usize, &mut [u8])| {
            arch.dispatch(|| {
                let (first, weights) = weights.of(at);
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
        let out = &mut out[weights.block.start * row..weights.block.end * row];
        if row == 3 {
            arch.dispatch(|| alone(source, start, out, &weights));
        } else if is_long {
            out.par_chunks_mut(row).enumerate().for_each(line);
        } else {
            out.chunks_mut(row).enumerate().for_each(line);
        }
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
    fn a_band_that_is_not_full_is_resampled_as_a_full_one() {
        // 8 rows go side by side, 7 one by one.
        for (width, to) in [(53, 17), (17, 53), (200_000, 9)] {
            let image = picture(width, 8);
            let part = image::imageops::crop_imm(&image, 0, 0, width, 7).to_image();
            let [full, part] = [image, part].map(|image| {
                let height = image.height() as usize;
                resize(&image, to, height, ResizeFilter::Bicubic).unwrap()
            });
            assert_eq!(part.as_raw()[..], full.as_raw()[..part.as_raw().len()], "{width} -> {to}");
        }
    }

    #[test]
    fn an_image_that_grows_between_the_passes_is_refused() {
        let image = RgbImage::new(1, 1_000_000);
        let all = Window { left: 0, top: 0, width: 384, height: 384 };
        let resized = |order| resize_window(&image, (384, 384), all, ResizeFilter::Bicubic, order);
        assert!(resized(PassOrder::Pillow13).is_ok());
        let message = resized(PassOrder::HorizontalFirst).unwrap_err().to_string();
        assert!(message.contains("384000000 pixels in between, over the limit of 178956970"), "{message}");
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
