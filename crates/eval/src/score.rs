//! Predictions scored: the whole, each domain of NoCaps, each kind of question, with intervals, against another run.

use super::files::{Predictions, References, matched};
use super::metrics::statistics::{self, Comparison, Interval, Resampling};
use super::metrics::{Frequencies, Measure, Scores, WordClasses, caption_scores, tokenise, vqa};
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// How predictions are scored.
#[derive(Debug, Clone, Default)]
pub struct Scoring {
    /// Document frequencies for CIDEr; the references' where none are given.
    pub frequencies: Option<Frequencies>,
    /// Classes of words that are looked for in captions.
    pub words: Option<WordClasses>,
    /// How intervals and tests are drawn.
    pub resampling: Resampling,
    /// Scores the items that have a prediction; else every item must have one.
    pub subset: bool,
    /// Gives the references' document frequencies back.
    pub keep_frequencies: bool,
}

/// What came of it.
pub struct Scored {
    /// The ids of the scored items, in the references' order.
    pub ids: Vec<String>,
    /// The text of each.
    pub texts: Vec<String>,
    /// Scores of the whole.
    pub scores: Scores,
    /// What the items are by: `domain`, or `answer_type` and `question_type`; each with its groups.
    pub groups: Vec<(String, BTreeMap<String, Group>)>,
    /// Frequencies of the references' n-grams, where they are captions and were asked for.
    pub frequencies: Option<Frequencies>,
}

/// Items of one kind.
pub struct Group {
    /// Their indices among the scored items.
    pub indices: Vec<usize>,
    /// Their scores.
    pub scores: Scores,
}

/// Scores `predictions` (which messages call `name`) against `references`.
///
/// Each domain of NoCaps is scored as a set of its own, with its own document frequencies where none are given.
///
/// # Errors
/// Predictions that do not fit the references.
pub fn score(references: &References, predictions: Predictions, name: &str, scoring: &Scoring) -> Result<Scored> {
    match references {
        References::Captions(items) => {
            let ids: Vec<_> = items.iter().map(|(id, item)| (id.as_str(), item.file.as_deref())).collect();
            let found = matched(&ids, predictions, scoring.subset, name)?;
            let texts: Vec<String> = found.iter().map(|(_, text)| text.clone()).collect();
            let truth: Vec<Vec<String>> = found.iter().map(|(at, _)| items[*at].1.captions.clone()).collect();
            let tokens = tokenise(&texts, &truth);
            let (scores, frequencies) = caption_scores(&tokens, scoring.frequencies.as_ref(), scoring.words.as_ref());
            let domains = indices(found.iter().map(|(at, _)| items[*at].1.domain.clone()));
            let of_domain = |indices: Vec<usize>| {
                let part: Vec<_> = indices.iter().map(|index| tokens[*index].clone()).collect();
                let scores = caption_scores(&part, scoring.frequencies.as_ref(), scoring.words.as_ref()).0;
                Group { indices, scores }
            };
            let domains: BTreeMap<_, _> =
                domains.into_iter().map(|(domain, indices)| (domain, of_domain(indices))).collect();
            let groups = if domains.is_empty() { Vec::new() } else { vec![("domain".to_string(), domains)] };
            let ids = found.iter().map(|(at, _)| items[*at].0.clone()).collect();
            Ok(Scored { ids, texts, scores, groups, frequencies: scoring.keep_frequencies.then(frequencies) })
        }
        References::Answers(items) => {
            let ids: Vec<_> = items.iter().map(|(id, _)| (id.as_str(), None)).collect();
            let found = matched(&ids, predictions, scoring.subset, name)?;
            let scores = vqa::answer_scores(found.iter().map(|(at, text)| (text.as_str(), &items[*at].1)));
            let mut groups = Vec::new();
            for by in ["answer_type", "question_type"] {
                let kind = |at: usize| {
                    let item = &items[at].1;
                    if by == "answer_type" { item.answer_type.clone() } else { item.question_type.clone() }
                };
                let kinds = indices(found.iter().map(|(at, _)| kind(*at)));
                let select = |indices: Vec<usize>| {
                    let scores =
                        scores.iter().map(|(name, measure)| (name.clone(), measure.select(&indices))).collect();
                    Group { indices, scores }
                };
                if !kinds.is_empty() {
                    groups.push((
                        by.to_string(),
                        kinds.into_iter().map(|(kind, indices)| (kind, select(indices))).collect(),
                    ));
                }
            }
            let ids = found.iter().map(|(at, _)| items[*at].0.clone()).collect();
            let texts = found.into_iter().map(|(_, text)| text).collect();
            Ok(Scored { ids, texts, scores, groups, frequencies: None })
        }
    }
}

