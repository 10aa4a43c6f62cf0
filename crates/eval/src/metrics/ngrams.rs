//! Words as numbers, and the n-grams of a caption with how often they stand in it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Longest n-gram.
pub(super) const ORDERS: usize = 4;

/// An n-gram: the numbers of its words, then zeros. Words are numbered from 1.
pub(super) type Gram = [u32; ORDERS];

/// A hash of n-grams that is quick; they come from no adversary who would gain by collisions.
#[derive(Debug, Clone, Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// A map from n-grams.
pub(super) type GramMap<T> = HashMap<Gram, T, BuildHasherDefault<Mix>>;

/// The order of an n-gram: its number of words.
pub(super) fn order(gram: &Gram) -> usize {
    gram.iter().take_while(|word| **word > 0).count()
}

/// The numbers of words.
#[derive(Debug, Default)]
pub(super) struct Vocabulary {
    numbers: HashMap<String, u32>,
}

impl Vocabulary {
    /// The words of a tokenised caption as numbers; a word is new where it has none yet.
    pub fn words(&mut self, caption: &str) -> Vec<u32> {
        words(caption)
            .map(|word| match self.numbers.get(word) {
                Some(number) => *number,
                None => {
                    let number = self.numbers.len() as u32 + 1;
                    self.numbers.insert(word.to_string(), number);
                    number
                }
            })
            .collect()
    }

    /// Words by their numbers, the first being 1.
    pub fn listed(&self) -> Vec<&str> {
        let mut listed = vec![""; self.numbers.len() + 1];
        for (word, number) in &self.numbers {
            listed[*number as usize] = word;
        }
        listed
    }
}

/// The words of a tokenised caption as Python's `split()` parts them: also at no-break spaces within a token.
pub(super) fn words(caption: &str) -> impl Iterator<Item = &str> {
    let blank = |c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c);
    caption.split(blank).filter(|word| !word.is_empty())
}

/// The n-grams of orders 1 to 4 with their counts, sorted.
pub(super) fn grams(words: &[u32]) -> Vec<(Gram, u32)> {
    let mut all = Vec::with_capacity(words.len() * ORDERS);
    for start in 0..words.len() {
        let mut gram = [0; ORDERS];
        for (length, word) in words[start..].iter().take(ORDERS).enumerate() {
            gram[length] = *word;
            all.push(gram);
        }
    }
    all.sort_unstable();
    let mut counted: Vec<(Gram, u32)> = Vec::with_capacity(all.len());
    for gram in all {
        match counted.last_mut() {
            Some((last, count)) if *last == gram => *count += 1,
            _ => counted.push((gram, 1)),
        }
    }
    counted
}

/// How often `gram` stands in sorted counts.
pub(super) fn count(counts: &[(Gram, u32)], gram: &Gram) -> u32 {
    counts.binary_search_by(|(other, _)| other.cmp(gram)).map_or(0, |at| counts[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grams_are_counted_and_found() {
        let mut vocabulary = Vocabulary::default();
        let words = vocabulary.words("a b\u{a0}a b");
        assert_eq!(words, [1, 2, 1, 2]);
        assert_eq!(vocabulary.listed(), ["", "a", "b"]);
        let counted = grams(&words);
        assert_eq!(counted.iter().map(|(_, n)| n).sum::<u32>(), 4 + 3 + 2 + 1);
        assert_eq!(count(&counted, &[1, 2, 0, 0]), 2);
        assert_eq!(count(&counted, &[2, 1, 0, 0]), 1);
        assert_eq!(count(&counted, &[2, 2, 0, 0]), 0);
        assert_eq!([[1, 0, 0, 0], [1, 2, 1, 2], [0; 4]].map(|gram| order(&gram)), [1, 4, 0]);
    }
}
