//! Files of predictions and of references: COCO's and NoCaps's captions and results, VQA's annotations and results,
//! JSON lines.
//!
//! | file | form |
//! |---|---|
//! | captions | `{"images": [{"id", "file_name", "domain"}], "annotations": [{"image_id", "caption"}]}` |
//! | caption results | `[{"image_id", "caption"}]` |
//! | VQA annotations | `{"annotations": [{"question_id", "answers": [{"answer"}], "question_type", "answer_type"}]}` |
//! | VQA results | `[{"question_id", "answer"}]` |
//! | JSON lines, references | `{"id", "captions": [..]}` or `{"id", "answers": [..]}`, singular for one |
//! | JSON lines, predictions | `{"id", "text"}` |
//!
//! `image_id`, `question_id` and `image` stand for `id` in any of them, `caption`, `answer` and `prediction` for `text`.
//! Numbers and texts name the same item: 42 is "42".

use super::documents::{self, Document};
use super::metrics::vqa::Answers;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// An item's captions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captions {
    /// What people said.
    pub captions: Vec<String>,
    /// NoCaps's domain: `in-domain`, `near-domain` or `out-domain`.
    pub domain: Option<String>,
    /// The image's file, where the data says it.
    pub file: Option<String>,
}

/// What predictions are scored against, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub enum References {
    /// Captions by id.
    Captions(Vec<(String, Captions)>),
    /// Answers by id.
    Answers(Vec<(String, Answers)>),
}

/// Texts by id.
pub type Predictions = HashMap<String, String>;

/// An id as text.
#[derive(Deserialize, Debug, Clone, PartialEq, Eq)]
#[serde(try_from = "Value")]
pub(super) struct Id(pub String);

impl TryFrom<Value> for Id {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) => Ok(Self(number.to_string())),
            other => Err(format!("the id {other} is not allowed, it is a number or a text")),
        }
    }
}

/// One annotator's answer: `{"answer": text}`, or the text alone.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Said(String);

impl TryFrom<Value> for Said {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(Self(text)),
            Value::Object(map) => match map.get("answer") {
                Some(Value::String(text)) => Ok(Self(text.clone())),
                _ => Err("an annotator's answer lacks the text \"answer\"".into()),
            },
            other => Err(format!("the answer {other} is not allowed, it is {{\"answer\": text}} or a text")),
        }
    }
}

/// Everything that a line or an entry may hold; what else it holds is passed over.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    id: Option<Id>,
    image_id: Option<Id>,
    question_id: Option<Id>,
    image: Option<Value>,
    file_name: Option<String>,
    domain: Option<String>,
    caption: Option<String>,
    captions: Option<Vec<String>>,
    answer: Option<String>,
    answers: Option<Vec<Said>>,
    question_type: Option<String>,
    answer_type: Option<String>,
    text: Option<String>,
    prediction: Option<String>,
}

impl Entry {
    fn take_id(&mut self) -> Option<String> {
        let image = match self.image.take() {
            Some(Value::String(image)) => Some(Id(image)),
            _ => None,
        };
        // A question's own number comes before that of its image.
        let ids = [self.question_id.take(), self.id.take(), self.image_id.take(), image];
        ids.into_iter().flatten().next().map(|id| id.0)
    }
}

#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    images: Vec<Entry>,
    annotations: Vec<Entry>,
}

/// Reads references of either kind.
///
/// # Errors
/// A file of another form, an id twice where answers are listed, a caption of an image that is not listed, no item.
pub fn references(path: &Path) -> Result<References> {
    let context = || path.display().to_string();
    let file: Annotated = match documents::read(path)? {
        Document::Whole(text) => serde_json::from_slice(&text).with_context(|| {
            format!("{}: not captions or VQA annotations, which have a list \"annotations\"", path.display())
        })?,
        Document::Lines(annotations) => Annotated { images: Vec::new(), annotations },
        Document::List(_) => bail!(
            "{}: a list is a file of results; references are captions or VQA annotations with a list \"annotations\", or JSON lines",
            path.display()
        ),
    };
    let is_answers = file.annotations.iter().any(|entry| entry.answers.is_some() || entry.answer.is_some());
    let found = if is_answers { answers(file.annotations) } else { captions(file) }.with_context(context)?;
    let empty = match &found {
        References::Captions(items) => items.is_empty(),
        References::Answers(items) => items.is_empty(),
    };
    if empty {
        bail!("{}: it holds no item", path.display())
    }
    Ok(found)
}