/// The indices of the items of each kind; empty where no item has one.
fn indices(kinds: impl Iterator<Item = Option<String>>) -> BTreeMap<String, Vec<usize>> {
    let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, kind) in kinds.enumerate() {
        if let Some(kind) = kind {
            found.entry(kind).or_default().push(index);
        }
    }
    found
}

impl Scored {
    /// Adds a score of the items, which becomes one of every group, too.
    pub fn push(&mut self, name: &str, measure: Measure) {
        for group in self.groups.iter_mut().flat_map(|(_, groups)| groups.values_mut()) {
            group.scores.push((name.to_string(), measure.select(&group.indices)));
        }
        self.scores.push((name.to_string(), measure));
    }

    /// The intervals of the whole's scores, in their order.
    pub fn intervals(&self, resampling: Resampling) -> Vec<Option<Interval>> {
        let measures: Vec<&Measure> = self.scores.iter().map(|(_, measure)| measure).collect();
        statistics::intervals(&measures, resampling)
    }

    /// This run against another over the same items, score by score.
    ///
    /// # Errors
    /// Runs that predict for different items.
    pub fn compare(&self, other: &Self, resampling: Resampling) -> Result<Vec<Comparison>> {
        if let Some(at) = (0..self.ids.len().max(other.ids.len())).find(|at| self.ids.get(*at) != other.ids.get(*at)) {
            let id = self.ids.get(at).or(other.ids.get(at)).map_or("", String::as_str);
            anyhow::bail!(
                "the two runs have {} and {} predictions and differ in item {id:?}; a paired test wants the same items",
                self.ids.len(),
                other.ids.len()
            )
        }
        let pairs: Vec<_> = self.scores.iter().zip(&other.scores).map(|((_, a), (_, b))| (a, b)).collect();
        Ok(statistics::compare(&pairs, resampling))
    }

    /// All scores as one JSON object: a number each, `items`, `intervals` (low and high), and groups under their names.
    pub fn to_value(&self, resampling: Resampling) -> Value {
        let mut map = values(&self.scores);
        map.insert("items".into(), json!(self.ids.len()));
        let intervals: Map<String, Value> = self
            .scores
            .iter()
            .zip(self.intervals(resampling))
            .filter_map(|((name, _), found)| Some((name.clone(), json!([found?.low, found?.high]))))
            .collect();
        if !intervals.is_empty() {
            map.insert("intervals".into(), Value::Object(intervals));
        }
        for (by, groups) in &self.groups {
            let mut all = Map::new();
            for (name, group) in groups {
                let mut map = values(&group.scores);
                map.insert("items".into(), json!(group.indices.len()));
                all.insert(name.clone(), Value::Object(map));
            }
            map.insert(by.clone(), Value::Object(all));
        }
        Value::Object(map)
    }

    /// One JSON object an item: its id, its text and its scores.
    pub fn items(&self) -> Vec<Value> {
        let columns: Vec<(&String, Vec<f64>)> =
            self.scores.iter().map(|(name, measure)| (name, measure.items())).collect();
        let item = |at: usize| {
            let mut map = Map::new();
            map.insert("id".into(), json!(self.ids[at]));
            map.insert("text".into(), json!(self.texts[at]));
            map.extend(columns.iter().map(|(name, items)| (name.to_string(), json!(items[at]))));
            Value::Object(map)
        };
        (0..self.ids.len()).map(item).collect()
    }
}

fn values(scores: &Scores) -> Map<String, Value> {
    scores.iter().map(|(name, measure)| (name.clone(), json!(measure.value()))).collect()
}
