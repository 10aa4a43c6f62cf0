//! Evaluation: scores of captions and answers.

pub mod files;
pub mod metrics;
pub mod score;
