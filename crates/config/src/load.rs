//! From a file, what it extends, and `--set` to a [`Config`], with every problem placed in the file it comes from.
//!
//! `extends` names one file or a list of files, relative to the file's own folder; later ones lie over earlier ones,
//! and the file itself over all. Relative paths in a config count from that config's folder, those of `--set` from the
//! working folder; `~/` in front of a path is the home folder. A config that ships with the program goes by its name: its relative paths count from the working
//! folder, and a file of that name takes precedence.

use super::file;
use super::merge::{Setting, expand_home, in_home, merge, overlay, rebase};
use super::original;
use super::problem::{ConfigError, Note, Problem};
use super::tree::{self, Format};
use super::types::Config;
use limber_core::settings::{or, shown};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A config, and what a user should know of how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// Keys of the original's format that have no effect.
    pub notes: Vec<Note>,
    /// The files that were read, the config itself first.
    pub files: Vec<PathBuf>,
}

/// Most files that one config may be made of, counted as often as they are extended.
const MOST_FILES: usize = 100;

/// Most problems that are located: each search reads the files again.
const MOST_LOCATED: usize = 50;

/// Loads the config at `path`, or the one of that name that ships with the program, with `sets` (`a.b=c`) laid over it.
///
/// # Errors
/// A file that cannot be read or does not parse, or every problem of its content.
pub fn load(path: &Path, sets: &[String]) -> Result<Loaded, ConfigError> {
    Draft::of_file(path, sets)?.finish()
}

/// Loads the config `text` as if it were the file `name` in `folder`.
///
/// # Errors
/// As [`load`].
pub fn load_text(name: &str, text: &str, folder: &Path, sets: &[String]) -> Result<Loaded, ConfigError> {
    Draft::of_text(name, text, folder, sets)?.finish()
}

/// Everything read and merged, not yet typed.
pub(super) struct Draft {
    tree: Map<String, Value>,
    folder: PathBuf,
    sets: Vec<Setting>,
    sources: Vec<Source>,
    notes: Vec<Note>,
}

/// One file that went into a draft.
struct Source {
    file: String,
    path: PathBuf,
    text: String,
    format: Format,
}

impl Draft {
    /// The file at `path` and all it extends.
    pub fn of_file(path: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        if let Some(text) = shipped(path) {
            return Self::of_text(&path.display().to_string(), text, Path::new(""), sets);
        }
        let mut draft = Self::new(path.parent().unwrap_or(Path::new("")), sets)?;
        let tree = draft.read_file(path, &mut Vec::new())?;
        draft.set_over(tree)
    }

    /// The file `name` whose content is `text`.
    pub fn of_text(name: &str, text: &str, folder: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let mut draft = Self::new(folder, sets)?;
        let tree = draft.read_text(Path::new(name), folder, text.to_string(), &mut Vec::new())?;
        draft.set_over(tree)
    }

