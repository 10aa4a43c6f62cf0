//! COCO's captions JSON: `images` with `id` and `file_name`, `annotations` with `image_id` and `caption`.
//!
//! Ids are numbers or texts. Images lie in a folder beside the annotations: `../<name of the split>/`, `../images/`, or the file's own folder.

use super::{Dataset, Item, captions, key, named, span};
use anyhow::{Context, Result, bail};
use limber_core::bounded::{self, DOCUMENT_LIMIT};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;
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
    #[serde(borrow)]
    id: Id<'a>,
    #[serde(borrow)]
    file_name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Annotation<'a> {
    #[serde(borrow)]
    image_id: Id<'a>,
    #[serde(borrow)]
    caption: Cow<'a, str>,
}

/// What an image is known by: a number, or a text where it is none of 64 bits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Id<'a> {
    Number(u64),
    Text(Cow<'a, str>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Ids)
    }
}

/// Reads ids.
struct Ids;

impl<'de> Visitor<'de> for Ids {
    type Value = Id<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a whole number or a text")
    }

    fn visit_u64<E>(self, id: u64) -> Result<Id<'de>, E> {
        Ok(Id::Number(id))
    }

    fn visit_i64<E>(self, id: i64) -> Result<Id<'de>, E> {
        Ok(u64::try_from(id).map_or_else(|_| Id::Text(id.to_string().into()), Id::Number))
    }

    fn visit_borrowed_str<E>(self, id: &'de str) -> Result<Id<'de>, E> {
        // The number in one list may be a text in the other.
        let number = id.parse::<u64>().ok().filter(|number| number.to_string() == id);
        Ok(number.map_or(Id::Text(id.into()), Id::Number))
    }

    fn visit_str<E: serde::de::Error>(self, id: &str) -> Result<Id<'de>, E> {
        Ok(Id::Text(id.to_string().into()))
    }
}

impl Id<'_> {
    fn owned(&self) -> Id<'static> {
        match self {
            Id::Number(id) => Id::Number(*id),
            Id::Text(id) => Id::Text(id.clone().into_owned().into()),
        }
    }
}

impl fmt::Display for Id<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Id::Number(id) => write!(f, "{id}"),
            Id::Text(id) => f.write_str(id),
        }
    }
}

