//! What the environment says of where the Hugging Face cache lies.
//!
//! The variables are those of `huggingface_hub`, in its order (`constants.py`).

use anyhow::{Context, Result};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Gives an environment variable that is set and not empty.
pub type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The cache's folder: `HF_HUB_CACHE`, else `HF_HOME/hub`, else `~/.cache/huggingface/hub`.
///
/// # Errors
/// An environment that has none of them and no home.
pub fn cache_folder() -> Result<PathBuf> {
    choose_cache(&variable)
}

/// A variable of this process.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn home(variable: Variables) -> Option<PathBuf> {
    variable("HOME").or_else(|| variable("USERPROFILE")).map(PathBuf::from)
}

/// A path of the environment, where `~` is the home folder and `$NAME` or `${NAME}` another variable; one that is not set
/// stands for itself.
pub fn path(variable: Variables, name: &str) -> Option<PathBuf> {
    let value = variable(name)?;
    let expanded = value.to_str().map(|text| PathBuf::from(with_variables(variable, text)));
    Some(with_home(variable, &expanded.unwrap_or_else(|| value.into())))
}

/// A path, with the home folder for `~` in front.
pub fn with_home(variable: Variables, path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), home(variable)) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_path_buf(),
    }
}

fn with_variables(variable: Variables, text: &str) -> String {
    let mut pieces = text.split('$');
    let mut out = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        let (name, rest) = match piece.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            Some(parts) => parts,
            None => piece.split_at(piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(piece.len())),
        };
        match variable(name).and_then(|value| value.into_string().ok()) {
            Some(value) => out.extend([&value, rest]),
            None => out.extend(["$", piece]),
        }
    }
    out
}

/// `HF_HOME`, where the cache and the token lie unless they are said to lie elsewhere.
pub fn hf_home(variable: Variables) -> Option<PathBuf> {
    path(variable, "HF_HOME")
        .or_else(|| path(variable, "XDG_CACHE_HOME").map(|p| p.join("huggingface")))
        .or_else(|| home(variable).map(|p| p.join(".cache/huggingface")))
}

/// As [`cache_folder`], of any environment.
///
/// # Errors
/// As [`cache_folder`].
pub fn choose_cache(variable: Variables) -> Result<PathBuf> {
    path(variable, "HF_HUB_CACHE")
        .or_else(|| path(variable, "HUGGINGFACE_HUB_CACHE"))
        .or_else(|| hf_home(variable).map(|p| p.join("hub")))
        .context("no home folder is set: set HF_HOME to where Hugging Face files are kept")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_names_the_cache() {
        for (set, expected) in [
            (vec![("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")], "/c"),
            (vec![("HF_HUB_CACHE", "~/c"), ("HOME", "/u")], "/u/c"),
            (vec![("HF_HOME", "$HOME/h"), ("HOME", "/u")], "/u/h/hub"),
            (
                vec![("HF_HUB_CACHE", "${DISK}/$USER_1-x/$NONE/${NONE}"), ("DISK", "/d"), ("USER_1", "u")],
                "/d/u-x/$NONE/${NONE}",
            ),
            (vec![("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")], "/old"),
            (vec![("HF_HOME", "/h"), ("HOME", "/u")], "/h/hub"),
            (vec![("XDG_CACHE_HOME", "/x"), ("HOME", "/u")], "/x/huggingface/hub"),
            (vec![("HOME", "/u")], "/u/.cache/huggingface/hub"),
        ] {
            assert_eq!(
                choose_cache(&|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into())).unwrap(),
                PathBuf::from(expected)
            );
        }
        assert!(choose_cache(&|_| None).is_err());
    }
}
