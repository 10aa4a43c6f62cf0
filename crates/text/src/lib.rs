//! Text to ids and back: the tokenizers of checkpoint folders, a stand-in for models without one, streaming, stop strings,
//! chat templates.

mod chat;
mod folder;
mod join;
mod stop;
mod stream;
mod tokenizer;

pub use chat::{ChatTemplate, Message, Speaker};
pub use stop::StopText;
pub use stream::TextStream;
pub use tokenizer::Tokenizer;
