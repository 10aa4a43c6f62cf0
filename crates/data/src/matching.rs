//! Files that a pattern or a folder stands for.

use super::walk;
use anyhow::{Context, Result};
use glob::MatchOptions;
use std::path::{Path, PathBuf};

/// Endings of images, in lower case.
pub const IMAGE_ENDINGS: [&str; 8] = ["png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"];

/// The files that a pattern names (`*`, `?`, `[...]`, `**` for folders), sorted, without hidden ones; None where `text` is no
/// pattern.
///
/// # Errors
/// A pattern that cannot be read, a folder that cannot be listed.
pub fn matching(text: &str) -> Result<Option<Vec<PathBuf>>> {
    if !text.contains(['*', '?', '[']) || Path::new(text).exists() {
        return Ok(None);
    }
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    let found = glob::glob_with(text, options).with_context(|| format!("the pattern {text:?} cannot be read"))?;
    let mut files = found.collect::<Result<Vec<_>, _>>().with_context(|| format!("cannot list what {text:?} names"))?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(Some(files))
}

/// The files in `folder` and those below it that have one of `endings`, sorted; hidden ones are left out.
///
/// # Errors
/// A folder that cannot be listed.
pub fn images_below(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let is_wanted = |path: &Path| {
        let ending = path.extension().and_then(|end| end.to_str()).unwrap_or_default().to_ascii_lowercase();
        let is_hidden = path.iter().any(|part| part.as_encoded_bytes().starts_with(b"."));
        !is_hidden && endings.contains(&ending.as_str())
    };
    let mut files = walk::files(folder, &is_wanted)?;
    files.sort();
    Ok(files.into_iter().map(|path| folder.join(path)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn patterns_and_folders_name_files() {
        let temp = tempfile::tempdir().unwrap();
        for folder in ["a", ".b"] {
            fs::create_dir(temp.path().join(folder)).unwrap();
        }
        for file in ["2.png", "1.JPG", "a/3.jpeg", ".b/4.png", ".5.png", "6.txt", "x[1].png"] {
            fs::write(temp.path().join(file), "").unwrap();
        }
        let told = |files: Vec<PathBuf>| {
            let names = files.iter().map(|file| file.strip_prefix(temp.path()).unwrap().to_str().unwrap().to_string());
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(images_below(temp.path(), &IMAGE_ENDINGS).unwrap()), "1.JPG 2.png a/3.jpeg x[1].png");
        let found = |pattern: &str| matching(temp.path().join(pattern).to_str().unwrap()).unwrap().map(told);
        assert_eq!(found("*.png").unwrap(), "2.png x[1].png");
        assert_eq!(found("**/*.jp*").unwrap(), "a/3.jpeg");
        assert_eq!(found("[0-9].*").unwrap(), "1.JPG 2.png 6.txt");
        assert_eq!((found("2.png"), found("x[1].png"), found("*.none").unwrap().as_str()), (None, None, ""));
    }
}
