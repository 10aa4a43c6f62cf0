//! COCO's captions JSON: `images` with `id` and `file_name`, `annotations` with `image_id` and `caption`.
//!
//! Images lie in a folder beside the annotations: `../<name of the split>/`, `../images/`, or the file's own folder.

use super::{Dataset, Item, captions, key, named, span};
use anyhow::{Context, Result, bail};
use limber_core::bounded::{self, DOCUMENT_LIMIT};
use serde::Deserialize;
use std::borrow::Cow;
use std::ops::Range;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    images: Vec<Image<'a>>,
    #[serde(borrow)]
    annotations: Vec<Annotation<'a>>,
}

#[derive(Deserialize)]
struct Image<'a> {
    id: u64,
    #[serde(borrow)]
    file_name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Annotation<'a> {
    image_id: u64,
    #[serde(borrow)]
    caption: Cow<'a, str>,
}

/// Images with their captions, by id.
pub struct Coco {
    folder: PathBuf,
    /// Id, where its name lies in `text`, and its captions' numbers.
    items: Vec<(u64, Range<usize>, Range<usize>)>,
    /// Where each caption lies in `text`, those of an image side by side.
    captions: Vec<Range<usize>>,
    /// Names and captions, one behind the other: millions of small strings would cost more than they hold.
    text: String,
}

/// Reads the annotations `path`.
///
/// # Errors
/// A file that is not COCO's, a caption of an image that is not listed.
pub fn open(path: &Path) -> Result<Coco> {
    let context = || format!("cannot read {}", path.display());
    let bytes = bounded::bytes(span::open(path)?, DOCUMENT_LIMIT).with_context(context)?;
    let mut file: File = serde_json::from_slice(&bytes)
        .with_context(|| format!("{}: not COCO's captions, which have images and annotations", path.display()))?;
    // Stable, so that an image's captions keep their order.
    file.images.sort_by_key(|image| image.id);
    file.annotations.sort_by_key(|note| note.image_id);
    let (mut text, mut captions, mut items) = (String::new(), Vec::with_capacity(file.annotations.len()), Vec::new());
    let mut push = |part: &str| {
        text.push_str(part);
        text.len() - part.len()..text.len()
    };
    let unlisted = |id: u64| format!("{}: a caption names image {id}, which is not listed", path.display());
    let mut notes = file.annotations.iter().peekable();
    for (at, image) in file.images.iter().enumerate() {
        if file.images.get(at + 1).is_some_and(|next| next.id == image.id) {
            // Listed again: the last one counts.
            continue;
        }
        let first = captions.len();
        while let Some(note) = notes.next_if(|note| note.image_id <= image.id) {
            if note.image_id < image.id {
                bail!(unlisted(note.image_id))
            }
            captions.push(push(&note.caption));
        }
        // Images without any caption are a test split's; there is nothing to learn from them.
        if captions.len() > first {
            items.push((image.id, push(&image.file_name), first..captions.len()));
        }
    }
    if let Some(note) = notes.next() {
        bail!(unlisted(note.image_id))
    }
    let example = items.first().map(|(_, name, _)| &text[name.clone()]).unwrap_or_default();
    Ok(Coco { folder: images_folder(path, example), items, captions, text })
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
        let (id, name, _) = &self.items[index];
        format!("image {id} ({})", &self.text[name.clone()])
    }

    fn item(&self, index: usize) -> Result<Item> {
        let (_, file, notes) = &self.items[index];
        let file = &self.text[file.clone()];
        let texts = self.captions[notes.clone()].iter().map(|span| self.text[span.clone()].to_string());
        let captions = captions(texts).with_context(|| self.name(index))?;
        Ok(Item { index, name: self.name(index), key: key(file), image: named(&self.folder, file), captions })
    }
}
