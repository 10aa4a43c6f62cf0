//! Results on stdout, all else on stderr.

use anyhow::Result;
use serde::Serialize;
use std::borrow::Cow;
use std::io::Write;

/// One line of result.
///
/// # Errors
/// A stdout that cannot be written.
pub fn line(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(())
}

/// A piece of result, shown at once.
///
/// # Errors
/// As [`line`].
pub fn piece(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Generated text on one line: its line breaks as `\n`.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(['\n', '\r']) {
        return text.into();
    }
    text.replace("\r\n", "\\n").replace(['\n', '\r'], "\\n").into()
}

/// One JSON object on a line of its own.
///
/// # Errors
/// As [`line`].
pub fn json(value: &impl Serialize) -> Result<()> {
    line(&serde_json::to_string(value)?)
}

/// The field `image`: the path of one image, the list of several.
pub fn images(names: &[&str]) -> serde_json::Value {
    match names {
        [name] => serde_json::json!(name),
        names => serde_json::json!(names),
    }
}

/// Something a user should know that stops nothing.
pub fn note(text: &str) {
    eprintln!("note: {text}");
}

/// The one message of a failure: every cause once, though some errors quote the one below them.
pub fn error(error: &anyhow::Error) {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !message.ends_with(&cause) {
            let between = if message.is_empty() { "" } else { ": " };
            message = format!("{message}{between}{cause}");
        }
    }
    eprintln!("error: {message}");
}