    fn new(folder: &Path, sets: &[String]) -> Result<Self, ConfigError> {
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_path_buf() };
        let sets: Vec<Setting> = sets.iter().map(|text| Setting::parse(text)).collect::<Result<_, _>>()?;
        Ok(Self { tree: Map::new(), folder, sets, sources: Vec::new(), notes: Vec::new() })
    }

    fn set_over(mut self, mut tree: Map<String, Value>) -> Result<Self, ConfigError> {
        let mut over = overlay(&tree, &self.sets)?;
        expand_home(&mut over);
        if let Ok(working) = std::env::current_dir() {
            rebase(&mut over, &working);
        }
        merge(&mut tree, over);
        self.tree = tree;
        Ok(self)
    }

    /// The typed config, as far as it can be read, and its problems without locations.
    pub fn read(&self) -> (Option<Config>, Vec<Problem>) {
        Config::read(Value::Object(self.tree.clone()), &self.folder)
    }

    /// What was read and merged.
    pub fn tree(&self) -> &Map<String, Value> {
        &self.tree
    }

    /// The folder from which relative paths count.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What has no effect.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn finish(self) -> Result<Loaded, ConfigError> {
        let (config, problems) = self.read();
        let (Some(config), true) = (config, problems.is_empty()) else {
            return Err(ConfigError { problems: self.locate(problems) });
        };
        Ok(Loaded { config, notes: self.notes, files: self.sources.into_iter().map(|s| s.path).collect() })
    }

    /// Gives every problem the file and the line that it comes from.
    pub fn locate(&self, problems: Vec<Problem>) -> Vec<Problem> {
        let file = self.sources.first().map(|source| source.file.clone()).unwrap_or_default();
        let located = problems.into_iter().enumerate().map(|(i, problem)| match self.locate_set(&problem) {
            Some(located) => located,
            None if i < MOST_LOCATED => locate(problem, &self.sources),
            None => Problem { file: file.clone(), ..problem },
        });
        located.collect()
    }

    /// A problem with what `--set` set.
    fn locate_set(&self, problem: &Problem) -> Option<Problem> {
        let path = problem.path();
        let is_prefix = |s: &&Setting| s.path.len() <= path.len() && s.path.iter().zip(&path).all(|(a, b)| a == b);
        let set = self.sets.iter().rev().find(is_prefix)?;
        Some(Problem { file: format!("--set {}", set.text), ..problem.clone() })
    }

    fn read_file(&mut self, path: &Path, chain: &mut Vec<PathBuf>) -> Result<Map<String, Value>, ConfigError> {
        let file = path.display().to_string();
        if self.sources.len() >= MOST_FILES {
            let message = format!("extends leads to more than {MOST_FILES} files, counted as often as they are named");
            return Err(Problem::of_file(file, message).into());
        }
        let text = file::read(path).map_err(|message| Problem::of_file(&file, with_names(path, message)))?;
        let same = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if let Some(start) = chain.iter().position(|there| *there == same) {
            let mut names: Vec<String> = chain[start..].iter().map(|p| p.display().to_string()).collect();
            names.push(same.display().to_string());
            return Err(
                Problem::of_file(file, format!("extends goes round in a circle: {}", names.join(" -> "))).into()
            );
        }
        chain.push(same);
        let tree = self.read_text(path, path.parent().unwrap_or(Path::new("")), text, chain)?;
        chain.pop();
        Ok(tree)
    }

    fn read_text(
        &mut self,
        path: &Path,
        folder: &Path,
        text: String,
        chain: &mut Vec<PathBuf>,
    ) -> Result<Map<String, Value>, ConfigError> {
        let file = path.display().to_string();
        let format = Format::of(path, &text);
        let parsed =
            tree::parse(&text, format).map_err(|e| Problem { at: e.at, ..Problem::of_file(&file, e.message) })?;
        let Value::Object(mut own) = parsed else {
            return Err(Problem::of_file(
                file,
                format!("{} is not allowed, expected a map of sections", shown(&parsed)),
            )
            .into());
        };
        self.sources.push(Source { file: file.clone(), path: path.to_path_buf(), text, format });
        if original::is_flat(&own) {
            let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("original");
            let (mut tree, notes, problems) = original::convert(own, name);
            if !problems.is_empty() {
                let last = self.sources.len() - 1;
                let problems = problems.into_iter().map(|p| locate(p, &self.sources[last..])).collect();
                return Err(ConfigError { problems });
            }
            self.notes.extend(notes.into_iter().map(|note| Note { file: file.clone(), ..note }));
            expand_home(&mut tree);
            return Ok(tree);
        }
        let extended = self.extended(own.shift_remove("extends"))?;
        expand_home(&mut own);
        // Later files win, so they are read first: then the first source that has a key is the one that counts.
        let mut bases = Vec::new();
        for name in extended.iter().rev() {
            let name = in_home(Path::new(name));
            let mut base = self.read_file(&folder.join(&name), chain)?;
            rebase(&mut base, name.parent().unwrap_or(Path::new("")));
            bases.push(base);
        }
        let mut tree = Map::new();
        for layer in bases.into_iter().rev().chain([own]) {
            merge(&mut tree, layer);
        }
        Ok(tree)
    }

    fn extended(&self, value: Option<Value>) -> Result<Vec<String>, ConfigError> {
        let list = match value {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list,
            Some(one) => vec![one],
        };
        let names: Option<Vec<String>> =
            list.iter().map(|v| v.as_str().filter(|s| !s.is_empty()).map(str::to_string)).collect();
        names.ok_or_else(|| {
            let message = format!(
                "value {} is not allowed, expected the name of a file, or a list of them",
                shown(&Value::Array(list))
            );
            locate(
                Problem::new("", "extends", message),
                self.sources.last().map(std::slice::from_ref).unwrap_or_default(),
            )
            .into()
        })
    }
}

/// The config of this name that ships with the program, where there is no such file.
fn shipped(path: &Path) -> Option<&'static str> {
    // A folder of that name is none that could be meant.
    if path.exists() && !path.is_dir() { None } else { limber_configs::named(path.to_str()?) }
}

/// What is said of a file that is not there: a bare name may have been meant for a config that ships.
fn with_names(path: &Path, message: String) -> String {
    let is_bare = path.extension().is_none() && path.components().count() == 1 && !path.exists();
    if !is_bare {
        return message;
    }
    let names: Vec<&str> = limber_configs::NAMED.iter().map(|(name, _)| *name).collect();
    format!("{message}; no config of this name ships with the program either, expected {}", or(&names))
}

/// Places a problem in the first of `sources` that has its key, or else the section that lacks it.
fn locate(problem: Problem, sources: &[Source]) -> Problem {
    let path = problem.path();
    for length in (1..=path.len()).rev() {
        for source in sources {
            if let Some(at) = tree::locate(&source.text, source.format, &path[..length]) {
                return Problem { file: source.file.clone(), at: Some(at), ..problem };
            }
        }
    }
    Problem { file: sources.first().map(|s| s.file.clone()).unwrap_or_default(), ..problem }
}
