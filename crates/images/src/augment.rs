//! MAGMA's random pre-processing, under which LiMBeR trained and evaluated its NF-ResNet: `[H, W]` to S x S.
//!
//! Facts followed: `magma/transforms.py`, class `RandCropResize`, and the flip behind it.
//! - The image is padded with black, or cut where it is larger, to its middle S x S at its own scale: Pillow's
//!   `ImageOps.expand` with half the difference on each side, which takes negative borders.
//! - A shorter side T is drawn, evenly, from two: S and S + 1. Its upper bounds 9/8 S and 12/8 S never count, for
//!   after the first step no side is longer than S. The image is resized to T, bilinear; below 256 to 256 again.
//! - S x S is cut out at a position drawn uniformly, and flipped left to right half of the time.

use super::ImageError;
use super::resample::{PassOrder, Window, resize_window};
use image::{RgbImage, imageops};
use limber_core::spec::{ImageSpec, ResizeFilter};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use sha2::{Digest, Sha256};

/// Images are not left smaller than this before the last crop.
const SMALLEST: usize = 256;

/// What is drawn for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    /// Shorter side T of the first resize.
    pub size: usize,
    /// Columns left out on the left by the last crop.
    pub left: usize,
    /// Rows left out at the top.
    pub top: usize,
    /// Whether left and right are exchanged.
    pub flip: bool,
}

impl Draw {
    /// What `seed` draws for an image: a function of the image's pixels, so that neither its position among others nor
    /// the batch counts.
    pub fn new(image: &RgbImage, side: usize, seed: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(image.width().to_le_bytes());
        hash.update(image.as_raw());
        Self::from(side, hash.finalize().into())
    }

    /// What `seed` draws, whatever the image.
    pub fn seeded(side: usize, seed: u64) -> Self {
        Self::from(side, Sha256::digest(seed.to_le_bytes()).into())
    }

    fn from(side: usize, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha8Rng::from_seed(seed);
        // Multiplied and shifted: even up to 2^-32 for numbers this small.
        let mut below = |n: usize| ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize;
        let size = side + below(2);
        let room = enlarged(size) - side;
        Self { size, left: below(room + 1), top: below(room + 1), flip: below(2) == 1 }
    }
}

/// The side after both resizes.
fn enlarged(size: usize) -> usize {
    if size < SMALLEST { SMALLEST } else { size }
}

/// An image as `draw` says, before normalisation: S x S.
///
/// # Errors
/// An empty image, a side S of zero, or a draw of another S.
pub fn augment(image: &RgbImage, spec: &ImageSpec, draw: &Draw, order: PassOrder) -> Result<RgbImage, ImageError> {
    let side = spec.side;
    let mut square = middle(image, side)?;
    let enlarged = enlarged(draw.size);
    for (size, crop) in [(draw.size, None), (enlarged, Some((draw.left, draw.top)))] {
        let (left, top) = crop.unwrap_or((0, 0));
        let kept = if crop.is_some() { side } else { size };
        let window = Window { left, top, width: kept, height: kept };
        square = resize_window(&square, (size, size), window, ResizeFilter::Bilinear, order)?;
    }
    if draw.flip {
        imageops::flip_horizontal_in_place(&mut square);
    }
    Ok(square)
}

/// The middle `side` x `side` of an image, black where it does not reach.
fn middle(image: &RgbImage, side: usize) -> Result<RgbImage, ImageError> {
    let from = (image.width() as usize, image.height() as usize);
    let window = Window { left: 0, top: 0, width: side, height: side };
    let size = u32::try_from(side).ok().filter(|s| *s > 0 && from.0 > 0 && from.1 > 0);
    let Some(size) = size else { return Err(ImageError::Resize { from, to: (side, side), window }) };
    let mut square = RgbImage::new(size, size);
    // Half the difference, rounded down, negative ones too: where the image's first column and row come to lie.
    let offset = |has: usize| (side as i64 - has as i64).div_euclid(2);
    imageops::replace(&mut square, image, offset(from.0), offset(from.1));
    Ok(square)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pixel says where it stood.
    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8 + 1, y as u8 + 1, 255]))
    }

    #[test]
    fn the_middle_is_cut_or_padded_as_pillows_expand_does() {
        // Python: -3 // 2 is -2, 3 // 2 is 1.
        let check = |width: u32, height: u32, side: usize, pixel: [u8; 3]| {
            assert_eq!(middle(&picture(width, height), side).unwrap().get_pixel(0, 0).0, pixel, "{width} x {height}");
        };
        check(8, 8, 8, [1, 1, 255]);
        check(11, 12, 8, [3, 3, 255]);
        check(11, 5, 8, [0, 0, 0]);
        let padded = middle(&picture(11, 5), 8).unwrap();
        assert_eq!((padded.get_pixel(0, 1).0, padded.get_pixel(7, 5).0), ([3, 1, 255], [10, 5, 255]));
        assert_eq!(padded.get_pixel(0, 6).0, [0, 0, 0]);
    }

    #[test]
    fn small_sides_pass_through_256() {
        let draw = Draw::new(&picture(20, 20), 32, 1);
        assert!((32..=33).contains(&draw.size) && draw.left <= 224 && draw.top <= 224);
        let spec = ImageSpec::clip(32);
        let draw = Draw { size: 33, left: 224, top: 224, flip: false };
        assert_eq!(augment(&picture(20, 20), &spec, &draw, PassOrder::HorizontalFirst).unwrap().dimensions(), (32, 32));
        assert!(augment(&picture(20, 20), &spec, &Draw { left: 225, ..draw }, PassOrder::HorizontalFirst).is_err());
    }

    #[test]
    fn nothing_cannot_be_augmented() {
        let draw = Draw { size: 8, left: 0, top: 0, flip: false };
        for (image, side) in [(RgbImage::new(0, 4), 8), (RgbImage::new(4, 4), 0)] {
            assert!(augment(&image, &ImageSpec::clip(side), &draw, PassOrder::default()).is_err());
        }
    }

    #[test]
    fn a_draw_follows_seed_and_pixels() {
        let (a, b) = (picture(20, 20), picture(20, 21));
        assert_eq!(Draw::new(&a, 32, 1), Draw::new(&a, 32, 1));
        assert_ne!(Draw::new(&a, 32, 1), Draw::new(&a, 32, 2));
        assert_ne!(Draw::new(&a, 32, 1), Draw::new(&b, 32, 1));
    }
}
