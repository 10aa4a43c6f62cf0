//! Data sets that are captioned or asked about: which image, which question, and what people said.
//!
//! | data | captions | questions |
//! |---|---|---|
//! | a world of `limber shapes` | the folder (`captions.json`) | the folder (`questions.json`, `annotations.json`) |
//! | COCO, NoCaps | `captions_val2014.json`, `nocaps_val_4500_captions.json` | |
//! | VQAv2 | | `v2_OpenEnded_mscoco_val2014_questions.json`, `v2_mscoco_val2014_annotations.json` beside it |
//!
//! Images lie beside the file, in a folder of the split's name, in `images/`, or where the caller says.

use super::documents::whole;
use super::files::{self, Captions, Id, References};
use super::metrics::vqa::Answers;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A caption of each image.
    Caption,
    /// An answer to each question.
    Vqa,
}

impl Task {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Task::Caption => "caption",
            Task::Vqa => "vqa",
        }
    }
}

/// One image, or one question about one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its id in the references.
    pub id: String,
    /// The image file, or a file of features.
    pub image: PathBuf,
    /// The question, for questions.
    pub question: Option<String>,
}

/// A data set.
#[derive(Debug, Clone)]
pub struct Set {
    /// What is asked.
    pub task: Task,
    /// The items in their order.
    pub items: Vec<Item>,
    /// What people said; absent where the data do not tell, as of a test split.
    pub references: Option<References>,
    /// The files that were read.
    pub files: Vec<PathBuf>,
}

impl Set {
    /// Opens `data`, a file or the folder of a world; `annotations` and `images` where they lie elsewhere.
    ///
    /// # Errors
    /// Files that are missing or of another form, images that are not found, no item.
    pub fn open(task: Task, data: &Path, annotations: Option<&Path>, images: Option<&Path>) -> Result<Self> {
        let set = match task {
            Task::Caption => captions(data, images)?,
            Task::Vqa => questions(data, annotations, images)?,
        };
        ensure!(!set.items.is_empty(), "{}: the data set holds no item", data.display());
        Ok(set)
    }

    /// What people said of item `index`; the first that a person said stands for all in an example.
    pub fn said(&self, index: usize) -> Option<&str> {
        let id = &self.items.get(index)?.id;
        match self.references.as_ref()? {
            References::Captions(all) => {
                let (_, item) = all.get(index).filter(|(other, _)| other == id)?;
                item.captions.first().map(String::as_str)
            }
            References::Answers(all) => {
                let (_, item) = all.get(index).filter(|(other, _)| other == id)?;
                Some(usual(&item.answers))
            }
        }
    }

    /// The set of the first `count` items.
    pub fn first(mut self, count: usize) -> Self {
        self.items.truncate(count);
        match &mut self.references {
            Some(References::Captions(all)) => all.truncate(count),
            Some(References::Answers(all)) => all.truncate(count),
            None => {}
        }
        self
    }
}

/// The answer that most people gave, of equally many the first.
fn usual(answers: &[String]) -> &str {
    let count = |answer: &String| answers.iter().filter(|other| *other == answer).count();
    let mut best = answers.first();
    for answer in answers {
        if best.is_some_and(|best| count(answer) > count(best)) {
            best = Some(answer);
        }
    }
    best.map_or("", String::as_str)
}

fn captions(data: &Path, images: Option<&Path>) -> Result<Set> {
    let path = if data.is_dir() { data.join("captions.json") } else { data.to_path_buf() };
    let References::Captions(all) = files::references(&path)? else {
        bail!("{}: these are answers, `limber eval vqa` takes them", path.display())
    };
    // Where the image files are not listed, ids are paths.
    let name = |(id, item): &(String, Captions)| item.file.clone().unwrap_or_else(|| id.clone());
    let folder = images_folder(&path, images, &all.first().map(&name).unwrap_or_default())?;
    let item = |one: &(String, Captions)| Item { id: one.0.clone(), image: folder.join(name(one)), question: None };
    let items = all.iter().map(item).collect();
    Ok(Set { task: Task::Caption, items, references: Some(References::Captions(all)), files: vec![path] })
}

#[derive(Deserialize)]
struct Questions {
    questions: Vec<Question>,
    #[serde(default)]
    data_subtype: Option<String>,
}

#[derive(Deserialize)]
struct Question {
    question_id: Id,
    image_id: Id,
    question: String,
    #[serde(default, alias = "file_name")]
    image: Option<String>,
}

