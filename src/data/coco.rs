//! COCO's captions JSON: `images` with `id` and `file_name`, `annotations` with `image_id` and `caption`.
//!
//! Images lie in a folder beside the annotations: `../<name of the split>/`, `../images/`, or the file's own folder.

use super::{Dataset, Item, captions};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct File {
    images: Vec<Image>,
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Image {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    caption: String,
}

/// Images with their captions, by id.
pub struct Coco {
    folder: PathBuf,
    items: Vec<(u64, String, Vec<String>)>,
}

/// Reads the annotations `path`.
///
/// # Errors
/// A file that is not COCO's, a caption of an image that is not listed.
pub fn open(path: &Path) -> Result<Coco> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: File = serde_json::from_str(&text)
        .with_context(|| format!("{}: not COCO's captions, which have images and annotations", path.display()))?;
    let mut items: BTreeMap<u64, (String, Vec<String>)> =
        file.images.into_iter().map(|image| (image.id, (image.file_name, Vec::new()))).collect();
    for Annotation { image_id, caption } in file.annotations {
        match items.get_mut(&image_id) {
            Some((_, captions)) => captions.push(caption),
            None => bail!("{}: a caption names image {image_id}, which is not listed", path.display()),
        }
    }
    // Images without any caption are a test split's; there is nothing to learn from them.
    let items: Vec<_> =
        items.into_iter().filter(|(_, (_, c))| !c.is_empty()).map(|(id, (name, c))| (id, name, c)).collect();
    let folder = images_folder(path, items.first().map(|(_, name, _)| name.as_str()).unwrap_or_default());
    Ok(Coco { folder, items })
}

/// The first of the usual folders that holds `example`; the file's own where none does.
fn images_folder(path: &Path, example: &str) -> PathBuf {
    let own = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let above = own.join("..");
    // captions_train2017.json goes with train2017.
    let split = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.rsplit('_').next()).unwrap_or_default();
    let candidates = [own.clone(), own.join(split), above.join(split), own.join("images"), above.join("images")];
    candidates.into_iter().find(|folder| folder.join(example).is_file()).unwrap_or(own)
}

impl Dataset for Coco {
    fn len(&self) -> usize {
        self.items.len()
    }

    fn name(&self, index: usize) -> String {
        format!("image {} ({})", self.items[index].0, self.items[index].1)
    }

    fn item(&self, index: usize) -> Result<Item> {
        let (_, file, texts) = &self.items[index];
        let captions = captions(texts.iter().cloned()).with_context(|| self.name(index))?;
        Ok(Item { name: self.name(index), image: self.folder.join(file), captions })
    }
}
