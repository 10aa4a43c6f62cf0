//! Evaluation: captions and answers of a data set, and their scores.
//!
//! [`run::Evaluation`] does a whole one in a folder; [`predict::predict`] and [`score::score`] are its two halves.

pub mod clip;
pub mod data;
mod documents;
pub mod files;
pub mod metrics;
pub mod predict;
pub mod prompts;
pub mod run;
pub mod score;
