//! Text to ids and back: the tokenizers of checkpoint folders, a stand-in for models without one, streaming.

mod folder;
mod stream;
mod tokenizer;

pub use stream::TextStream;
pub use tokenizer::Tokenizer;
