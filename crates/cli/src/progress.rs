//! How far long work is: a bar on a terminal, elsewhere a line from time to time.

use super::output::{self, note};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use limber_hub::Event;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// What a bar shows of counted steps, of bytes, and of bytes whose number is not known.
const COUNT: &str = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}";
const BYTES: &str = "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const BYTES_ALONE: &str = "{msg} {spinner} {bytes} {bytes_per_sec}";

/// A bar where stderr is a terminal; where it is none, it tells when a line is due.
pub struct Bar {
    bar: ProgressBar,
    /// Where this run began, and when: what an earlier run had done says nothing of the rate.
    start: (u64, Instant),
    /// When a line was due last.
    spoke: Instant,
    /// The longest time between two lines; None where nothing is due.
    every: Option<Duration>,
}

/// After this time there is a first line, so that a pipe shows early that work goes on.
const FIRST_LINE: Duration = Duration::from_secs(5);

impl Bar {
    /// A bar over `length` steps, if they are known, from `start` on; a line is due after a few seconds, then less and less
    /// often, at last every so often.
    fn new(length: Option<u64>, start: u64, template: &str, every: Duration) -> Self {
        let bar = match std::io::stderr().is_terminal() && !output::is_quiet() {
            true => ProgressBar::no_length(),
            false => ProgressBar::hidden(),
        };
        if let Some(length) = length {
            bar.set_length(length);
        }
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let now = Instant::now();
        let mut bar = Self { bar, start: (start, now), spoke: now, every: Some(every) };
        bar.restart(start);
        bar
    }

    /// A bar over `total` counted steps; nothing is shown or due where it is not to speak.
    pub fn count(total: u64, speaks: bool) -> Self {
        let mut bar = Self::new(Some(total), 0, COUNT, Duration::from_secs(30));
        if !speaks {
            bar.bar = ProgressBar::hidden();
            bar.every = None;
        }
        bar
    }

    /// What is being done, in front of the bar.
    pub fn message(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// The rate counts from `position` on.
    pub fn restart(&mut self, position: u64) {
        self.start = (position, Instant::now());
        self.bar.set_position(position);
        self.bar.reset_eta();
    }

    /// `position` steps are done; whether a line is due, which is told once.
    pub fn at(&mut self, position: u64) -> bool {
        self.bar.set_position(position);
        let patience = (self.start.1.elapsed() / 10).max(FIRST_LINE);
        let is_due = self.is_hidden() && self.every.is_some_and(|every| self.spoke.elapsed() >= every.min(patience));
        if is_due {
            self.spoke = Instant::now();
        }
        is_due
    }

    /// Shows the bar before there is anything to count, and keeps its clock going.
    pub fn show(&self) {
        self.bar.enable_steady_tick(Duration::from_secs(1));
    }

    /// Whether there is no bar, so that lines are all there is.
    pub fn is_hidden(&self) -> bool {
        self.bar.is_hidden()
    }

    /// A line of its own above the bar.
    pub fn say(&self, speak: impl FnOnce()) {
        self.bar.suspend(speak);
    }

    /// Takes the bar away; how long it was there.
    pub fn finish(&self) -> Duration {
        self.bar.finish_and_clear();
        self.start.1.elapsed()
    }
}

/// Counted steps: a bar, or a line from time to time and one at the end.
pub struct Progress {
    bar: Bar,
    total: u64,
    done: u64,
    what: &'static str,
}

impl Progress {
    /// A bar over `total` steps of `what`.
    pub fn new(total: u64, what: &'static str) -> Self {
        let bar = Bar::count(total, true);
        bar.message(what);
        Self { bar, total, done: 0, what }
    }

    /// An earlier run had done `position` steps.
    pub fn from(&mut self, position: u64) {
        self.done = position;
        self.bar.restart(position);
    }

    /// `position` steps are done.
    pub fn at(&mut self, position: u64) {
        self.done = position;
        if self.bar.at(position) {
            let (before, since) = self.bar.start;
            output::progress(steps(position, self.total, before, since.elapsed(), self.what));
        }
    }

    /// A line of its own above the bar.
    pub fn say<T>(&self, speak: impl FnOnce() -> T) -> T {
        self.bar.bar.suspend(speak)
    }

