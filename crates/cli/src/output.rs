//! Results on stdout, all else on stderr.

use anyhow::Result;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use limber_weights::hub::Event;
use serde::Serialize;
use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a plain line tells how far long work is.
const EVERY: Duration = Duration::from_secs(30);

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

/// A progress bar on a terminal, elsewhere a line now and then and one at the end.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    /// Steps that an earlier run had done, which say nothing of the rate.
    before: Cell<u64>,
    /// When a plain line was written last.
    spoke: Cell<Instant>,
}

impl Progress {
    /// A bar over `total` steps of `what`.
    pub fn new(total: u64, what: &'static str) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
            let bar = ProgressBar::new(total).with_message(what);
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        } else {
            let bar = ProgressBar::hidden();
            bar.set_length(total);
            bar
        };
        Self { bar, what, before: Cell::new(0), spoke: Cell::new(Instant::now()) }
    }

    /// An earlier run had done `position` steps.
    pub fn from(&self, position: u64) {
        self.before.set(position);
        self.bar.set_position(position);
        self.bar.reset_eta();
    }

    /// `position` steps are done.
    pub fn at(&self, position: u64) {
        self.bar.set_position(position);
        if self.bar.is_hidden() && self.spoke.get().elapsed() >= EVERY {
            self.spoke.set(Instant::now());
            let total = self.bar.length().unwrap_or(position);
            eprintln!("{}", steps(position, total, self.before.get(), self.bar.elapsed(), self.what));
        }
    }

    /// All is done.
    pub fn finish(self) {
        let (count, seconds) = (self.bar.position() - self.before.get(), self.bar.elapsed().as_secs_f64());
        self.bar.finish_and_clear();
        eprintln!("{count} {} in {seconds:.1} s", self.what);
    }
}

/// How far long work is: count, rate and time to go.
fn steps(done: u64, total: u64, before: u64, elapsed: Duration, what: &str) -> String {
    let rate = done.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(1e-3);
    let left = Duration::from_secs_f64((total.saturating_sub(done) as f64 / rate.max(1e-9)).min(1e9));
    format!("{done}/{total} {what}, {rate:.1} a second, {} to go", HumanDuration(left))
}

/// What downloads say: a bar with rate and time to go on a terminal, plain lines elsewhere.
pub struct Downloads {
    bar: Option<ProgressBar>,
    file: String,
    /// Where the file began in this run, and when; when a plain line was written last.
    start: (u64, Instant),
    spoke: Instant,
    size: Option<u64>,
}

impl Downloads {
    /// How often a plain line tells how far a file is.
    const EVERY: Duration = Duration::from_secs(10);

    /// Nothing is said before a download begins.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { bar: None, file: String::new(), start: (0, now), spoke: now, size: None }
    }

    /// Tells of one event.
    pub fn hear(&mut self, event: Event) {
        match event {
            Event::Begin { file, size, at, number, of } => self.begin(file, size, at, (number, of)),
            Event::At(done) => self.at(done),
            Event::End { size, .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
                let seconds = self.start.1.elapsed().as_secs_f64();
                eprintln!("{}: {} in {seconds:.1} s", self.file, HumanBytes(size));
            }
            Event::Note(text) => match &self.bar {
                Some(bar) => bar.suspend(|| note(text)),
                None => note(text),
            },
        }
    }

    fn begin(&mut self, file: &str, size: Option<u64>, at: u64, (number, of): (usize, usize)) {
        let now = Instant::now();
        self.file = if of > 1 { format!("{file} ({number} of {of})") } else { file.to_string() };
        (self.start, self.spoke, self.size) = ((at, now), now, size);
        if std::io::stderr().is_terminal() {
            let known = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            let unknown = "{msg} {spinner} {bytes} {bytes_per_sec}";
            let style = ProgressStyle::with_template(if size.is_some() { known } else { unknown });
            let bar = size.map_or_else(ProgressBar::no_length, ProgressBar::new).with_message(self.file.clone());
            let bar = if let Ok(style) = style { bar.with_style(style) } else { bar };
            // What an earlier run brought says nothing of the rate.
            bar.set_position(at);
            bar.reset_eta();
            self.bar = Some(bar);
            return;
        }
        let size = size.map_or_else(|| "of unknown length".to_string(), |size| HumanBytes(size).to_string());
        let from = if at > 0 { format!(", going on after {}", HumanBytes(at)) } else { String::new() };
        eprintln!("{}: {size}{from}", self.file);
    }

    fn at(&mut self, done: u64) {
        if done < self.start.0 {
            // It began anew.
            self.start = (done, Instant::now());
            if let Some(bar) = &self.bar {
                bar.set_position(done);
                bar.reset_eta();
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.spoke.elapsed() >= Self::EVERY {
            self.spoke = Instant::now();
            eprintln!("{}: {}", self.file, progress(done, self.size, self.start.0, self.start.1.elapsed()));
        }
    }
}

/// How far a file is: bytes, share, rate and time to go.
fn progress(done: u64, size: Option<u64>, start: u64, elapsed: Duration) -> String {
    let rate = done.saturating_sub(start) as f64 / elapsed.as_secs_f64().max(1e-3);
    let speed = format!("{}/s", HumanBytes(rate as u64));
    match size {
        Some(size) if rate > 0.0 && size > 0 => {
            let left = Duration::from_secs_f64((size.saturating_sub(done) as f64 / rate).min(1e9));
            let share = 100.0 * done as f64 / size as f64;
            format!(
                "{} of {} ({share:.0} %), {speed}, {} to go",
                HumanBytes(done),
                HumanBytes(size),
                HumanDuration(left)
            )
        }
        _ => format!("{}, {speed}", HumanBytes(done)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_tell_how_far_work_is() {
        let ten = Duration::from_secs(10);
        assert_eq!(steps(70, 100, 50, ten, "images"), "70/100 images, 2.0 a second, 15 seconds to go");
        assert!(steps(0, 100, 0, Duration::ZERO, "images").starts_with("0/100 images, 0.0 a second, "));
    }

    #[test]
    fn plain_lines_tell_rate_and_time_to_go() {
        let second = Duration::from_secs(1);
        let mib = 1 << 20;
        for (done, size, start, elapsed, expected) in [
            (30 * mib, Some(100 * mib), 10 * mib, 10, "30.00 MiB of 100.00 MiB (30 %), 2.00 MiB/s, 35 seconds to go"),
            (30 * mib, None, 0, 10, "30.00 MiB, 3.00 MiB/s"),
            (10 * mib, Some(100 * mib), 10 * mib, 10, "10.00 MiB, 0 B/s"),
        ] {
            assert_eq!(progress(done, size, start, second * elapsed), expected);
        }
    }
}
