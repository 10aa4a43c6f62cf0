//! Prompts, sampling, and the loop that turns a prefix into text.

mod decode;
mod prompt;
mod sampler;

pub use decode::{Finish, Generation, Request, Timing, generate};
pub use prompt::{IMAGE_MARK, Prompt, Segment};
pub use sampler::{Sampler, Sampling, log_softmax};
