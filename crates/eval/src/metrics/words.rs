//! Which words of the references a caption has, by class: nouns, modifiers, relations, or whatever lists are given.
//!
//! A word counts once a caption. Precision is the share of the caption's words of a class that some reference has,
//! recall the share of the references' words of the class that the caption has; both are summed over the set before
//! they are divided.

use super::super::documents::whole;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;

/// Lists of words by class.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WordClasses {
    /// Name and words of each class, in the order of the file.
    classes: Vec<(String, Vec<Group>)>,
}

/// Words that count as one, each a sequence of tokens; the first names the group.
type Group = Vec<Vec<String>>;

impl WordClasses {
    /// Reads `{"nouns": ["circle", ["sofa", "couch"]], ...}`: a list within a list holds words that count as one.
    ///
    /// # Errors
    /// A file that is not this.
    pub fn read(path: &Path) -> Result<Self> {
        let value: Value =
            serde_json::from_slice(&whole(path)?).with_context(|| format!("{}: not JSON", path.display()))?;
        Self::from_value(&value).with_context(|| format!("{}: no lists of words", path.display()))
    }

    /// The lists of a JSON value.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_value(value: &Value) -> Result<Self> {
        let form = "expected lists of words by class, {\"nouns\": [\"circle\", [\"sofa\", \"couch\"]]}";
        let map = value.as_object().with_context(|| format!("{value} is no map; {form}"))?;
        let mut classes = Vec::new();
        for (class, list) in map {
            let list = list.as_array().with_context(|| format!("class {class:?} is no list; {form}"))?;
            let mut groups = Vec::new();
            for entry in list {
                let words: Option<Vec<&str>> = match entry {
                    Value::String(word) => Some(vec![word]),
                    Value::Array(words) => words.iter().map(Value::as_str).collect(),
                    _ => None,
                };
                let words = words.with_context(|| format!("class {class:?} holds {entry}; {form}"))?;
                let group: Group = super::ptb::tokenise(&words)
                    .iter()
                    .map(|word| word.split(' ').filter(|w| !w.is_empty()).map(String::from).collect())
                    .collect();
                ensure!(
                    !group.is_empty() && group.iter().all(|word: &Vec<String>| !word.is_empty()),
                    "class {class:?} holds {entry}, which has no word; {form}"
                );
                groups.push(group);
            }
            classes.push((class.clone(), groups));
        }
        ensure!(!classes.is_empty(), "it has no class; {form}");
        Ok(Self { classes })
    }

    /// Classes and, of each, the words that are scored alone.
    pub fn names(&self) -> impl Iterator<Item = (&str, Vec<String>)> {
        self.classes.iter().map(|(class, groups)| (class.as_str(), groups.iter().map(|g| g[0].join(" ")).collect()))
    }

    /// Which groups of each class stand in a tokenised caption.
    fn found(&self, caption: &str) -> Vec<Vec<bool>> {
        let tokens: Vec<&str> = caption.split(' ').collect();
        let stands = |word: &Vec<String>| tokens.windows(word.len()).any(|window| window == word.as_slice());
        self.classes.iter().map(|(_, groups)| groups.iter().map(|group| group.iter().any(stands)).collect()).collect()
    }

    /// Counts of a caption against its references: of every class, and of every group of it.
    pub(super) fn count(&self, candidate: &str, references: &[String]) -> Vec<(WordCounts, Vec<WordCounts>)> {
        let said = self.found(candidate);
        let mut wanted: Vec<Vec<bool>> = said.iter().map(|class| vec![false; class.len()]).collect();
        for reference in references {
            for (class, found) in wanted.iter_mut().zip(self.found(reference)) {
                class.iter_mut().zip(found).for_each(|(any, one)| *any |= one);
            }
        }
        said.iter()
            .zip(&wanted)
            .map(|(said, wanted)| {
                let groups: Vec<WordCounts> = said.iter().zip(wanted).map(|(s, w)| WordCounts::of(*s, *w)).collect();
                let mut class = WordCounts::default();
                groups.iter().for_each(|group| class.add(group, 1));
                (class, groups)
            })
            .collect()
    }
}

/// Words of a class in a caption and its references, or summed of several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WordCounts {
    /// In both.
    right: u64,
    /// In the caption.
    said: u64,
    /// In a reference.
    wanted: u64,
}

impl WordCounts {
    fn of(said: bool, wanted: bool) -> Self {
        Self { right: u64::from(said && wanted), said: u64::from(said), wanted: u64::from(wanted) }
    }

    /// Adds `other` `times` times.
    pub(super) fn add(&mut self, other: &Self, times: u32) {
        let times = u64::from(times);
        self.right += times * other.right;
        self.said += times * other.said;
        self.wanted += times * other.wanted;
    }
}

/// Counts of one item, for a choice of items.
pub(super) fn copied(counts: &WordCounts) -> WordCounts {
    *counts
}

/// What of the counts is the score.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Right words among those said.
    Precision,
    /// Right words among those wanted.
    Recall,
    /// The harmonic mean of both.
    F1,
}

impl Share {
    /// All three with their names.
    pub(super) const ALL: [(Share, &'static str); 3] =
        [(Share::Precision, "precision"), (Share::Recall, "recall"), (Share::F1, "f1")];

    /// The score of counts; 0 where nothing is divided by nothing.
    pub(super) fn of(self, counts: &WordCounts) -> f64 {
        let below = match self {
            Share::Precision => counts.said,
            Share::Recall => counts.wanted,
            Share::F1 => counts.said + counts.wanted,
        };
        let above = if self == Share::F1 { 2 * counts.right } else { counts.right };
        if below == 0 { 0.0 } else { above as f64 / below as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_phrases_and_synonyms_are_counted_once() {
        let lists =
            json!({"nouns": ["circle", "square"], "modifiers": [["small", "tiny"], "red"], "relations": ["left of"]});
        let classes = WordClasses::from_value(&lists).unwrap();
        let references = ["a tiny red circle left of a square".to_string(), "a circle".to_string()];
        let counted = classes.count("a small small circle of a star", &references);
        let shares = |class: usize| Share::ALL.map(|(share, _)| share.of(&counted[class].0));
        assert_eq!(shares(0), [1.0, 0.5, 2.0 / 3.0]);
        assert_eq!(shares(1), [1.0, 0.5, 2.0 / 3.0]);
        assert_eq!(shares(2), [0.0, 0.0, 0.0]);
        assert_eq!(counted[2].0, WordCounts { right: 0, said: 0, wanted: 1 });
        let names: Vec<_> = classes.names().collect();
        assert_eq!(names[1], ("modifiers", vec!["small".to_string(), "red".to_string()]));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let check = |value: Value, expected: &str| {
            let message = format!("{:#}", WordClasses::from_value(&value).unwrap_err());
            assert!(message.contains(expected), "{message}");
        };
        check(json!([]), "[] is no map; expected lists of words by class");
        check(json!({}), "it has no class");
        check(json!({"nouns": "circle"}), "class \"nouns\" is no list");
        check(json!({"nouns": [3]}), "class \"nouns\" holds 3");
        check(json!({"nouns": ["!"]}), "class \"nouns\" holds \"!\", which has no word");
    }
}
