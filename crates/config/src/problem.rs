//! What is wrong with a config, and what of it has no effect: one sentence each, with file, location, section and key.

use super::schema;
use limber_core::settings::Violation;
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
    /// What is wrong and what is expected.
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
        write_location(f, &self.file, self.at)?;
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
        write_location(f, &self.file, None)?;
        write!(f, "key {:?} ({}) has no effect: {}", self.key, self.value, self.why)
    }
}

fn write_location(f: &mut fmt::Formatter, file: &str, at: Option<(usize, usize)>) -> fmt::Result {
    match (file, at) {
        ("", _) => Ok(()),
        (file, Some((line, column))) => write!(f, "{file}:{line}:{column}: "),
        (file, None) => write!(f, "{file}: "),
    }
}

impl From<Violation> for Problem {
    /// The section is what leads to the key, and indices into a list belong to the key: `train.betas.1` is the key
    /// `betas.1` of `train`, `plugins.0.path` the key `path` of `plugins.0`.
    fn from(violation: Violation) -> Self {
        let path = violation.path;
        if let [name] = path.as_slice()
            && schema::is_section(name)
        {
            let missing = violation.message.starts_with("missing key");
            let message = if missing { schema::missing(name) } else { violation.message };
            return Self::new(name, "", message);
        }
        let is_index = |name: &String| name.bytes().all(|b| b.is_ascii_digit());
        let indices = path.iter().rev().take_while(|name| is_index(name)).count();
        let (section, key) = path.split_at(path.len().saturating_sub(indices + 1));
        Self::new(&section.join("."), &key.join("."), violation.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_where_and_what() {
        let check = |problem: Problem, expected: &str| assert_eq!(problem.to_string(), expected);
        let known = Problem { file: "a.yaml".into(), at: Some((3, 5)), ..Problem::new("train", "lr", "wrong") };
        check(known, "a.yaml:3:5: section \"train\", key \"lr\": wrong");
        check(Problem::new("train", "", "wrong"), "section \"train\": wrong");
        check(Problem::new("", "prompt", "wrong"), "key \"prompt\": wrong");
        check(Problem::of_file("a.yaml", "wrong"), "a.yaml: wrong");
        for (path, section, key) in [
            ("train.betas.1", "train", "betas.1"),
            ("plugins.0.path", "plugins.0", "path"),
            ("plugins.0", "", "plugins.0"),
            ("train.validate.data.path", "train.validate.data", "path"),
            ("prompt", "", "prompt"),
            ("train", "train", ""),
        ] {
            let path: Vec<String> = path.split('.').map(str::to_string).collect();
            assert_eq!(Problem::from(Violation::new(&path, "wrong")), Problem::new(section, key, "wrong"));
        }
        let error = ConfigError { problems: vec![Problem::new("", "a", "x"), Problem::new("", "b", "y")] };
        assert_eq!(error.to_string(), "key \"a\": x\nkey \"b\": y");
    }
}
