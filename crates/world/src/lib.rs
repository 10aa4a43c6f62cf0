//! The demo's world: scenes of one to three simple shapes, drawn, captioned and asked about.
//!
//! [`scene`](fn@scene) draws lots, [`draw`](fn@draw) makes the picture, [`captions`] and [`questions`] put it into words,
//! and [`write_dataset`] writes all three in the original's data layout, with lists in COCO's and VQAv2's forms beside it.
//! Everything is a pure function of `(seed, index)` and [`Options`], so a data set can be repeated,
//! extended or resumed, and a held-out [`Split`] is simply another seed.

mod dataset;
mod draw;
mod language;
mod lists;
mod scene;

pub use dataset::{Split, WorldOptions, image_path, write_dataset};
pub use draw::{MIN_SIDE, draw};
pub use language::{Question, canonical, captions, questions};
pub use lists::{classes, labels};
pub use scene::{Axis, Background, Colour, Ground, MAX_OBJECTS, Object, Options, Scene, Shape, Size, scene};
