//! Where a plugin in Rust takes limber's packages from: a folder or a git repository, never a registry, where anybody
//! could own their names.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A checkout of limber, or the address of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limber {
    /// A folder on this machine.
    Folder(PathBuf),
    /// A git repository.
    Git {
        /// Its address, as Cargo takes it.
        url: String,
        /// What is taken of it: the key (`rev`, `tag` or `branch`) and its value; None is the default branch.
        reference: Option<(&'static str, String)>,
    },
}

impl Limber {
    /// What to say where a plugin in Rust is asked for and nothing names limber.
    pub const MISSING: &str = "a plugin in Rust needs to know where limber is, whose packages are in no registry: \
        --limber FOLDER names a checkout, --limber https://HOST/OWNER/limber#REV (or ssh://, git@HOST:OWNER/limber) \
        a git repository, and --language c does without";

    /// The value of `name` in a manifest's table of dependencies; the package lies in `folder` of the checkout.
    pub(crate) fn dependency(&self, folder: &str) -> Result<String> {
        match self {
            Limber::Folder(path) => {
                let full = path.canonicalize().with_context(|| format!("--limber {}", path.display()))?;
                let sdk = full.join("plugins/sdk/Cargo.toml");
                ensure!(sdk.is_file(), "--limber {}: there is no plugins/sdk/Cargo.toml", path.display());
                Ok(format!("{{ path = {:?} }}", full.join(folder)))
            }
            Limber::Git { url, reference: None } => Ok(format!("{{ git = {url:?} }}")),
            Limber::Git { url, reference: Some((key, value)) } => Ok(format!("{{ git = {url:?}, {key} = {value:?} }}")),
        }
    }
}

impl FromStr for Limber {
    type Err = anyhow::Error;

    /// A folder, or a git address with `#REV`, `#tag=NAME` or `#branch=NAME` behind it where not the default branch is
    /// meant.
    fn from_str(text: &str) -> Result<Self> {
        let (address, reference) = match text.split_once('#') {
            Some((address, reference)) => (address, Some(reference)),
            None => (text, None),
        };
        let Some(url) = url(address)? else { return Ok(Limber::Folder(Path::new(text).to_path_buf())) };
        let reference = reference.map(|reference| match reference.split_once('=') {
            None => ("rev", reference),
            Some(("rev", value)) => ("rev", value),
            Some(("tag", value)) => ("tag", value),
            Some(("branch", value)) => ("branch", value),
            Some((key, _)) => (key, ""),
        });
        let reference = match reference {
            None => None,
            Some((key @ ("rev" | "tag" | "branch"), value)) if is_plain(value) => {
                let key = ["rev", "tag", "branch"].into_iter().find(|known| *known == key).unwrap_or("rev");
                Some((key, value.to_string()))
            }
            Some(_) => bail!("{text:?}: behind # stands what is taken: a commit, tag=NAME or branch=NAME"),
        };
        Ok(Limber::Git { url, reference })
    }
}

/// A git address as Cargo takes it; None where `text` is a folder.
fn url(text: &str) -> Result<Option<String>> {
    let found = match text.split_once("://") {
        Some((scheme, rest)) => {
            let known = ["https", "ssh", "git", "http", "file"];
            ensure!(
                known.contains(&scheme),
                "{text:?}: the scheme is {scheme:?}, expected one of {}",
                known.join(", ")
            );
            ensure!(!rest.is_empty(), "{text:?} names no repository");
            text.to_string()
        }
        // As git writes it: user@host:path.
        None => match text.split_once(':') {
            Some((host, path)) if host.contains('@') && !host.contains('/') => format!("ssh://{host}/{path}"),
            _ => return Ok(None),
        },
    };
    ensure!(is_plain(&found), "{text:?} is no address of a git repository");
    Ok(Some(found))
}

/// Whether `text` may stand in a manifest as it is: no blank, quote or control character.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !"\"'\\`".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_folders_are_told_apart() {
        let git = |url: &str, reference: Option<(&'static str, &str)>| Limber::Git {
            url: url.into(),
            reference: reference.map(|(key, value)| (key, value.into())),
        };
        let https = "https://example.org/owner/limber";
        for (text, expected) in [
            (https.to_string(), git(https, None)),
            (format!("{https}.git#v1.2"), git("https://example.org/owner/limber.git", Some(("rev", "v1.2")))),
            (format!("{https}#rev=0a1b"), git(https, Some(("rev", "0a1b")))),
            (format!("{https}#tag=v1"), git(https, Some(("tag", "v1")))),
            (format!("{https}#branch=a/b"), git(https, Some(("branch", "a/b")))),
            ("ssh://git@example.org/o/limber".into(), git("ssh://git@example.org/o/limber", None)),
            ("git@example.org:o/limber#x".into(), git("ssh://git@example.org/o/limber", Some(("rev", "x")))),
            ("file:///srv/limber".into(), git("file:///srv/limber", None)),
            ("../limber".into(), Limber::Folder("../limber".into())),
            ("/srv/a#b".into(), Limber::Folder("/srv/a#b".into())),
            ("limber".into(), Limber::Folder("limber".into())),
        ] {
            assert_eq!(text.parse::<Limber>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, expected) in [
            ("ftp://example.org/limber", "the scheme is \"ftp\", expected one of https, ssh, git, http, file"),
            ("https://", "names no repository"),
            ("https://a b", "is no address"),
            ("https://example.org/\"x", "is no address"),
            ("https://example.org/limber#", "behind # stands what is taken"),
            ("https://example.org/limber#tag=", "behind # stands what is taken"),
            ("https://example.org/limber#version=1", "behind # stands what is taken"),
            ("https://example.org/limber#a\"b", "behind # stands what is taken"),
        ] {
            let message = text.parse::<Limber>().unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("://"), "{message}");
        }
    }

    #[test]
    fn a_dependency_names_the_repository_and_what_is_taken() {
        let dependency = |text: &str| text.parse::<Limber>().unwrap().dependency("plugins/sdk").unwrap();
        assert_eq!(dependency("https://example.org/limber"), "{ git = \"https://example.org/limber\" }");
        let expected = "{ git = \"https://example.org/limber\", tag = \"v1\" }";
        assert_eq!(dependency("https://example.org/limber#tag=v1"), expected);
    }
}