/// Images with their captions, by id.
pub struct Coco {
    folder: PathBuf,
    /// Id, where its name lies in `text`, and its captions' numbers.
    items: Vec<(Id<'static>, Range<usize>, Range<usize>)>,
    /// Where each caption lies in `text`, those of an image side by side.
    captions: Vec<Range<usize>>,
    /// Names and captions, one behind the other: millions of small strings would cost more than they hold.
    text: String,
}

/// Reads the annotations `path`.
///
/// # Errors
/// A file that is not COCO's, a caption of an image that is not listed.
pub fn open(path: &Path, images: Option<&Path>) -> Result<Coco> {
    let context = || format!("cannot read {}", path.display());
    let bytes = bounded::bytes(span::open(path)?, DOCUMENT_LIMIT).with_context(context)?;
    let long;
    let mut file = match serde_json::from_slice::<File>(&bytes) {
        Ok(file) => file,
        Err(_) => {
            // A number of more than 64 bits would lose its last digits.
            long = quoted(&bytes);
            serde_json::from_slice::<File>(&long).with_context(|| {
                let format = "COCO's captions, {\"images\": [{\"id\", \"file_name\"}], \"annotations\": [{\"image_id\", \"caption\"}]}";
                format!("{}: expected {format}", path.display())
            })?
        }
    };
    // Stable, so that an image's captions keep their order.
    file.images.sort_by(|a, b| a.id.cmp(&b.id));
    file.annotations.sort_by(|a, b| a.image_id.cmp(&b.image_id));
    let (mut text, mut captions, mut items) = (String::new(), Vec::with_capacity(file.annotations.len()), Vec::new());
    let mut push = |part: &str| {
        text.push_str(part);
        text.len() - part.len()..text.len()
    };
    let unlisted = |id: &Id| format!("{}: a caption names image {id}, which is not listed", path.display());
    let mut notes = file.annotations.iter().peekable();
    for (at, image) in file.images.iter().enumerate() {
        if file.images.get(at + 1).is_some_and(|next| next.id == image.id) {
            // Listed again: the last one counts.
            continue;
        }
        let first = captions.len();
        while let Some(note) = notes.next_if(|note| note.image_id <= image.id) {
            if note.image_id < image.id {
                bail!(unlisted(&note.image_id))
            }
            captions.push(push(&note.caption));
        }
        // Images without any caption are a test split's; there is nothing to learn from them.
        if captions.len() > first {
            items.push((image.id.owned(), push(&image.file_name), first..captions.len()));
        }
    }
    if let Some(note) = notes.next() {
        bail!(unlisted(&note.image_id))
    }
    let example = items.first().map(|(_, name, _)| &text[name.clone()]).unwrap_or_default();
    let folder = images.map_or_else(|| images_folder(path, example), Path::to_path_buf);
    Ok(Coco { folder, items, captions, text })
}

/// The JSON document with whole numbers of more than 19 digits as texts.
fn quoted(bytes: &[u8]) -> Vec<u8> {
    const LONG: usize = 20;
    let mut out = Vec::with_capacity(bytes.len() + 1024);
    let (mut at, mut in_text) = (0, false);
    while at < bytes.len() {
        let byte = bytes[at];
        let is_number = !in_text && (byte.is_ascii_digit() || byte == b'-');
        let length = match is_number {
            true => bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b)).count(),
            false if in_text && byte == b'\\' => 2.min(bytes.len() - at),
            false => 1,
        };
        in_text ^= byte == b'"';
        let part = &bytes[at..at + length];
        let is_long = is_number && length >= LONG && part[1..].iter().all(u8::is_ascii_digit);
        let mark: &[u8] = if is_long { b"\"" } else { b"" };
        out.extend([mark, part, mark].concat());
        at += length;
    }
    out
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
        let (key, image) = (key(file), named(&self.folder, file));
        Ok(Item { index, name: self.name(index), key, image, captions, conversation: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Names and captions of the items, or what is wrong.
    fn told(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("captions.json");
        std::fs::write(&path, text).unwrap();
        match open(&path, None) {
            Ok(set) => (0..set.len())
                .map(|at| format!("{}: {}", set.name(at), set.item(at).unwrap().captions.join("|")))
                .collect(),
            Err(error) => vec![format!("{error:#}")],
        }
    }

    fn of_ids(images: [Value; 3], notes: [Value; 3]) -> Vec<String> {
        let images: Vec<Value> = images.iter().map(|id| json!({"id": id, "file_name": format!("{id}.jpg")})).collect();
        let notes: Vec<Value> = notes.iter().map(|id| json!({"image_id": id, "caption": format!("of {id}")})).collect();
        told(&json!({"images": images, "annotations": notes}).to_string())
    }

    #[test]
    fn ids_are_numbers_or_texts() {
        let numbers = of_ids([json!(10), json!(9), json!(u64::MAX)], [json!(9), json!(10), json!(u64::MAX)]);
        let max = u64::MAX;
        let largest = format!("image {max} ({max}.jpg): of {max}");
        assert_eq!(numbers, ["image 9 (9.jpg): of 9", "image 10 (10.jpg): of 10", &largest]);
        let mixed = of_ids([json!("10"), json!("a/b"), json!(-1)], [json!("a/b"), json!(-1), json!(10)]);
        assert_eq!(
            mixed,
            ["image 10 (\"10\".jpg): of 10", "image -1 (-1.jpg): of -1", "image a/b (\"a/b\".jpg): of \"a/b\""]
        );
    }

    #[test]
    fn numbers_of_many_digits_stay_apart() {
        let (a, b) = ("123456789012345678901234567890", "123456789012345678901234567891");
        let text = format!(
            r#"{{"images": [{{"id": {a}, "file_name": "a {b}\".jpg"}}, {{"id": {b}, "file_name": "b.jpg"}}],
            "annotations": [{{"image_id": {b}, "caption": "of b", "x": 1.00000000000000000000001}},
            {{"image_id": "{a}", "caption": "of a"}}]}}"#
        );
        assert_eq!(told(&text), [format!("image {a} (a {b}\".jpg): of a"), format!("image {b} (b.jpg): of b")]);
    }

    #[test]
    fn what_is_not_cocos_is_told() {
        let message = told("[{\"image\": \"a.jpg\"}]").remove(0);
        assert!(message.contains("captions.json: expected COCO's captions, {\"images\": [{\"id\""), "{message}");
        let message = told(r#"{"images": [], "annotations": [{"image_id": "x", "caption": "c"}]}"#).remove(0);
        assert!(message.ends_with("a caption names image x, which is not listed"), "{message}");
        let message = told(r#"{"images": [{"id": 1.5, "file_name": "a"}], "annotations": []}"#).remove(0);
        assert!(message.contains("floating point `1.5`, expected a whole number or a text"), "{message}");
    }
}
