//! A panic in work on one item, as an error that names the item.
//!
//! Images, tokenizers and plugins are read by code of others, which may panic on what it did not expect. In a thread of
//! its own that would end the thread and nothing else.

use anyhow::Result;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Work that panicked. It ends a run, where an item that cannot be read is passed over: what panicked may have left
/// anything behind.
#[derive(Debug, thiserror::Error)]
#[error("{what}: the program panicked: {message}")]
pub struct Panicked {
    what: String,
    message: String,
}

/// The result of `body`, or what it panicked with; `what` says what it worked on.
///
/// # Errors
/// What `body` reports, or a [`Panicked`].
pub fn caught<T>(what: impl FnOnce() -> String, body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body))
        .unwrap_or_else(|payload| Err(Panicked { what: what(), message: message(payload.as_ref()) }.into()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_string())
}
