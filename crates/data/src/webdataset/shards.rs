//! Which tar files a config's `data.path` names: one, a folder of them, a list in a file, brace ranges.

use super::super::walk;
use super::braces::expand;
use super::key;
use anyhow::{Context, Result, bail};
use limber_core::bounded::Lines;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Between two names, as webdataset has it.
const BETWEEN: &str = "::";
/// Most bytes of a line in a list of shards.
const NAME_LIMIT: u64 = 64 << 10;
/// Missing shards that a message names.
const NAMED: usize = 5;

/// The shards that `path` names, seen from `base`, in order.
///
/// # Errors
/// A name that cannot be expanded, a shard that is not there.
pub fn find(path: &str, base: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    // A file whose name has braces in it is that file.
    let parts: Vec<&str> = if base.join(path).exists() { vec![path] } else { path.split(BETWEEN).collect() };
    for part in parts {
        one(&base.join(part), &mut all)?;
    }
    let missing: Vec<&PathBuf> = all.iter().filter(|shard| !shard.is_file()).collect();
    if !missing.is_empty() {
        let named: Vec<String> = missing.iter().take(NAMED).map(|shard| shard.display().to_string()).collect();
        let more = if missing.len() > NAMED { format!(" and {} more", missing.len() - NAMED) } else { String::new() };
        bail!(
            "{path:?} names {} shards, of which {} are not there: {}{more}",
            all.len(),
            missing.len(),
            named.join(", ")
        )
    }
    Ok(all)
}

/// The shards of one name.
fn one(path: &Path, all: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_dir() {
        let before = all.len();
        folder(path, all)?;
        if all.len() == before {
            bail!("{}: no .tar file in this folder", path.display())
        }
        return Ok(());
    }
    if path.is_file() {
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        if matches!(ending.as_str(), "txt" | "list" | "lst") {
            let temp = || format!("cannot read the list of shards {}", path.display());
            let lines = Lines::new(BufReader::new(File::open(path).with_context(temp)?), NAME_LIMIT);
            let own = path.parent().map(Path::to_path_buf).unwrap_or_default();
            for line in lines {
                let (_, line) = line.with_context(temp)?;
                if !line.trim().is_empty() {
                    names(&own.join(line.trim()), all).with_context(temp)?;
                }
            }
            return Ok(());
        }
        all.push(path.to_path_buf());
        return Ok(());
    }
    names(path, all)
}

/// The names that a path with braces stands for.
fn names(path: &Path, all: &mut Vec<PathBuf>) -> Result<()> {
    let Some(text) = path.to_str() else { bail!("the path {path:?} is not UTF-8") };
    all.extend(expand(text)?.into_iter().map(PathBuf::from));
    Ok(())
}

/// The tar files of a folder and those below it, by name.
fn folder(path: &Path, all: &mut Vec<PathBuf>) -> Result<()> {
    let mut below = walk::files(path, &|file| file.extension().is_some_and(|e| e.eq_ignore_ascii_case("tar")))?;
    below.sort();
    all.extend(below.into_iter().map(|file| path.join(file)));
    Ok(())
}

/// What the features of each shard's samples are called by: its path below the folder of all, without its ending.
pub fn labels(files: &[PathBuf]) -> Vec<String> {
    let Some(first) = files.first() else { return Vec::new() };
    let mut above = first.parent().unwrap_or(Path::new("")).to_path_buf();
    while !files.iter().all(|file| file.starts_with(&above)) {
        if !above.pop() {
            break;
        }
    }
    let label = |file: &PathBuf| {
        let below = file.strip_prefix(&above).unwrap_or(file).with_extension("");
        key(&below.to_string_lossy())
    };
    files.iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_naming_shards() {
        let temp = tempfile::tempdir().unwrap();
        let base = temp.path();
        std::fs::create_dir(base.join("b")).unwrap();
        for name in ["s-0.tar", "s-1.tar", "b/t.tar", "s-0.json", "odd{1}.tar"] {
            std::fs::write(base.join(name), "").unwrap();
        }
        std::fs::write(base.join("list.txt"), "s-1.tar\n\n  b/t.tar\ns-{0..1}.tar\n").unwrap();
        for (path, expected) in [
            (".", "./b/t.tar ./odd{1}.tar ./s-0.tar ./s-1.tar"),
            ("s-{1..0}.tar", "s-1.tar s-0.tar"),
            ("b/t.tar::s-0.tar", "b/t.tar s-0.tar"),
            ("list.txt", "s-1.tar b/t.tar s-0.tar s-1.tar"),
            ("odd{1}.tar", "odd{1}.tar"),
        ] {
            let found = find(path, base).unwrap();
            let names: Vec<&str> = found.iter().map(|f| f.strip_prefix(base).unwrap().to_str().unwrap()).collect();
            let plain = |names: &str| names.replace("./", "");
            assert_eq!(plain(&names.join(" ")), plain(expected), "{path}");
        }
        for (path, part) in [
            ("s-{0..9}.tar", "names 10 shards, of which 8 are not there: "),
            ("s-{0..9}.tar", "s-6.tar and 3 more"),
            ("s-{0..9.tar", "'{' without its '}'"),
            ("nowhere.tar", "names 1 shards, of which 1 are not there: "),
        ] {
            let message = format!("{:#}", find(path, base).unwrap_err());
            assert!(message.contains(part), "{message}");
        }
        std::fs::create_dir(base.join("c")).unwrap();
        assert!(find("c", base).unwrap_err().to_string().ends_with("c: no .tar file in this folder"));
    }

    #[test]
    fn labels_tell_shards_apart() {
        let files = |names: &[&str]| labels(&names.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(files(&["/d/00.tar", "/d/01.tar"]), ["00", "01"]);
        assert_eq!(files(&["/d/a/00.tar", "/d/b/00.tar"]), ["a/00", "b/00"]);
        assert_eq!(files(&["d/a.x.tar"]), ["a.x"]);
    }
}
