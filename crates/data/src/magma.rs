//! The original's layout: `images/<sub>/<name>.jpg` and `image_data/<sub>/<name>.json` with
//! `{"image_path", "captions", "metadata"}`; where `image_path` is absent, the image of the same name.

use super::{Dataset, Item, Picture, captions, key, named};
use anyhow::{Context, Result, bail};
use rayon::prelude::*;
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
    let mut files = list(&data, "")?;
    files.par_sort_unstable();
    Ok(Magma { root: root.to_path_buf(), files })
}

/// The JSON files below a folder, `under` in front of each; subfolders are listed side by side.
fn list(folder: &Path, under: &str) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { bail!("{}: the name is not UTF-8", entry.path().display()) };
        let path = if under.is_empty() { name.to_string() } else { format!("{under}/{name}") };
        let kind = entry.file_type()?;
        // A link may name a folder on another disk.
        if kind.is_dir() || kind.is_symlink() && entry.path().is_dir() {
            folders.push((entry.path(), path));
        } else if name.ends_with(".json") {
            files.push(path);
        }
    }
    let below: Vec<Vec<String>> = folders.par_iter().map(|(path, under)| list(path, under)).collect::<Result<_>>()?;
    files.extend(below.into_iter().flatten());
    Ok(files)
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
        // A list of features has images/<sub>/<name>.jpg as <sub>/<name>.jpg.npy.
        let below = |path: &str| match path.strip_prefix("images/") {
            Some(below) => key(below),
            None => format!("@data/{}", key(path)),
        };
        let (image, key) = match &description.image_path {
            Some(image) => (named(&self.root, image), below(image.trim_start_matches("./"))),
            None => {
                let stem = self.files[index].trim_end_matches(".json");
                let path = |ending: &str| format!("images/{stem}.{ending}");
                let there = IMAGES.iter().map(|ending| path(ending)).find(|path| self.root.join(path).is_file());
                // Where there is none, reading it says so; features may have been computed before it went.
                let image = there.unwrap_or_else(|| path(IMAGES[0]));
                (Picture::File(self.root.join(&image)), below(&image))
            }
        };
        let captions = captions(description.captions).with_context(|| path.display().to_string())?;
        Ok(Item { index, name: self.name(index), key, image, captions })
    }
}
