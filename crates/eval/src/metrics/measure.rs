//! A score of every item, and how the items of a set make one score.

use super::bleu::{self, BleuCounts};
use super::ngrams::ORDERS;
use super::words::{self, Share, WordCounts};
use std::sync::Arc;

/// Scores by their names, in the order in which they are shown.
pub type Scores = Vec<(String, Measure)>;

/// One kind of score over all items.
#[derive(Debug, Clone)]
pub enum Measure {
    /// The mean of the items' scores.
    Mean(Vec<f64>),
    /// BLEU up to n-grams of this order: lengths and matches are summed before they are divided.
    Bleu(usize, Arc<Vec<BleuCounts>>),
    /// Precision, recall or F1 of a class of words, likewise.
    Words(Share, Arc<Vec<WordCounts>>),
}

impl Measure {
    /// Number of items.
    pub fn len(&self) -> usize {
        match self {
            Measure::Mean(items) => items.len(),
            Measure::Bleu(_, counts) => counts.len(),
            Measure::Words(_, counts) => counts.len(),
        }
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The score of each item alone.
    pub fn items(&self) -> Vec<f64> {
        match self {
            Measure::Mean(items) => items.clone(),
            Measure::Bleu(order, counts) => counts.iter().map(|counts| bleu::item(counts)[order - 1]).collect(),
            Measure::Words(share, counts) => counts.iter().map(|counts| share.of(counts)).collect(),
        }
    }

    /// The score of the set; 0 of none.
    pub fn value(&self) -> f64 {
        self.weighted(|_| 1)
    }

    /// The score of a set in which item i stands `weight(i)` times.
    pub fn weighted(&self, weight: impl Fn(usize) -> u32) -> f64 {
        weighted(&[self], weight)[0]
    }

    /// The score of a set of all items, of which item i is as in `other` where `swapped(i)`; both are of one kind and
    /// length.
    pub fn mixed(&self, other: &Self, swapped: impl Fn(usize) -> bool) -> f64 {
        match (self, other) {
            (Measure::Mean(a), Measure::Mean(b)) => {
                let sum: f64 = a.iter().zip(b).enumerate().map(|(i, (a, b))| if swapped(i) { b } else { a }).sum();
                sum / a.len().max(1) as f64
            }
            (Measure::Bleu(order, a), Measure::Bleu(_, b)) => {
                let mut sum = BleuCounts::default();
                a.iter().zip(b.iter()).enumerate().for_each(|(i, (a, b))| sum.add(if swapped(i) { b } else { a }, 1));
                bleu::corpus(&sum)[order - 1]
            }
            (Measure::Words(share, a), Measure::Words(_, b)) => {
                let mut sum = WordCounts::default();
                a.iter().zip(b.iter()).enumerate().for_each(|(i, (a, b))| sum.add(if swapped(i) { b } else { a }, 1));
                share.of(&sum)
            }
            // Two runs are scored by the same code, so kinds agree name by name.
            _ => 0.0,
        }
    }

    /// The measure of the items at these indices.
    pub fn select(&self, indices: &[usize]) -> Self {
        match self {
            Measure::Mean(items) => Measure::Mean(indices.iter().map(|i| items[*i]).collect()),
            Measure::Bleu(order, counts) => {
                Measure::Bleu(*order, Arc::new(indices.iter().map(|i| counts[*i].clone()).collect()))
            }
            Measure::Words(share, counts) => {
                Measure::Words(*share, Arc::new(indices.iter().map(|i| words::copied(&counts[*i])).collect()))
            }
        }
    }
}

/// The scores of several measures of one set, in which item i stands `weight(i)` times.
pub(super) fn weighted<'a>(measures: &[&'a Measure], weight: impl Fn(usize) -> u32) -> Vec<f64> {
    // The orders of BLEU share their counts, which are summed once.
    let mut summed: Option<(&'a Arc<Vec<BleuCounts>>, [f64; ORDERS])> = None;
    let score = |measure: &&'a Measure| match *measure {
        Measure::Mean(items) => {
            let (mut sum, mut n) = (0.0, 0u64);
            for (i, item) in items.iter().enumerate() {
                let times = weight(i);
                sum += f64::from(times) * item;
                n += u64::from(times);
            }
            if n == 0 { 0.0 } else { sum / n as f64 }
        }
        Measure::Bleu(order, counts) => {
            let all = match summed {
                Some((of, all)) if Arc::ptr_eq(of, counts) => all,
                _ => {
                    let mut sum = BleuCounts::default();
                    counts.iter().enumerate().for_each(|(i, counts)| sum.add(counts, weight(i)));
                    bleu::corpus(&sum)
                }
            };
            summed = Some((counts, all));
            all[order - 1]
        }
        Measure::Words(share, counts) => {
            let mut sum = WordCounts::default();
            counts.iter().enumerate().for_each(|(i, counts)| sum.add(counts, weight(i)));
            share.of(&sum)
        }
    };
    measures.iter().map(score).collect()
}
