//! CIDEr and CIDEr-D (Vedantam et al. 2015): cosine of TF-IDF weighted n-grams, mean over orders 1 to 4 and references.
//!
//! What the COCO caption tools call CIDEr is CIDEr-D: a candidate's n-gram counts at most as often as the reference has
//! it, and a Gaussian (sigma 6) punishes another length. Plain CIDEr has neither.

use super::super::documents::whole;
use super::ngrams::{Gram, GramMap, ORDERS, Vocabulary, order};
use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const SIGMA: f64 = 6.0;

/// In how many documents (images, by any of their references) an n-gram stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frequencies {
    /// Number of documents.
    pub documents: u64,
    /// Documents with an n-gram, whose words are joined by single spaces.
    pub frequencies: BTreeMap<String, u64>,
}

impl Frequencies {
    /// Reads `{"documents": N, "frequencies": {"a red": n, ...}}`.
    ///
    /// # Errors
    /// A file that is not this.
    pub fn read(path: &Path) -> Result<Self> {
        let found: Self = serde_json::from_slice(&whole(path)?).with_context(|| {
            format!(
                "{}: not document frequencies {{\"documents\": N, \"frequencies\": {{\"a red\": n}}}}",
                path.display()
            )
        })?;
        ensure!(found.documents > 0, "{}: documents is 0, expected at least 1", path.display());
        Ok(found)
    }
}

/// Frequencies by the numbers of words.
pub(super) struct Idf {
    /// Logarithm of the number of documents.
    documents: f64,
    /// Logarithms of the frequencies.
    logarithms: GramMap<f64>,
}

impl Idf {
    /// Counts documents: the n-grams of each item's references.
    pub fn count(items: &[Vec<Vec<(Gram, u32)>>]) -> Self {
        let counted = items
            .par_iter()
            .fold(GramMap::default, |mut counts: GramMap<u32>, references| {
                let mut grams: Vec<Gram> = references.iter().flatten().map(|(gram, _)| *gram).collect();
                grams.sort_unstable();
                grams.dedup();
                for gram in grams {
                    *counts.entry(gram).or_default() += 1;
                }
                counts
            })
            .reduce(GramMap::default, |a, b| {
                let (mut large, small) = if a.len() < b.len() { (b, a) } else { (a, b) };
                for (gram, count) in small {
                    *large.entry(gram).or_default() += count;
                }
                large
            });
        let logarithms = counted.into_iter().map(|(gram, count)| (gram, f64::from(count).ln())).collect();
        Self { documents: (items.len() as f64).ln(), logarithms }
    }

    /// Those of a file, as far as their words have numbers.
    pub fn of_file(frequencies: &Frequencies, vocabulary: &mut Vocabulary) -> Self {
        let numbered = frequencies.frequencies.iter().filter(|(_, count)| **count > 0);
        let logarithms = numbered
            .filter_map(|(text, count)| {
                let words = vocabulary.words(text);
                let mut gram = [0; ORDERS];
                gram.get_mut(..words.len())?.copy_from_slice(&words);
                Some((gram, (*count as f64).ln()))
            })
            .collect();
        Self { documents: (frequencies.documents as f64).ln(), logarithms }
    }

    /// As a file holds them.
    pub fn to_frequencies(&self, vocabulary: &Vocabulary) -> Frequencies {
        let words = vocabulary.listed();
        let text = |gram: &Gram| {
            let words: Vec<&str> = gram[..order(gram)].iter().map(|word| words[*word as usize]).collect();
            words.join(" ")
        };
        let frequencies = self.logarithms.iter().map(|(gram, log)| (text(gram), log.exp().round() as u64)).collect();
        Frequencies { documents: self.documents.exp().round() as u64, frequencies }
    }

    fn vector(&self, counts: &[(Gram, u32)]) -> Vector {
        let mut norms = [0.0; ORDERS];
        let mut bigrams = 0;
        let weights = counts
            .iter()
            .map(|(gram, count)| {
                let known = self.logarithms.get(gram).copied().unwrap_or(0.0);
                let weight = f64::from(*count) * (self.documents - known);
                let n = order(gram);
                norms[n - 1] += weight * weight;
                if n == 2 {
                    bigrams += i64::from(*count);
                }
                (*gram, weight)
            })
            .collect();
        Vector { weights, norms: norms.map(f64::sqrt), bigrams }
    }

    /// CIDEr-D and plain CIDEr of a candidate.
    pub fn score(&self, candidate: &[(Gram, u32)], references: &[Vec<(Gram, u32)>]) -> [f64; 2] {
        let candidate = self.vector(candidate);
        let mut sums = [0.0; 2];
        for reference in references {
            let both = candidate.similarity(&self.vector(reference));
            sums[0] += both[0];
            sums[1] += both[1];
        }
        sums.map(|sum| if references.is_empty() { 0.0 } else { 10.0 * sum / references.len() as f64 })
    }
}

/// The TF-IDF weights of a caption, sorted by n-gram.
struct Vector {
    weights: Vec<(Gram, f64)>,
    norms: [f64; ORDERS],
    /// What the tools take for its length.
    bigrams: i64,
}

impl Vector {
    /// Mean over orders of the cosine with `reference`: clipped and with the length's penalty, and without either.
    fn similarity(&self, reference: &Self) -> [f64; 2] {
        let (mut clipped, mut plain) = ([0.0; ORDERS], [0.0; ORDERS]);
        let mut others = reference.weights.iter().peekable();
        for (gram, weight) in &self.weights {
            while others.next_if(|(other, _)| other < gram).is_some() {}
            if let Some((_, other)) = others.next_if(|(other, _)| other == gram) {
                let n = order(gram) - 1;
                clipped[n] += weight.min(*other) * other;
                plain[n] += weight * other;
            }
        }
        let difference = (self.bigrams - reference.bigrams) as f64;
        let penalty = (-difference * difference / (2.0 * SIGMA * SIGMA)).exp();
        let mut means = [0.0; 2];
        for n in 0..ORDERS {
            let norm = self.norms[n] * reference.norms[n];
            let norm = if norm == 0.0 { 1.0 } else { norm };
            means[0] += penalty * clipped[n] / norm / ORDERS as f64;
            means[1] += plain[n] / norm / ORDERS as f64;
        }
        means
    }
}
