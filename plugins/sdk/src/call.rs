//! What every exported function does: catch panics, give the message of an error to the host, read texts.

use anyhow::{Error, Result, bail};
use limber_plugin_abi::{LIMBER_ERROR, LIMBER_OK, LIMBER_PANIC, LimberSink, LimberStatus, Table, lend, write};
use std::cell::RefCell;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Where the last panic of this thread happened, and what it said.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps panics off stderr: they become messages, and the host decides who sees them.
pub(crate) fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let location = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
        let text = info.payload_as_str().unwrap_or("no message");
        PANIC.with_borrow_mut(|last| *last = Some(format!("panicked{location}: {text}")));
    }));
}

/// Runs `body`; an error or a panic becomes a status and a message for `error`.
///
/// # Safety
/// `error` is null or a sink as the ABI says.
pub(crate) unsafe fn guard(error: *const LimberSink, body: impl FnOnce() -> Result<()>) -> LimberStatus {
    // What a panic leaves half done is the component's own; the ABI's tables are not touched by it.
    let (status, message) = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return LIMBER_OK,
        Ok(Err(error)) => (LIMBER_ERROR, chain(&error)),
        Err(payload) => {
            let message = PANIC.with_borrow_mut(Option::take).unwrap_or_else(|| "panicked".to_string());
            // Dropping what a panic threw may panic again.
            let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
            (LIMBER_PANIC, message)
        }
    };
    // SAFETY: by the caller's promise. A host that gives no sink gets the status alone.
    let _ = unsafe { lend::give(error, &message) };
    status
}

/// Every cause once, though some errors quote the one below them.
fn chain(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !message.ends_with(&cause) {
            let between = if message.is_empty() { "" } else { ": " };
            message = format!("{message}{between}{cause}");
        }
    }
    message
}

/// Gives `text` to a sink of the host.
///
/// # Safety
/// `sink` is null or a sink as the ABI says.
pub(crate) unsafe fn give(sink: *const LimberSink, text: &str) -> Result<()> {
    // SAFETY: by the caller's promise.
    unsafe { lend::give(sink, text) }.map_err(Error::msg)
}

/// A text of the host, copied.
///
/// # Safety
/// `text` is null or ends in a zero byte.
pub(crate) unsafe fn text(text: *const c_char, what: &str) -> Result<String> {
    // SAFETY: by the caller's promise.
    unsafe { lend::text(text, &format!("the host's {what}")) }.map_err(Error::msg)
}

/// `n` numbers of the host, copied; none where the pointer is null.
///
/// # Safety
/// `numbers` is null or holds `n` numbers.
pub(crate) unsafe fn numbers(numbers: *const u64, n: usize) -> Result<Option<Vec<usize>>> {
    if numbers.is_null() {
        return Ok(None);
    }
    // SAFETY: by the caller's promise.
    let numbers = unsafe { std::slice::from_raw_parts(numbers, n) };
    Ok(Some(numbers.iter().map(|n| usize::try_from(*n)).collect::<Result<_, _>>()?))
}

/// Writes a struct for the host.
///
/// # Safety
/// As [`write`] of the ABI.
pub(crate) unsafe fn answer<T: Table>(out: *mut T, value: T) -> Result<()> {
    // SAFETY: by the caller's promise.
    unsafe { write(out, value)? };
    Ok(())
}

/// Writes one value for the host.
///
/// # Safety
/// `out` is null or may be written.
pub(crate) unsafe fn set<T>(out: *mut T, value: T) -> Result<()> {
    if out.is_null() {
        bail!("the host gave no pointer for the result")
    }
    // SAFETY: by the caller's promise.
    unsafe { out.write(value) };
    Ok(())
}
