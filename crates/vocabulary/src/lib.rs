//! Vocabularies as other programs keep them, as the `tokenizer.json` that they stand for: SentencePiece's and tiktoken's
//! `tokenizer.model`, the splitters that llama.cpp names.

mod charsmap;
mod kind;
mod merges;
mod model;
pub mod splitters;

pub use charsmap::check as check_charsmap;
pub use kind::Kind;
pub use merges::ranked_merges;
pub use model::{NAMES as MODEL_FILES, documents as model_documents};
