//! The standard Hugging Face cache: one folder a repository, laid out as `huggingface_hub` lays it out.
//!
//! `models--owner--name/refs/REVISION` holds a commit, `blobs/ETAG` a file's bytes, `snapshots/COMMIT/FILE` is a
//! relative link to its blob, `.no_exist/COMMIT/FILE` says that the commit has no such file, and
//! `.locks/models--owner--name/ETAG.lock` beside the repositories is held while a blob is written.
//! Source followed: `file_download.py` of `huggingface_hub`.

use crate::spec::is_inside;
use std::fs;
use std::path::{Path, PathBuf};

/// The revision that a spec without one means.
pub const DEFAULT_REVISION: &str = "main";

/// The folder of one repository.
#[derive(Debug, Clone)]
pub struct CachedRepository {
    cache: PathBuf,
    /// `models--owner--name`.
    name: String,
}

impl CachedRepository {
    /// The folder of `owner/name` in `cache`.
    pub fn new(cache: &Path, repository: &str) -> Self {
        Self { cache: cache.to_path_buf(), name: format!("models--{}", repository.replace('/', "--")) }
    }

    /// The folder beside the repositories' where files at addresses of their own lie.
    pub fn of_files(cache: &Path) -> Self {
        Self { cache: cache.to_path_buf(), name: "limber--files".to_string() }
    }

    /// Where all of it lies.
    pub fn folder(&self) -> PathBuf {
        self.cache.join(&self.name)
    }

    /// The commit that `revision` stood for when it was last looked up; the revision itself where none is noted.
    pub fn commit(&self, revision: &str) -> String {
        match fs::read_to_string(self.folder().join("refs").join(revision)) {
            Ok(commit) if is_inside(commit.trim()) => commit.trim().to_string(),
            _ => revision.to_string(),
        }
    }

    /// The repository's folder at a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// The marks of files that a commit does not have.
    pub fn no_exist(&self, commit: &str) -> PathBuf {
        self.folder().join(".no_exist").join(commit)
    }

    /// The bytes of the file with this ETag.
    pub fn blob(&self, etag: &str) -> PathBuf {
        self.folder().join("blobs").join(etag)
    }

    /// What is there of a blob whose download is under way or was broken off.
    pub fn incomplete(&self, etag: &str) -> PathBuf {
        self.folder().join("blobs").join(format!("{etag}.incomplete"))
    }

    /// The lock of a blob's download.
    pub fn lock(&self, etag: &str) -> PathBuf {
        self.cache.join(".locks").join(&self.name).join(format!("{etag}.lock"))
    }
}
