//! `Image`: where a caller's image lies, a file, its bytes, or pixels in memory.

use crate::preprocessor::Preprocessor;
use anyhow::{Context, Result};
use candle_core::Tensor;
use image::RgbImage;
use std::path::{Path, PathBuf};

/// An image that a caller hands in.
#[derive(Debug, Clone, PartialEq)]
pub enum Image {
    /// A file, or an `http(s)` address where the feature `hub` is on. For an encoder that takes features, a file of them.
    File(PathBuf),
    /// The bytes of a file, in any of the formats that are read.
    Encoded(Vec<u8>),
    /// Pixels, rows from the top.
    Pixels(RgbImage),
}

impl Image {
    /// What the encoder takes of it: pixels `[3, S, S]` f32, or features `[N, E]` f32.
    ///
    /// # Errors
    /// A file that is missing, in another format or damaged; a path that is not UTF-8.
    pub fn input(&self, preprocessor: &Preprocessor) -> Result<Tensor> {
        match self {
            Image::File(path) => {
                let path = path.to_str().with_context(|| format!("the path {path:?} is not UTF-8"))?;
                preprocessor.input(path)
            }
            Image::Encoded(bytes) => preprocessor.pixels(&preprocessor.decode_image("the image's bytes", bytes)?),
            Image::Pixels(pixels) => preprocessor.pixels(pixels),
        }
    }
}

impl From<&str> for Image {
    fn from(path: &str) -> Self {
        Image::File(path.into())
    }
}

impl From<String> for Image {
    fn from(path: String) -> Self {
        Image::File(path.into())
    }
}

impl From<&Path> for Image {
    fn from(path: &Path) -> Self {
        Image::File(path.into())
    }
}

impl From<PathBuf> for Image {
    fn from(path: PathBuf) -> Self {
        Image::File(path)
    }
}

impl From<Vec<u8>> for Image {
    fn from(bytes: Vec<u8>) -> Self {
        Image::Encoded(bytes)
    }
}

impl From<RgbImage> for Image {
    fn from(pixels: RgbImage) -> Self {
        Image::Pixels(pixels)
    }
}
