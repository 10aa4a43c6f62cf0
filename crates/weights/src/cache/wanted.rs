//! What a component wants of a repository, and what the cache lacks of it.

use super::repository::{CachedRepository, DEFAULT_REVISION};
use crate::mapped::map;
use crate::spec::WeightSpec;
use crate::{gguf, sharded};
use anyhow::{Result, bail};
use limber_core::bounded::{self, TEXT_LIMIT};
use limber_core::registry::Role;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What an index of shards ends in.
pub const INDEX: &str = ".index.json";

/// Documents that an encoder reads beside its weights.
const ENCODER: [&str; 4] =
    ["config.json", "preprocessor_config.json", "processor_config.json", "open_clip_config.json"];

/// Documents that a decoder reads beside its weights.
const DECODER: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

/// The files of a repository that a component reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Names of its weights: the first that is there is read, and all shards where it is an index.
    pub weights: Vec<String>,
    /// Documents that are read where they are there.
    pub beside: Vec<String>,
}

impl Wanted {
    /// The first of `weights`, and the documents that a component of this role reads. No role is any role.
    pub fn of(role: Option<Role>, weights: &[&str]) -> Self {
        let beside: Vec<&str> = match role {
            Some(Role::Encoder) => ENCODER.to_vec(),
            Some(Role::Decoder) => DECODER.to_vec(),
            Some(Role::Stitch) => Vec::new(),
            None => {
                let mut all = ENCODER.to_vec();
                all.extend(DECODER.iter().filter(|name| !ENCODER.contains(name)));
                all
            }
        };
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Self { weights: owned(weights), beside: owned(&beside) }
    }
}

/// A spec that names a repository, and its folder in the cache.
#[derive(Debug, Clone)]
pub struct Named<'a> {
    /// The spec itself, for messages.
    pub spec: &'a WeightSpec,
    /// `owner/name`.
    pub repository: &'a str,
    /// Branch, tag or commit.
    pub revision: &'a str,
    /// A file or folder in the repository.
    pub file: Option<&'a str>,
    /// Its folder in the cache.
    pub cached: CachedRepository,
}

/// What is not in the cache.
#[derive(Debug, PartialEq, Eq)]
pub enum Lack {
    /// All is there, or known not to exist.
    Nothing,
    /// Documents of which nobody knows whether they exist.
    Beside(Vec<String>),
    /// One of these files of weights.
    Weights(Vec<String>),
    /// All of these shards, though their index is there.
    Shards(Vec<String>),
}

impl Lack {
    /// Whether all weights are there.
    pub fn is_there(&self) -> bool {
        matches!(self, Lack::Nothing | Lack::Beside(_))
    }
}

impl<'a> Named<'a> {
    /// The folder of `spec` in `cache`.
    ///
    /// # Errors
    /// A spec that is not on the hub.
    pub fn new(spec: &'a WeightSpec, cache: &Path) -> Result<Self> {
        let WeightSpec::Hub { repository, revision, file } = spec else { bail!("{spec} is not on the hub") };
        let revision = revision.as_deref().unwrap_or(DEFAULT_REVISION);
        Ok(Self { spec, repository, revision, file: file.as_deref(), cached: CachedRepository::new(cache, repository) })
    }

    /// The snapshot at the commit that the revision is known to stand for.
    pub fn snapshot(&self) -> PathBuf {
        self.cached.snapshot(&self.cached.commit(self.revision))
    }

