//! BLEU (Papineni et al. 2002) as the COCO caption tools compute it: orders 1 to 4 at once, the brevity penalty from the
//! reference whose length is closest, tiny constants against division by zero. Where no word is right, the tools give some
//! 1e-16, which is 0 here.

use super::ngrams::{Gram, ORDERS, order};

const SMALL: f64 = 1e-9;
const TINY: f64 = 1e-15;

/// What BLEU needs of a caption, or summed of several.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BleuCounts {
    /// Words of the candidate.
    length: u64,
    /// Words of the reference that is closest in length.
    reference: u64,
    /// N-grams of the candidate, by order.
    guessed: [u64; ORDERS],
    /// Those of them that a reference has, each at most as often as the reference that has it most.
    right: [u64; ORDERS],
}

impl BleuCounts {
    /// Counts of a candidate's n-grams against its references': `references` are (length, sorted counts).
    pub(super) fn new(length: usize, candidate: &[(Gram, u32)], references: &[(usize, Vec<(Gram, u32)>)]) -> Self {
        let mut counts = Self { length: length as u64, ..Self::default() };
        for (k, guessed) in counts.guessed.iter_mut().enumerate() {
            *guessed = length.saturating_sub(k) as u64;
        }
        for (gram, count) in candidate {
            let most = references.iter().map(|(_, grams)| super::ngrams::count(grams, gram)).max().unwrap_or(0);
            counts.right[order(gram) - 1] += u64::from(most.min(*count));
        }
        // Of two equally close lengths the shorter counts.
        let closest = references.iter().map(|(other, _)| (other.abs_diff(length), *other)).min();
        counts.reference = closest.map_or(0, |(_, length)| length as u64);
        counts
    }

    /// Adds `other` `times` times.
    pub(super) fn add(&mut self, other: &Self, times: u32) {
        let times = u64::from(times);
        self.length += times * other.length;
        self.reference += times * other.reference;
        for k in 0..ORDERS {
            self.guessed[k] += times * other.guessed[k];
            self.right[k] += times * other.right[k];
        }
    }
}

/// BLEU of orders 1 to 4 of a set, from its sums.
pub(super) fn corpus(counts: &BleuCounts) -> [f64; ORDERS] {
    let mut product = 1.0;
    let mut scores = [0.0; ORDERS];
    if counts.right[0] == 0 {
        return scores;
    }
    for (k, score) in scores.iter_mut().enumerate() {
        product *= (counts.right[k] as f64 + TINY) / (counts.guessed[k] as f64 + SMALL);
        *score = f64::powf(product, 1.0 / (k + 1) as f64);
    }
    let ratio = (counts.length as f64 + TINY) / (counts.reference as f64 + SMALL);
    if ratio < 1.0 {
        let penalty = (1.0 - 1.0 / ratio).exp();
        scores.iter_mut().for_each(|score| *score *= penalty);
    }
    scores
}

/// BLEU of one caption; the tools' formula is that of a set.
pub(super) fn item(counts: &BleuCounts) -> [f64; ORDERS] {
    corpus(counts)
}
