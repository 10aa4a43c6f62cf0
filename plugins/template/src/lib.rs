//! The folder that `limber plugin new` makes: a plugin that builds and passes its own test as it stands.
//!
//! In Rust it is the example of its role under another name, in C the template; both are built and checked by limber's
//! own tests.

mod c;
mod limber;
mod rust;

pub use limber::Limber;

use anyhow::{Context, Result, bail, ensure};
use limber_core::registry::Role;
use std::fs;
use std::path::{Path, PathBuf};

/// What a plugin is written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Language {
    /// A crate with the SDK, which is found there.
    Rust(Limber),
    /// The header alone.
    C,
}

/// A plugin to begin with.
#[derive(Debug, Clone)]
pub struct Template<'a> {
    /// Name of the folder, of the plugin and of its component's kind.
    pub name: &'a str,
    /// The role of its component.
    pub role: Role,
    /// What it is written in.
    pub language: Language,
}

impl Template<'_> {
    /// Writes the folder `name` into `into` and gives its path; it appears whole or not at all.
    ///
    /// # Errors
    /// A name that is not in kebab case, a folder that is there already, a checkout that is none, a disk that is full.
    pub fn write(&self, into: &Path) -> Result<PathBuf> {
        let name = self.name;
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.ends_with('-') || !name.chars().all(letters) {
            bail!(
                "the name {name:?} is not allowed, expected small letters, digits and -, a letter first, as in my-encoder"
            )
        }
        let folder = into.join(name);
        ensure!(fs::symlink_metadata(&folder).is_err(), "{} is there already", folder.display());
        let files = match &self.language {
            Language::Rust(limber) => rust::files(name, self.role, limber)?,
            Language::C => c::files(name, self.role),
        };
        let context = || format!("cannot write {}", folder.display());
        let part = tempfile::Builder::new().prefix(&format!(".{name}.")).tempdir_in(into).with_context(context)?;
        for (path, text) in files {
            let path = part.path().join(path);
            fs::create_dir_all(path.parent().unwrap_or(part.path())).with_context(context)?;
            fs::write(&path, text).with_context(context)?;
        }
        // A temporary folder is its owner's alone; this one becomes an ordinary one.
        #[cfg(unix)]
        fs::set_permissions(part.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).with_context(context)?;
        fs::rename(part.keep(), &folder).with_context(context)?;
        Ok(folder)
    }
}

/// A file of the new folder: its path there and its text.
type File = (&'static str, String);

/// The README of a plugin whose `test` command builds `library` as well.
fn readme(name: &str, test: &str, library: &str) -> File {
    let text = format!(
        "# {name}\n\nA plugin for limber.\n\n```sh\n{test}\nlimber plugin check {library}\n```\n\n\
         A config uses it with `plugins: [{library}]` and `kind: {name}`.\n"
    );
    ("README.md", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_made_is_refused_and_leaves_nothing() {
        let into = tempfile::tempdir().unwrap();
        fs::create_dir(into.path().join("there")).unwrap();
        let message = |name: &str, language: Language| {
            format!("{:#}", Template { name, role: Role::Encoder, language }.write(into.path()).unwrap_err())
        };
        for name in ["", "My", "1st", "a b", "a/b", "..", "end-"] {
            assert!(message(name, Language::C).contains(&format!("the name {name:?} is not allowed")), "{name}");
        }
        assert!(message("there", Language::C).contains("there is there already"));
        let folder = |path: &Path| Language::Rust(Limber::Folder(path.to_path_buf()));
        assert!(message("a", folder(into.path())).contains("there is no plugins/sdk/Cargo.toml"));
        assert!(message("a", folder(Path::new("/no/such"))).contains("--limber /no/such"));
        assert_eq!(fs::read_dir(into.path()).unwrap().count(), 1);
    }
}
