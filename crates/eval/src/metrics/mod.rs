//! Scores of captions and answers, as the field's own scripts compute them, without Java.
//!
//! Captions: BLEU-1 to 4, ROUGE-L, CIDEr-D and plain CIDEr over the tokens of the COCO caption tools, exact match, words
//! by class. Answers: VQA accuracy with the official normalisation, exact match.
//! Every score is a [`Measure`]: a value for each item and the way they make one of a set, so that confidence intervals
//! and paired tests ([`statistics`]) treat all alike.

mod bleu;
mod captions;
mod cider;
mod measure;
mod ngrams;
pub mod ptb;
mod rouge;
pub mod statistics;
pub mod vqa;
mod words;

pub use captions::{Tokenised, caption_scores, tokenise};
pub use cider::Frequencies;
pub use measure::{Measure, Scores};
pub use words::WordClasses;
