//! The files below a folder, each once, however its links are laid: a link back to a folder above would list them over and
//! over.

use anyhow::{Context, Result};
use rayon::prelude::*;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What one folder holds, and the folders in it.
#[derive(Default)]
struct Found {
    files: Vec<PathBuf>,
    /// Folders that links name: the link's path, and the folder's own.
    links: Vec<(PathBuf, PathBuf)>,
    /// The folders that were listed, by their own paths.
    listed: Vec<PathBuf>,
}

/// The paths below `root`, counted from there, of files whose names `is_wanted` takes, in no order.
///
/// Links to folders are followed, for a folder may lie on another disk; a folder is listed once, under its own path where
/// that is below `root`, else under the first link to it by name.
///
/// # Errors
/// A folder that cannot be listed.
pub fn files(root: &Path, is_wanted: &(dyn Fn(&Path) -> bool + Sync)) -> Result<Vec<PathBuf>> {
    let temp = || format!("cannot list {}", root.display());
    let own = std::fs::canonicalize(root).with_context(temp)?;
    let mut seen: HashSet<PathBuf> = HashSet::new();
    let mut all = Found::default();
    let mut open = vec![(PathBuf::new(), own)];
    while !open.is_empty() {
        for (below, own) in open {
            if seen.contains(&own) {
                continue;
            }
            let found = list(root, &below, &own, is_wanted, &seen)?;
            seen.extend(found.listed);
            all.files.extend(found.files);
            all.links.extend(found.links);
        }
        // Only now are all folders known that have a path of their own.
        open = std::mem::take(&mut all.links);
        open.sort();
    }
    Ok(all.files)
}

/// The folder at `below` and those in it, side by side, without those that were `seen`; `own` is its path without links.
fn list(
    root: &Path,
    below: &Path,
    own: &Path,
    is_wanted: &(dyn Fn(&Path) -> bool + Sync),
    seen: &HashSet<PathBuf>,
) -> Result<Found> {
    let folder = root.join(below);
    let temp = || format!("cannot list {}", folder.display());
    let mut found = Found { listed: vec![own.to_path_buf()], ..Found::default() };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(temp)? {
        let entry = entry.with_context(temp)?;
        let (name, kind) = (entry.file_name(), entry.file_type().with_context(temp)?);
        let path = below.join(&name);
        if kind.is_dir() {
            let own = own.join(&name);
            if !seen.contains(&own) {
                folders.push((path, own));
            }
        } else if kind.is_symlink() && entry.path().is_dir() {
            let own = std::fs::canonicalize(entry.path()).with_context(temp)?;
            found.links.push((path, own));
        } else if is_wanted(&path) {
            found.files.push(path);
        }
    }
    let inside = folders.par_iter().map(|(path, own)| list(root, path, own, is_wanted, seen));
    for inside in inside.collect::<Result<Vec<_>>>()? {
        found.files.extend(inside.files);
        found.links.extend(inside.links);
        found.listed.extend(inside.listed);
    }
    Ok(found)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};
    use std::os::unix::fs::symlink;

    fn names(root: &Path) -> Vec<String> {
        let found =
            files(root, &|path| path.extension().is_some_and(|e| e == "x")).expect("a folder that can be walked");
        let mut names: Vec<String> = found.iter().map(|path| path.to_str().expect("UTF-8").to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn every_file_is_listed_once_whatever_links_there_are() {
        let temp = tempfile::tempdir().unwrap();
        let (root, elsewhere) = (temp.path().join("root"), temp.path().join("elsewhere"));
        for folder in ["a/b", "c"] {
            create_dir_all(root.join(folder)).unwrap();
        }
        create_dir_all(elsewhere.join("deep")).unwrap();
        for file in ["1.x", "a/2.x", "a/b/3.x", "c/4.x", "a/5.y"] {
            write(root.join(file), "").unwrap();
        }
        write(elsewhere.join("6.x"), "").unwrap();
        write(elsewhere.join("deep/7.x"), "").unwrap();
        let all = ["1.x", "a/2.x", "a/b/3.x", "c/4.x"];
        assert_eq!(names(&root), all);
        // To itself, twice, which has no end; to a folder above, beside and below; round in a circle; to nothing.
        for (link, to) in [
            ("self", "."),
            ("again", "."),
            ("a/up", ".."),
            ("a/b/top", "../.."),
            ("A", "c"),
            ("d", "a/b"),
            ("round", "round"),
            ("gone", "nowhere"),
        ] {
            symlink(to, root.join(link)).unwrap();
        }
        assert_eq!(names(&root), all);
        // Elsewhere, by two links and by one into it, and a way back from there.
        symlink(&elsewhere, root.join("n")).unwrap();
        symlink(&elsewhere, root.join("m")).unwrap();
        symlink(elsewhere.join("deep"), root.join("o")).unwrap();
        symlink(&root, elsewhere.join("back")).unwrap();
        assert_eq!(names(&root), [&all[..], &["m/6.x", "m/deep/7.x"]].concat());
        // The root may be a link itself.
        symlink(&root, temp.path().join("link")).unwrap();
        assert_eq!(names(&temp.path().join("link")).len(), 6);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let message = files(Path::new("no/such"), &|_| true).unwrap_err().to_string();
        assert_eq!(message, "cannot list no/such");
    }
}
