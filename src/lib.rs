#![doc = include_str!("../README.md")]

pub mod bench;
pub mod cli;
pub mod config;
pub mod data;
#[cfg(feature = "demo")]
pub mod demo;
pub mod eval;
pub mod features;
pub mod fit;
pub mod generation;
pub mod images;
pub mod model;
pub mod needs;
pub mod parts;
pub mod plugin_template;
pub mod plugins;
pub mod reproduce;
pub mod shapes;
pub mod stitch_file;
pub mod text;
pub mod train;
pub mod weights;

pub use limber_core as core;
