//! Prompts, sampling, and the loop that turns a prefix into text.

mod decode;
mod prompt;
mod request;
mod sampler;
mod shared;

pub use decode::{Finish, Generation, RequestSource, Timing, generate, run};
pub use prompt::{IMAGE_MARK, Prompt, Segment};
pub use request::Request;
pub use sampler::{Sampler, Sampling, log_softmax};
