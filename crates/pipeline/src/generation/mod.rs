//! Prompts, sampling, stop strings, and the loop that turns a prefix into text.

mod decode;
mod prompt;
mod request;
mod sampler;
mod shared;
mod stop;

pub use decode::{Finish, Generation, RequestSource, Timing, generate, run};
pub use prompt::{IMAGE_MARK, Prompt, Segment};
pub use request::Request;
pub use sampler::{Sampler, Sampling, log_softmax};
pub use stop::Stop;
