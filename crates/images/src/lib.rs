//! Images: from files or addresses to the pixels that an encoder takes.
//!
//! [`decode`] gives the same RGB bytes as Pillow's `Image.open(...).convert("RGB")`, [`resize`] the same bytes as the `resize` of Pillow 13 (or, by [`PassOrder`], of the older one that the original used), and [`preprocess`] the same floats as torchvision's transforms on top of it, so that a model sees here what it saw in training.
//!
//! ```text
//! file ─ open ─┐
//! http ─ fetch ┴─► bytes ─ decode ─► RGB [H, W, 3] u8 ─ resize, crop ─► [S, S, 3] u8 ─ normalise ─► [3, S, S] f32
//! ```

mod augment;
mod bmp;
mod convert;
mod decode;
mod error;
mod fetch;
mod filter;
mod format;
mod gif;
mod icon;
mod jpeg;
mod jpeg_end;
mod netpbm;
mod png;
mod preprocess;
mod qoi;
mod resample;
mod targa;
mod tiff;
mod webp;

#[cfg(test)]
mod odd_images;

pub use augment::{Draw, augment};
pub use decode::{DecodeOptions, Limits, decode, load, open};
pub use error::ImageError;
pub use fetch::fetch;
pub use format::Format;
pub use image::RgbImage;
pub use preprocess::{fit, normalise, preprocess};
pub use resample::{PassOrder, Window, resize, resize_window};
