//! Hugging Face's `imagefolder`: a folder of images with `metadata.jsonl`, `metadata.csv` or `metadata.parquet`, whose
//! `file_name` counts from the metadata's own folder.

use super::record::Names;
use super::{Dataset, parquet, records, table, walk};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// What metadata are called.
const METADATA: [&str; 3] = ["metadata.jsonl", "metadata.csv", "metadata.parquet"];

/// Whether a folder, or one below it, has metadata.
pub fn is_one(root: &Path) -> bool {
    find(root).is_ok_and(|found| !found.is_empty())
}

/// The folder's own metadata, or else those of the folders below it.
fn find(root: &Path) -> Result<Vec<PathBuf>> {
    if let Some(own) = METADATA.iter().map(|name| root.join(name)).find(|path| path.is_file()) {
        return Ok(vec![own]);
    }
    let is_metadata = |path: &Path| path.file_name().is_some_and(|name| METADATA.iter().any(|one| name == *one));
    let mut below = walk::files(root, &is_metadata)?;
    below.sort();
    Ok(below.into_iter().map(|path| root.join(path)).collect())
}

/// Opens the folder `root`, or the metadata of one.
///
/// # Errors
/// A folder without metadata, one whose splits have metadata each; otherwise as the metadata's own format.
pub fn open(root: &Path, names: Names) -> Result<Box<dyn Dataset>> {
    let found = if root.is_file() { vec![root.to_path_buf()] } else { find(root)? };
    let path = match found.as_slice() {
        [path] => path,
        [] => bail!(
            "{}: found no {} in this folder or below it, expected one, with a file_name and a text for each image (folders \
             named after classes have no captions)",
            root.display(),
            METADATA.join(", ")
        ),
        [first, second, ..] => bail!(
            "{}: found {} files of metadata, such as {} and {}; expected one: name the folder of a split, such as {}",
            root.display(),
            found.len(),
            first.display(),
            second.display(),
            first.parent().unwrap_or(root).display()
        ),
    };
    let set: Box<dyn Dataset> = match path.extension().and_then(|end| end.to_str()) {
        Some("csv") => Box::new(table::open(path, &names)?),
        Some("parquet") => Box::new(parquet::open(path, names)?),
        _ => Box::new(records::lines(path, names)?),
    };
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn metadata_are_found_in_the_folder_or_below() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        let message = |root: &Path| open(root, Names::default()).err().unwrap().to_string();
        assert!(message(root).contains("found no metadata.jsonl, metadata.csv, metadata.parquet"), "{}", message(root));
        for split in ["train", "test"] {
            assert_eq!(is_one(root), split == "test");
            fs::create_dir(root.join(split)).unwrap();
            fs::write(root.join(split).join("metadata.csv"), format!("file_name,text\n{split}.png,{split}\n")).unwrap();
        }
        assert!(message(root).contains("found 2 files of metadata"), "{}", message(root));
        let item = |root: &Path| open(root, Names::default()).unwrap().item(0).unwrap();
        let train = item(&root.join("train"));
        assert_eq!(train.image, super::super::Picture::File(root.join("train/train.png")));
        // A folder's own go before those below.
        fs::write(root.join("metadata.jsonl"), "{\"file_name\": \"train/train.png\", \"text\": \"own\"}\n").unwrap();
        assert_eq!((item(root).captions, item(root).image), (vec!["own".to_string()], train.image));
    }
}
