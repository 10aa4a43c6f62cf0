//! What one entry of a list says: an image, and captions of it or a conversation about it, under the names that such lists
//! commonly have.

use super::conversation::{self, Turn, shown};
use super::{Item, captions, key, named};
use anyhow::{Context, Result, bail};
use limber_config::Data;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Names of the image, and those of the caption, the likeliest first.
pub const IMAGE: [&str; 7] = ["image", "image_path", "filepath", "file", "path", "file_name", "filename"];
/// Names of the caption.
pub const CAPTION: [&str; 4] = ["caption", "title", "text", "captions"];
/// Names of conversations.
const CONVERSATION: [&str; 2] = ["conversations", "messages"];

/// Where a list's images lie, and which names its entries have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The folder from which paths count; None for the list's own.
    pub folder: Option<PathBuf>,
    /// The name of the image, where the config says it.
    pub image: Option<String>,
    /// The name of the caption, where the config says it.
    pub caption: Option<String>,
}

impl Names {
    /// What a config's section `data`, whose folder is `base`, says of its list.
    pub fn of(data: &Data, base: &Path) -> Self {
        Self {
            folder: data.images.as_ref().map(|folder| base.join(folder)),
            image: data.image_column.clone(),
            caption: data.caption_column.clone(),
        }
    }

    /// The folder from which the paths in the list `path` count.
    pub fn folder(&self, path: &Path) -> PathBuf {
        self.folder.clone().unwrap_or_else(|| path.parent().map(Path::to_path_buf).unwrap_or_default())
    }

    /// What is expected of the names in a list, for messages.
    pub fn expected(&self) -> String {
        let of = |own: &Option<String>, usual: &[&str]| match own {
            Some(name) => format!("{name:?}"),
            None => usual.join(", "),
        };
        format!(
            "expected an image ({}) and a caption ({}); data.image_column and data.caption_column name others",
            of(&self.image, &IMAGE),
            of(&self.caption, &CAPTION)
        )
    }
}

/// An entry: an image's path or address, and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The path or address as the list spells it; None where it names none.
    pub image: Option<String>,
    /// Captions; none of them is empty.
    pub captions: Vec<String>,
    /// A conversation in place of captions.
    pub conversation: Vec<Turn>,
}

impl Record {
    /// The entry in a JSON object.
    ///
    /// # Errors
    /// What was found, and what is expected.
    pub fn read(value: &Value, names: &Names) -> Result<Self> {
        let Value::Object(map) = value else { bail!("found {}, expected a map of keys", shown(value)) };
        let get = |name: &str| map.get(name).filter(|value| !value.is_null());
        let image = match &names.image {
            Some(name) => get(name),
            None => IMAGE.iter().find_map(|name| get(name)),
        };
        let image = match image {
            None => None,
            Some(Value::String(path)) => Some(path.clone()),
            Some(other) => bail!("found the image {}, expected a path or an address", shown(other)),
        };
        let said = match &names.caption {
            Some(name) => get(name),
            None => CONVERSATION.iter().find_map(|name| get(name)),
        };
        if let Some(Value::Array(list)) = said.filter(|value| value.get(0).is_some_and(Value::is_object)) {
            return Ok(Self { image, captions: Vec::new(), conversation: conversation::read(list)? });
        }
        let all: Vec<&Value> = match &names.caption {
            Some(name) => get(name).into_iter().collect(),
            None => {
                let both: Vec<&Value> = ["captions", "caption"].iter().filter_map(|name| get(name)).collect();
                if both.is_empty() { CAPTION.iter().find_map(|name| get(name)).into_iter().collect() } else { both }
            }
        };
        if all.is_empty() {
            let found: Vec<String> = map.keys().map(|key| format!("{key:?}")).collect();
            bail!("found the keys {}, {}", found.join(", "), names.expected())
        }
        let mut said = Vec::new();
        all.into_iter().try_for_each(|value| texts(value, &mut said))?;
        Ok(Self { image, captions: captions(said)?, conversation: Vec::new() })
    }

    /// The item of an entry of a list in `folder`; `map` is what the entry was read from, for messages.
    ///
    /// # Errors
    /// An entry without an image.
    pub fn item(
        self,
        index: usize,
        name: String,
        folder: &Path,
        map: &Map<String, Value>,
        names: &Names,
    ) -> Result<Item> {
        let image = self.image.with_context(|| {
            let found: Vec<String> = map.keys().map(|key| format!("{key:?}")).collect();
            format!("found the keys {}, {}", found.join(", "), names.expected())
        })?;
        if image.is_empty() {
            bail!("the image's path is empty")
        }
        let Self { captions, conversation, .. } = self;
        Ok(Item { index, name, key: key(&image), image: named(folder, &image), captions, conversation })
    }
}

/// A text, or each of a list of them.
fn texts(value: &Value, all: &mut Vec<String>) -> Result<()> {
    match value {
        Value::String(text) => all.push(text.clone()),
        Value::Array(list) => list.iter().try_for_each(|value| texts(value, all))?,
        other => bail!("found the caption {}, expected a text or a list of texts", shown(other)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(value: Value, names: &Names) -> String {
        match Record::read(&value, names) {
            Ok(record) => format!("{} {}", record.image.unwrap_or_default(), record.captions.join("|")),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn entries_are_read_under_the_usual_names() {
        let usual = Names::default();
        for (value, expected) in [
            (json!({"image": "a.jpg", "caption": "c"}), "a.jpg c"),
            (json!({"image": "a.jpg", "captions": ["b", " ", "c"], "caption": "d"}), "a.jpg b|c|d"),
            (json!({"file_name": "a.jpg", "text": "c", "width": 3}), "a.jpg c"),
            (json!({"image": "a.jpg", "caption": null, "text": "t"}), "a.jpg t"),
            (json!({"image": 3, "text": "c"}), "found the image 3, expected a path or an address"),
            (
                json!({"image": "a", "caption": {"x": 1}}),
                "found the caption {\"x\":1}, expected a text or a list of texts",
            ),
            (json!(["a"]), "found [\"a\"], expected a map of keys"),
            (json!({"image": "a", "caption": ""}), "it has no caption that is not empty"),
        ] {
            assert_eq!(told(value, &usual), expected);
        }
        let message = told(json!({"img": "a.jpg", "txt": "c"}), &usual);
        assert!(message.starts_with("found the keys \"img\", \"txt\", expected an image (image, "), "{message}");
        let names = Names { image: Some("img".into()), caption: Some("txt".into()), ..Names::default() };
        assert_eq!(told(json!({"img": "a.jpg", "txt": "c", "caption": "d"}), &names), "a.jpg c");
    }
}
