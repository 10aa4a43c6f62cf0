//! Encoder, stitch and decoder of a config put together: loading, captions, generation, features of a data set.
//!
//! The one crate that knows every built-in component; what stands above it (training, evaluation, the program) takes
//! components from here, what stands below knows none.

pub mod built_in;
mod captioner;
mod components;
pub mod convert;
pub mod encode;
pub mod generation;
mod image_source;
mod language;
pub mod missing;
pub mod model;
pub mod needs;
pub mod overview;
pub mod plugins;
mod prefix;
mod preprocessor;
mod reading;
pub mod run_folder;
pub mod stitch_file;
mod texts;
mod vision;

pub use captioner::{Caption, Captioner, Open, Score};
pub use components::{device, in_section, open_weights};
pub use image_source::Image;
pub use language::LanguageModel;
pub use model::{Depth, Model};
pub use prefix::PrefixEncoder;
pub use preprocessor::{Preprocessor, Thumbnail};
pub use reading::{Inputs, Reader};
pub use run_folder::RunFolder;
pub use texts::Texts;
pub use vision::VisionEncoder;
