//! Prompts, sampling, and the loop that turns a prefix into text.

mod decode;
mod prompt;
mod sampler;
mod shared;

pub use decode::{Feed, Finish, Generation, Request, Timing, generate, run};
pub use prompt::{IMAGE_MARK, Prompt, Segment};
pub use sampler::{Sampler, Sampling, log_softmax};