    /// The folder in the repository where documents lie, and the names that its weights may have.
    fn candidates<'b>(&'b self, wanted: &Wanted, snapshot: &Path) -> (&'b str, Vec<String>) {
        match self.file {
            Some(file) if !snapshot.join(file).is_dir() => (parent(file), vec![file.to_string()]),
            folder => {
                let folder = folder.unwrap_or_default();
                (folder, wanted.weights.iter().map(|name| inside(folder, name)).collect())
            }
        }
    }

    /// What the cache lacks of `wanted`.
    pub fn lack(&self, wanted: &Wanted) -> Lack {
        let snapshot = self.snapshot();
        let there = |name: &String| snapshot.join(name).exists();
        let (folder, weights) = self.candidates(wanted, &snapshot);
        let Some(first) = weights.iter().find(|name| there(name)) else { return Lack::Weights(weights) };
        let missing: Vec<String> = shards(&snapshot, first).into_iter().filter(|name| !there(name)).collect();
        if !missing.is_empty() {
            return Lack::Shards(missing);
        }
        let absent = self.cached.no_exist(&self.cached.commit(self.revision));
        let beside = wanted.beside.iter().map(|name| inside(folder, name));
        let unknown: Vec<String> = beside.filter(|name| !there(name) && !absent.join(name).exists()).collect();
        if unknown.is_empty() { Lack::Nothing } else { Lack::Beside(unknown) }
    }

    /// What the cache has of `wanted`, with lengths.
    pub fn there(&self, wanted: &Wanted) -> Vec<(String, u64)> {
        let snapshot = self.snapshot();
        let (folder, weights) = self.candidates(wanted, &snapshot);
        let mut names: Vec<String> = wanted.beside.iter().map(|name| inside(folder, name)).collect();
        if let Some(first) = weights.into_iter().find(|name| snapshot.join(name).exists()) {
            names.extend(shards(&snapshot, &first));
            names.push(first);
        }
        let length = |name: String| Some((std::fs::metadata(snapshot.join(&name)).ok()?.len(), name));
        names.into_iter().filter_map(length).map(|(bytes, name)| (name, bytes)).collect()
    }

    /// The message for weights that are not in the cache: what was looked for, where, and what can be done.
    pub fn absent(&self, wanted: &Wanted, cache: &Path, why: Option<&str>) -> anyhow::Error {
        let missing = match self.lack(wanted) {
            Lack::Weights(names) => names.join(" or "),
            Lack::Shards(names) | Lack::Beside(names) => names.join(", "),
            Lack::Nothing => self.file.unwrap_or_default().to_string(),
        };
        let snapshot = self.snapshot();
        let cached = match self.file {
            Some(file) => snapshot.join(file),
            None => snapshot.join(""),
        };
        let why = why.map(|why| format!(", and {why}")).unwrap_or_default();
        // A program without the network must not send the user to itself.
        let own = if cfg!(feature = "hub") { format!("`limber pull {}` or ", self.spec) } else { String::new() };
        anyhow::anyhow!(
            "{}: {} at revision {:?} is not in the Hugging Face cache {}{why}; looked for {missing}; \
             download it with {own}`hf download {} --revision {}`, or put it at {}",
            self.spec,
            self.repository,
            self.revision,
            cache.display(),
            self.repository,
            self.revision,
            cached.display(),
        )
    }
}

/// The shards of an index, or the other files of a split GGUF, by their paths in the repository; none of any other file. One
/// that cannot be read is for the reader of weights to report.
fn shards(snapshot: &Path, weights: &str) -> Vec<String> {
    if weights.ends_with(".gguf") {
        let name = weights.rsplit('/').next().unwrap_or(weights);
        let bytes = map(&snapshot.join(weights)).ok();
        let all = bytes.and_then(|bytes| gguf::siblings((*bytes).as_ref(), name).ok()?).unwrap_or_default();
        return all.iter().filter(|part| *part != name).map(|part| inside(parent(weights), part)).collect();
    }
    if !weights.ends_with(INDEX) {
        return Vec::new();
    }
    let text = File::open(snapshot.join(weights)).and_then(|file| bounded::text(file, TEXT_LIMIT)).unwrap_or_default();
    let names = sharded::shards(&text).unwrap_or_default();
    names.iter().map(|shard| inside(parent(weights), shard)).collect()
}

/// The folder of a path inside a repository; empty at its top.
pub fn parent(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// A name in a folder of a repository.
pub fn inside(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_gguf_wants_all_its_files() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
        let names = shards(&golden, "gguf_types/split-00002-of-00003.gguf");
        assert_eq!(names, ["gguf_types/split-00001-of-00003.gguf", "gguf_types/split-00003-of-00003.gguf"]);
        assert!(shards(&golden, "gguf_types/q4_0.gguf").is_empty());
        assert!(shards(&golden, "gguf_types/none-there.gguf").is_empty());
    }
}
