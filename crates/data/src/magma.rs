//! The original's layout: `images/<sub>/<name>.jpg` and `image_data/<sub>/<name>.json` with
//! `{"image_path", "captions", "metadata"}`; where `image_path` is absent, the image of the same name.

use super::{Dataset, Item, Picture, captions, key, named, walk};
use anyhow::{Context, Result, bail};
use limber_core::bounded::{self, LINE_LIMIT};
use rayon::prelude::*;
use serde::Deserialize;
use std::fs::File;
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
    let is_description = |path: &Path| path.as_os_str().as_encoded_bytes().ends_with(b".json");
    let text = |path: PathBuf| match path.to_str() {
        // The same names on every system.
        Some(path) => Ok(path.replace(std::path::MAIN_SEPARATOR, "/")),
        None => bail!("{}: the name is not UTF-8", data.join(&path).display()),
    };
    let mut files = walk::files(&data, &is_description)?.into_iter().map(text).collect::<Result<Vec<_>>>()?;
    files.par_sort_unstable();
    Ok(Magma { root: root.to_path_buf(), files })
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
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = bounded::text(file, LINE_LIMIT).with_context(|| format!("cannot read {}", path.display()))?;
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
        Ok(Item { index, name: self.name(index), key, image, captions, conversation: Vec::new() })
    }
}
