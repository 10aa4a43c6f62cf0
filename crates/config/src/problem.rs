//! What is wrong with a config, and what of it has no effect: one sentence each, with file, place, section and key.

use limber_core::weights::{distance, nearest};
use serde_json::Value;
use std::fmt;

/// One thing that is wrong with a config.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problem {
    /// The file, or `--set a.b=c`; empty where the key stands nowhere.
    pub file: String,
    /// Line and column of the key, counted from 1.
    pub at: Option<(usize, usize)>,
    /// The section, dotted where sections nest; empty at the top level.
    pub section: String,
    /// The key; empty where the section or the file itself is meant.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Problem {
    /// A problem with a key, its file not yet known.
    pub fn new(section: &str, key: &str, message: impl Into<String>) -> Self {
        Self { section: section.into(), key: key.into(), message: message.into(), ..Self::default() }
    }

    /// A problem with a whole file.
    pub fn of_file(file: impl Into<String>, message: impl Into<String>) -> Self {
        Self { file: file.into(), message: message.into(), ..Self::default() }
    }

    /// Keys from the top of the tree down to the key.
    pub(super) fn path(&self) -> Vec<&str> {
        self.section.split('.').chain(self.key.split('.')).filter(|part| !part.is_empty()).collect()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write_place(f, &self.file, self.at)?;
        match (self.section.as_str(), self.key.as_str()) {
            ("", "") => {}
            ("", key) => write!(f, "key {key:?}: ")?,
            (section, "") => write!(f, "section {section:?}: ")?,
            (section, key) => write!(f, "section {section:?}, key {key:?}: ")?,
        }
        f.write_str(&self.message)
    }
}

/// Why a config cannot be used: every problem, a line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// All problems, at least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

/// A key of the original's format that has no effect here.
#[derive(Debug, Clone, PartialEq)]
pub struct Note {
    /// The file.
    pub file: String,
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Why it has no effect, and what does.
    pub why: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write_place(f, &self.file, None)?;
        write!(f, "key {:?} ({}) has no effect: {}", self.key, self.value, self.why)
    }
}

fn write_place(f: &mut fmt::Formatter, file: &str, at: Option<(usize, usize)>) -> fmt::Result {
    match (file, at) {
        ("", _) => Ok(()),
        (file, Some((line, column))) => write!(f, "{file}:{line}:{column}: "),
        (file, None) => write!(f, "{file}: "),
    }
}

/// `unknown key` with the nearest allowed one, where it is near enough to be meant, and all allowed ones.
pub(super) fn unknown_key(key: &str, allowed: &[&str]) -> String {
    match allowed {
        [] => "unknown key; no key is allowed here".to_string(),
        _ => format!("unknown key{}; allowed keys: {}", did_you_mean(key, allowed), allowed.join(", ")),
    }
}

/// ` (did you mean "x"?)`, or nothing where no allowed name is near.
pub(super) fn did_you_mean(name: &str, allowed: &[&str]) -> String {
    match nearest(name, allowed.iter().copied(), 1).first() {
        Some(near) if distance(name, near) <= 2.max(name.len() / 3) => format!(" (did you mean {near:?}?)"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let check = |key: &str, allowed: &[&str], expected: &str| assert_eq!(unknown_key(key, allowed), expected);
        check("learning", &["lr", "steps"], "unknown key; allowed keys: lr, steps");
        check("stpes", &["lr", "steps"], "unknown key (did you mean \"steps\"?); allowed keys: lr, steps");
        check(
            "weight-decay",
            &["weight_decay"],
            "unknown key (did you mean \"weight_decay\"?); allowed keys: weight_decay",
        );
        check("x", &[], "unknown key; no key is allowed here");
    }

    #[test]
    fn a_problem_says_where_and_what() {
        let check = |problem: Problem, expected: &str| assert_eq!(problem.to_string(), expected);
        let known = Problem { file: "a.yaml".into(), at: Some((3, 5)), ..Problem::new("train", "lr", "wrong") };
        check(known, "a.yaml:3:5: section \"train\", key \"lr\": wrong");
        check(Problem::new("train", "", "wrong"), "section \"train\": wrong");
        check(Problem::new("", "prompt", "wrong"), "key \"prompt\": wrong");
        check(Problem::of_file("a.yaml", "wrong"), "a.yaml: wrong");
        let error = ConfigError { problems: vec![Problem::new("", "a", "x"), Problem::new("", "b", "y")] };
        assert_eq!(error.to_string(), "key \"a\": x\nkey \"b\": y");
    }
}
