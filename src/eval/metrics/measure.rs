//! A score of every item, and how the items of a set make one score.

use super::bleu::{self, BleuCounts};
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
        self.paired(self, |i| (weight(i), 0))
    }

    /// The score of a set in which item i stands `weight(i).0` times as it is here and `weight(i).1` times as in
    /// `other`, which must be of the same kind and length.
    pub fn paired(&self, other: &Self, weight: impl Fn(usize) -> (u32, u32)) -> f64 {
        match (self, other) {
            (Measure::Mean(a), Measure::Mean(b)) => {
                let (mut sum, mut n) = (0.0, 0u64);
                for (i, (a, b)) in a.iter().zip(b).enumerate() {
                    let (here, there) = weight(i);
                    sum += f64::from(here) * a + f64::from(there) * b;
                    n += u64::from(here) + u64::from(there);
                }
                if n == 0 { 0.0 } else { sum / n as f64 }
            }
            (Measure::Bleu(order, a), Measure::Bleu(_, b)) => {
                let mut sum = BleuCounts::default();
                for (i, (a, b)) in a.iter().zip(b.iter()).enumerate() {
                    let (here, there) = weight(i);
                    sum.add(a, here);
                    sum.add(b, there);
                }
                bleu::corpus(&sum)[order - 1]
            }
            (Measure::Words(share, a), Measure::Words(_, b)) => {
                let mut sum = WordCounts::default();
                for (i, (a, b)) in a.iter().zip(b.iter()).enumerate() {
                    let (here, there) = weight(i);
                    sum.add(a, here);
                    sum.add(b, there);
                }
                share.of(&sum)
            }
            // Two runs are scored by the same code, so kinds agree name by name.
            _ => 0.0,
        }
    }

    /// The measure of the items at these places.
    pub fn select(&self, places: &[usize]) -> Self {
        match self {
            Measure::Mean(items) => Measure::Mean(places.iter().map(|i| items[*i]).collect()),
            Measure::Bleu(order, counts) => {
                Measure::Bleu(*order, Arc::new(places.iter().map(|i| counts[*i].clone()).collect()))
            }
            Measure::Words(share, counts) => {
                Measure::Words(*share, Arc::new(places.iter().map(|i| words::copied(&counts[*i])).collect()))
            }
        }
    }
}
