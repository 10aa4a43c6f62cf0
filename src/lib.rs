#![doc = include_str!("../README.md")]
//!
//! # The library
//!
//! A [`Captioner`] is a config's encoder, stitch and decoder with its prompt and sampling. It captions images, continues
//! prompts and scores texts:
//!
//! ```
//! # fn main() -> limber::Result<()> {
//! let image = "assets/demo/scene-1.png";
//! let captioner = limber::Captioner::demo()?;
//! let caption = captioner.caption(image)?;
//! let same = captioner.generate("<image>A picture of", [image])?;
//! assert_eq!(caption.tokens, same.tokens);
//! let said = captioner.score(image, &format!(" {}", caption.text))?;
//! let other = captioner.score(image, " nothing at all")?;
//! assert!(said.total() > other.total());
//! # Ok(())
//! # }
//! ```
//!
//! Between them lie the stages, each a tensor: pixels `[B, 3, S, S]`, features `[B, N, E]`, a prefix `[B, K, D]`:
//!
//! ```
//! # fn main() -> limber::Result<()> {
//! let image = "assets/demo/scene-1.png";
//! let captioner = limber::Captioner::demo()?;
//! let model = captioner.model();
//! let pixels = model.input(image)?; // [3, S, S]
//! let features = model.features(&[pixels])?; // [1, N, E]
//! let prefix = model.prefix(&features)?; // [1, K, D]
//! assert_eq!(prefix.dim(2)?, model.decoder().spec().width);
//! # Ok(())
//! # }
//! ```
//!
//! Training is [`train::Trainer`], evaluation [`eval`]; `examples/` has a program for each, and one with an encoder of
//! its own. Nothing is downloaded but where [`Open::download`] asks for it, and no environment variable has to be set.
//! candle's element-wise operations run on a thread pool of candle's own, whose threads spin for a moment before they
//! sleep: a program that shares its machine may set `CANDLE_NUM_THREADS=1` for itself, as `limber` does.

pub use anyhow::{Error, Result};
pub use limber_config as config;
pub use limber_core as core;
pub use limber_data as data;
pub use limber_data::features;
pub use limber_eval as eval;
pub use limber_hub as hub;
pub use limber_images as images;
pub use limber_pipeline::{
    Caption, Captioner, Depth, Image, LanguageModel, Model, Open, PrefixEncoder, Preprocessor, Score, VisionEncoder,
    built_in, encode, generation, model, needs, plugins, stitch_file,
};
pub use limber_text as text;
pub use limber_train as train;
pub use limber_train::fit;
pub use limber_weights as weights;
