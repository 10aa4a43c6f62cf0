#![doc = include_str!("../README.md")]

pub use limber_config as config;
pub use limber_core as core;
pub use limber_data as data;
pub use limber_data::features;
pub use limber_eval as eval;
pub use limber_images as images;
pub use limber_pipeline::{encode, generation, model, needs, parts, plugins, stitch_file};
pub use limber_text as text;
pub use limber_train as train;
pub use limber_train::fit;
pub use limber_weights as weights;