fn captions(file: Annotated) -> Result<References> {
    let mut items: Vec<(String, Captions)> = Vec::new();
    let mut indices: HashMap<String, usize> = HashMap::new();
    let listed = !file.images.is_empty();
    for (at, mut image) in file.images.into_iter().enumerate() {
        let id = image.take_id().with_context(|| format!("image {at} has no id"))?;
        if indices.insert(id.clone(), items.len()).is_some() {
            bail!("image {id:?} is listed twice")
        }
        items.push((id, Captions { captions: Vec::new(), domain: image.domain, file: image.file_name }));
    }
    for (at, mut entry) in file.annotations.into_iter().enumerate() {
        // In COCO's files `id` is the caption's own number.
        let image = if listed {
            entry.image_id.take().map(|id| id.0)
        } else {
            entry.image_id.take().map(|id| id.0).or_else(|| entry.take_id())
        };
        let id = image.with_context(|| format!("caption {at} has no image_id"))?;
        let new = entry.captions.take().unwrap_or_default().into_iter().chain(entry.caption.take());
        match indices.get(&id) {
            Some(context) => items[*context].1.captions.extend(new),
            None if listed => bail!("a caption names image {id:?}, which is not listed"),
            None => {
                indices.insert(id.clone(), items.len());
                items.push((id, Captions { captions: new.collect(), domain: entry.domain, file: entry.file_name }));
            }
        }
    }
    // Images without any caption are a test split's.
    items.retain(|(_, item)| !item.captions.is_empty());
    Ok(References::Captions(items))
}

fn answers(entries: Vec<Entry>) -> Result<References> {
    let mut items = Vec::new();
    let mut seen = HashMap::new();
    for (at, mut entry) in entries.into_iter().enumerate() {
        let id = entry.take_id().with_context(|| format!("annotation {at} has no question_id"))?;
        if let Some(first) = seen.insert(id.clone(), at) {
            bail!("question {id:?} is listed twice, as annotation {first} and {at}")
        }
        let said: Vec<String> = match entry.answers {
            Some(answers) => answers.into_iter().map(|said| said.0).collect(),
            None => entry.answer.into_iter().collect(),
        };
        if said.is_empty() {
            bail!("question {id:?} has no answer")
        }
        items.push((id, Answers { answers: said, question_type: entry.question_type, answer_type: entry.answer_type }));
    }
    Ok(References::Answers(items))
}

/// Reads predictions.
///
/// # Errors
/// A file of another form, an entry without an id or a text, an id twice.
pub fn predictions(path: &Path) -> Result<Predictions> {
    let entries: Vec<Entry> = match documents::read(path)? {
        Document::List(text) => serde_json::from_slice(&text).with_context(|| {
            format!(
                "{}: not results, a list of {{\"image_id\", \"caption\"}} or {{\"question_id\", \"answer\"}}",
                path.display()
            )
        })?,
        Document::Lines(entries) => entries,
        Document::Whole(_) => bail!(
            "{}: a map is no file of predictions; expected a list of {{\"image_id\", \"caption\"}} or {{\"question_id\", \"answer\"}}, or JSON lines with \"id\" and \"text\"",
            path.display()
        ),
    };
    let mut found = Predictions::with_capacity(entries.len());
    for (at, mut entry) in entries.into_iter().enumerate() {
        let number = at + 1;
        let id = entry.take_id().with_context(|| format!("{}: prediction {number} has no id", path.display()))?;
        let said = [entry.text, entry.prediction, entry.caption, entry.answer].into_iter().flatten().next();
        let said = said.with_context(|| format!("{}: prediction {number} ({id:?}) has no text", path.display()))?;
        if found.insert(id.clone(), said).is_some() {
            bail!("{}: two predictions for {id:?}, the second is number {number}", path.display())
        }
    }
    Ok(found)
}

/// Predictions in the order of the references: index of the item and what was said of it.
///
/// Items are found by their ids; images also by the name of their file, where predictions name files.
///
/// # Errors
/// A prediction for an item that is not there; without `subset`, items without a prediction; none that match.
pub fn matched(
    ids: &[(&str, Option<&str>)],
    mut predictions: Predictions,
    subset: bool,
    name: &str,
) -> Result<Vec<(usize, String)>> {
    let mut found: BTreeMap<usize, String> = BTreeMap::new();
    for (context, (id, _)) in ids.iter().enumerate() {
        if let Some(text) = predictions.remove(*id) {
            found.insert(context, text);
        }
    }
    if !predictions.is_empty() {
        let mut files: HashMap<&str, usize> = HashMap::new();
        for (context, (id, file)) in ids.iter().enumerate() {
            files.insert(last_part(file.unwrap_or(id)), context);
        }
        let mut unknown = Vec::new();
        for (id, text) in predictions {
            match files.get(last_part(&id)) {
                Some(context) if !found.contains_key(context) => {
                    found.insert(*context, text);
                }
                Some(context) => bail!("{name}: two predictions for {:?}, one of them named {id:?}", ids[*context].0),
                None => unknown.push(id),
            }
        }
        unknown.sort();
        if let Some(first) = unknown.first() {
            bail!(
                "{name}: {} predictions are for items that the references do not have, the first is {first:?}",
                unknown.len()
            )
        }
    }
    let missing = ids.len() - found.len();
    if found.is_empty() {
        bail!("{name}: it holds no prediction")
    }
    if missing > 0 && !subset {
        let first = (0..ids.len()).find(|context| !found.contains_key(context)).unwrap_or_default();
        bail!(
            "{name}: {missing} of {} items have no prediction, the first is {:?}; --subset scores those that have one",
            ids.len(),
            ids[first].0
        )
    }
    Ok(found.into_iter().collect())
}

fn last_part(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}
