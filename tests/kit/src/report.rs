//! `Report`: named checks, each passed or failed with a reason.

use anyhow::Result;
use limber_core::registry::Entry;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// One named check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What a conforming component does.
    pub name: String,
    /// Why the component does not; None where it does.
    pub failure: Option<String>,
}

/// What the suite found of one entry; `Display` prints it as a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Role, kind and origin of the entry.
    pub title: String,
    /// The checks, in the order they ran.
    pub checks: Vec<Check>,
}

impl Report {
    pub(crate) fn new(entry: &Entry) -> Self {
        Self { title: format!("{} {}, {}", entry.maker.role(), entry.kind, entry.origin), checks: Vec::new() }
    }

    /// The checks that failed.
    pub fn failed(&self) -> Vec<&Check> {
        self.checks.iter().filter(|check| check.failure.is_some()).collect()
    }

    /// Whether no check failed.
    pub fn passed(&self) -> bool {
        self.failed().is_empty()
    }

    /// Runs one check; a panic counts as a failure.
    pub(crate) fn check(&mut self, name: &str, run: impl FnOnce() -> Result<()>) {
        self.get(name, run);
    }

    /// Runs one check and keeps what it made.
    pub(crate) fn get<T>(&mut self, name: &str, run: impl FnOnce() -> Result<T>) -> Option<T> {
        // What a panic leaves half done belongs to the component, and is only asked further questions of the same kind.
        let result = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(result) => result.map_err(|e| format!("{e:#}")),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                Err(format!("panicked: {text}"))
            }
        };
        let failure = result.as_ref().err().cloned();
        self.checks.push(Check { name: name.to_string(), failure });
        result.ok()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        for check in &self.checks {
            match &check.failure {
                None => writeln!(f, "  ok      {}", check.name)?,
                Some(reason) => writeln!(f, "  FAILED  {}: {reason}", check.name)?,
            }
        }
        write!(f, "  {} of {} checks failed", self.failed().len(), self.checks.len())
    }
}