    /// Takes the bar away without a line.
    pub fn clear(self) {
        self.bar.finish();
    }

    /// All is done.
    pub fn finish(self) {
        let seconds = self.bar.finish().as_secs_f64();
        output::progress(format_args!("{} {} in {seconds:.1} s", self.done - self.bar.start.0, self.what));
    }
}

/// How far long work is: count, rate and time to go.
fn steps(done: u64, total: u64, before: u64, elapsed: Duration, what: &str) -> String {
    let rate = done.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(1e-3);
    format!("{done}/{total} {what}, {} a second, {} to go", shown(rate), HumanDuration(left(total, done, rate)))
}

/// A rate with one digit after the point, or with two that are not 0.
pub fn shown(rate: f64) -> String {
    let digits = if rate > 0.0 && rate < 1.0 { (1.0 - rate.log10().floor()).min(9.0) as usize } else { 1 };
    format!("{rate:.digits$}")
}

/// The time that the rest takes at this rate.
fn left(total: u64, done: u64, rate: f64) -> Duration {
    Duration::from_secs_f64((total.saturating_sub(done) as f64 / rate.max(1e-9)).min(1e9))
}

/// What downloads say: a bar with rate and time to go on a terminal, plain lines elsewhere.
#[derive(Default)]
pub struct Downloads {
    bar: Option<Bar>,
    file: String,
    size: Option<u64>,
}

impl Downloads {
    /// Nothing is said before a download begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells of one event.
    pub fn hear(&mut self, event: Event) {
        match event {
            Event::Begin { file, size, at, number, of } => self.begin(file, size, at, (number, of)),
            Event::At(done) => self.at(done),
            Event::End { size, .. } => {
                let seconds = self.bar.take().map_or(0.0, |bar| bar.finish().as_secs_f64());
                output::progress(format_args!("{}: {} in {seconds:.1} s", self.file, HumanBytes(size)));
            }
            Event::Note(text) => match &self.bar {
                Some(bar) => bar.say(|| note(text)),
                None => note(text),
            },
        }
    }

    fn begin(&mut self, file: &str, size: Option<u64>, at: u64, (number, of): (usize, usize)) {
        self.file = if of > 1 { format!("{file} ({number} of {of})") } else { file.to_string() };
        self.size = size;
        let template = if size.is_some() { BYTES } else { BYTES_ALONE };
        let bar = self.bar.insert(Bar::new(size, at, template, Duration::from_secs(10)));
        bar.message(self.file.clone());
        if bar.is_hidden() {
            let size = size.map_or_else(|| "of unknown length".to_string(), |size| HumanBytes(size).to_string());
            let from = if at > 0 { format!(", going on after {}", HumanBytes(at)) } else { String::new() };
            output::progress(format_args!("{}: {size}{from}", self.file));
        }
    }

    fn at(&mut self, done: u64) {
        let Some(bar) = &mut self.bar else { return };
        if done < bar.start.0 {
            // It began anew.
            bar.restart(done);
        }
        if bar.at(done) {
            let (start, since) = bar.start;
            output::progress(format_args!("{}: {}", self.file, bytes(done, self.size, start, since.elapsed())));
        }
    }
}

/// How far a file is: bytes, share, rate and time to go.
fn bytes(done: u64, size: Option<u64>, start: u64, elapsed: Duration) -> String {
    let rate = done.saturating_sub(start) as f64 / elapsed.as_secs_f64().max(1e-3);
    let speed = format!("{}/s", HumanBytes(rate as u64));
    match size {
        Some(size) if rate > 0.0 && size > 0 => {
            let share = 100.0 * done as f64 / size as f64;
            let left = HumanDuration(left(size, done, rate));
            format!("{} of {} ({share:.0} %), {speed}, {left} to go", HumanBytes(done), HumanBytes(size))
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
        for (rate, text) in [(123.0, "123.0"), (1.04, "1.0"), (0.34, "0.34"), (0.0333, "0.033"), (1e-12, "0.000000000")]
        {
            assert_eq!(shown(rate), text);
        }
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
            assert_eq!(bytes(done, size, start, second * elapsed), expected);
        }
    }
}
