//! Results on stdout, all else on stderr.

use anyhow::Result;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args};
use serde::Serialize;
use std::borrow::Cow;
use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// How much is said on stderr.
#[derive(Debug, Clone, Copy, Args)]
pub struct Verbosity {
    /// Say on stderr what is loaded, from where and in what time; twice: all that is logged for debugging
    #[arg(long, short, global = true, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Say nothing on stderr but warnings and errors: no notes, no progress
    #[arg(long, short, global = true)]
    quiet: bool,
}

/// The colours of help and of usage errors, on a terminal.
pub const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

static QUIET: AtomicBool = AtomicBool::new(false);

impl Verbosity {
    /// Holds from here on; the level of the log, where `LIMBER_LOG` does not say it.
    pub fn start(self) -> &'static str {
        QUIET.store(self.quiet, Ordering::Relaxed);
        match self.verbose {
            0 => "warn",
            1 => "info",
            _ => "debug",
        }
    }
}

/// Whether notes and progress are left out.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// One line on stderr. Where it goes may be closed or full, which is no reason to end a run.
fn stderr(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A line on how far work is.
pub fn progress(text: impl Display) {
    if !is_quiet() {
        stderr(text);
    }
}

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
    progress(format_args!("note: {text}"));
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
    stderr(format_args!("error: {message}"));
}
