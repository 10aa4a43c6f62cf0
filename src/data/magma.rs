//! The original's layout: `images/<sub>/<name>.jpg` and `image_data/<sub>/<name>.json` with
//! `{"image_path", "captions", "metadata"}`; where `image_path` is absent, the image of the same name.

use super::{Dataset, Item, captions};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Extensions that are tried where `image_path` is absent, the original's first.
const IMAGES: [&str; 8] = ["jpg", "png", "jpeg", "webp", "JPG", "JPEG", "PNG", "gif"];

/// The JSON files of a folder, sorted, so that every machine numbers them alike.
pub struct Magma {
    root: PathBuf,
    /// Paths under `image_data`.
    files: Vec<String>,
}

#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    image_path: Option<String>,
    #[serde(default)]
    captions: Vec<String>,
}

/// Lists the folder `root`.
///
/// # Errors
/// A folder without `image_data`.
pub fn open(root: &Path) -> Result<Magma> {
    let data = root.join("image_data");
    if !data.is_dir() {
        bail!(
            "{}: no folder image_data; format \"magma\" wants images/<sub>/* and image_data/<sub>/*.json",
            root.display()
        )
    }
    let mut files = Vec::new();
    list(&data, "", &mut files)?;
    files.sort_unstable();
    Ok(Magma { root: root.to_path_buf(), files })
}

fn list(folder: &Path, under: &str, files: &mut Vec<String>) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { bail!("{}: the name is not UTF-8", entry.path().display()) };
        let path = if under.is_empty() { name.to_string() } else { format!("{under}/{name}") };
        // A link may name a folder on another disk.
        let is_folder = entry.file_type()?.is_dir() || entry.file_type()?.is_symlink() && entry.path().is_dir();
        if is_folder {
            list(&entry.path(), &path, files)?;
        } else if name.ends_with(".json") {
            files.push(path);
        }
    }
    Ok(())
}

impl Dataset for Magma {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn name(&self, index: usize) -> String {
        format!("image_data/{}", self.files[index])
    }

    fn item(&self, index: usize) -> Result<Item> {
        let path = self.root.join("image_data").join(&self.files[index]);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let description: Description =
            serde_json::from_str(&text).with_context(|| format!("{} is no description", path.display()))?;
        let image = match &description.image_path {
            Some(image) => self.root.join(image),
            None => {
                let stem = self.root.join("images").join(self.files[index].trim_end_matches(".json"));
                let with = |ending: &str| PathBuf::from(format!("{}.{ending}", stem.display()));
                match IMAGES.iter().map(|ending| with(ending)).find(|path| path.is_file()) {
                    Some(image) => image,
                    None => bail!("{}: no image_path, and no image {}.*", path.display(), stem.display()),
                }
            }
        };
        let captions = captions(description.captions).with_context(|| path.display().to_string())?;
        Ok(Item { name: self.name(index), image, captions })
    }
}
