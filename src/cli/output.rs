//! Results on stdout, all else on stderr.

use anyhow::Result;
use serde::Serialize;
use std::io::{IsTerminal, Write};

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

/// A progress bar on a terminal, nothing elsewhere but a line at the end.
pub struct Progress {
    bar: indicatif::ProgressBar,
    what: &'static str,
}

impl Progress {
    /// A bar over `total` steps of `what`.
    pub fn new(total: u64, what: &'static str) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let style =
                indicatif::ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
            let bar = indicatif::ProgressBar::new(total).with_message(what);
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        } else {
            let bar = indicatif::ProgressBar::hidden();
            bar.set_length(total);
            bar
        };
        Self { bar, what }
    }

    /// `position` steps are done.
    pub fn at(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// All is done.
    pub fn finish(self) {
        let (count, seconds) = (self.bar.position(), self.bar.elapsed().as_secs_f64());
        self.bar.finish_and_clear();
        eprintln!("{count} {} in {seconds:.1} s", self.what);
    }
}