#[derive(Deserialize)]
struct Listed {
    images: Vec<ListedImage>,
}

#[derive(Deserialize)]
struct ListedImage {
    id: Id,
    file_name: String,
}

fn questions(data: &Path, annotations: Option<&Path>, images: Option<&Path>) -> Result<Set> {
    let path = if data.is_dir() { data.join("questions.json") } else { data.to_path_buf() };
    let file: Questions = serde_json::from_slice(&whole(&path)?).with_context(|| {
        format!(
            "{}: not VQA questions, which have a list \"questions\" of question_id, image_id, question",
            path.display()
        )
    })?;
    let mut files = vec![path.clone()];
    // A list of images beside the questions says what their files are called; COCO's names follow from their numbers.
    let list = path.with_file_name("captions.json");
    let listed: HashMap<String, String> = match list.is_file() {
        true => {
            let found: Listed = serde_json::from_slice(&whole(&list)?)
                .with_context(|| format!("{}: no list \"images\"", list.display()))?;
            files.push(list);
            found.images.into_iter().map(|image| (image.id.0, image.file_name)).collect()
        }
        false => HashMap::new(),
    };
    let subtype = file.data_subtype.unwrap_or_default();
    let name = |question: &Question| -> Result<String> {
        let id = &question.image_id.0;
        if let Some(name) = question.image.as_ref().or(listed.get(id)) {
            return Ok(name.clone());
        }
        let number: u64 = id.parse().with_context(|| {
            format!(
                "{}: it is unknown which file image {id:?} is: no image, no captions.json beside it",
                path.display()
            )
        })?;
        Ok(format!("COCO_{subtype}_{number:012}.jpg"))
    };
    let example = file.questions.first().map(&name).transpose()?.unwrap_or_default();
    let folder = images_folder(&path, images, &example)?;
    let items: Vec<Item> = file
        .questions
        .iter()
        .map(|q| {
            Ok(Item { id: q.question_id.0.clone(), image: folder.join(name(q)?), question: Some(q.question.clone()) })
        })
        .collect::<Result<_>>()?;
    let beside = || {
        let name = path.file_name()?.to_str()?;
        let other = name.replace("OpenEnded_", "").replace("questions", "annotations");
        Some(path.with_file_name(&other)).filter(|other| *other != path && other.is_file())
    };
    let references = match annotations.map(Path::to_path_buf).or_else(beside) {
        None => None,
        Some(path) => {
            let References::Answers(all) = files::references(&path)? else {
                bail!("{}: these are captions, not answers", path.display())
            };
            files.push(path.clone());
            Some(References::Answers(in_order(&items, all).with_context(|| path.display().to_string())?))
        }
    };
    Ok(Set { task: Task::Vqa, items, references, files })
}

/// The answers in the order of their questions.
fn in_order(items: &[Item], all: Vec<(String, Answers)>) -> Result<Vec<(String, Answers)>> {
    let mut by_id: HashMap<String, Answers> = all.into_iter().collect();
    let take = |item: &Item| {
        let found = by_id.remove(&item.id).with_context(|| format!("question {:?} has no answers", item.id))?;
        Ok((item.id.clone(), found))
    };
    items.iter().map(take).collect()
}

/// The folder that holds `example`: the one that is given, or the first of the usual ones.
fn images_folder(path: &Path, given: Option<&Path>, example: &str) -> Result<PathBuf> {
    if let Some(given) = given {
        ensure!(given.join(example).is_file(), "{}: no image {example:?} in this folder", given.display());
        return Ok(given.to_path_buf());
    }
    let own = path.parent().map(Path::to_path_buf).unwrap_or_default();
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let mut candidates = vec![own.clone()];
    // captions_val2014.json and v2_OpenEnded_mscoco_val2014_questions.json go with val2014.
    for part in stem.split('_').filter(|part| !part.is_empty()) {
        candidates.extend([own.join(part), own.join("..").join(part)]);
    }
    candidates.extend([own.join("images"), own.join("../images")]);
    match candidates.iter().find(|folder| folder.join(example).is_file()) {
        Some(folder) => Ok(folder.clone()),
        None => {
            let tried: Vec<String> = candidates.iter().map(|folder| folder.display().to_string()).collect();
            bail!("{}: image {example:?} is in none of {}; --images names its folder", path.display(), tried.join(", "))
        }
    }
}
