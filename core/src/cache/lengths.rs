//! How many positions each sequence of a cache holds and may hold: what every cache counts, whatever it keeps.

use super::CacheOptions;
use candle_core::Result;

/// The lengths of a cache's sequences, its capacity and its room for sequences. Every change is checked before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceLengths {
    lengths: Vec<usize>,
    capacity: usize,
    slots: usize,
    context: usize,
}

impl SequenceLengths {
    /// Sequences of length 0, of a decoder whose context length is `context`.
    ///
    /// # Errors
    /// A capacity above the context length.
    pub fn new(options: &CacheOptions, context: usize) -> Result<Self> {
        check_capacity(options.capacity, context)?;
        let slots = options.slots.max(options.batch);
        Ok(Self { lengths: vec![0; options.batch], capacity: options.capacity, slots, context })
    }

    /// Cached positions of each sequence.
    pub fn get(&self) -> &[usize] {
        &self.lengths
    }

    /// Number of sequences B.
    pub fn batch(&self) -> usize {
        self.lengths.len()
    }

    /// The length of the longest sequence; 0 without sequences.
    pub fn longest(&self) -> usize {
        self.lengths.iter().max().copied().unwrap_or(0)
    }

    /// Maximum number of positions of a sequence.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sequences that there is room for.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Sequence b now holds `new[b]` more positions.
    ///
    /// # Errors
    /// Another number of sequences, or a sequence beyond the capacity.
    pub fn advance(&mut self, new: &[usize]) -> Result<()> {
        if new.len() != self.lengths.len() {
            candle_core::bail!("{} lengths for a cache of {} sequences", new.len(), self.lengths.len())
        }
        let grown: Vec<usize> = self.lengths.iter().zip(new).map(|(length, new)| length.saturating_add(*new)).collect();
        if let Some(bad) = grown.iter().find(|length| **length > self.capacity) {
            candle_core::bail!("{bad} positions are more than the cache holds, which is {}", self.capacity)
        }
        self.lengths = grown;
        Ok(())
    }

    /// No sequence is longer than `length`.
    pub fn truncate(&mut self, length: usize) {
        for sequence in &mut self.lengths {
            *sequence = (*sequence).min(length);
        }
    }

    /// The lengths of the sequences listed, which take the place of these.
    ///
    /// # Errors
    /// An index outside the batch.
    pub fn select(&self, sequences: &[usize]) -> Result<Self> {
        let lengths = self.of(sequences)?;
        Ok(Self { slots: self.slots.max(sequences.len()), lengths, ..*self })
    }

    /// The lengths of a new cache of the sequences listed, with room for `slots` sequences of `capacity` positions.
    ///
    /// # Errors
    /// An index outside the batch, fewer slots than sequences, a capacity below a sequence's length or above the context length.
    pub fn copy(&self, sequences: &[usize], slots: usize, capacity: usize) -> Result<Self> {
        let copy = Self { lengths: self.of(sequences)?, capacity, slots, context: self.context };
        check_capacity(capacity, self.context)?;
        if slots < sequences.len() || capacity < copy.longest() {
            candle_core::bail!(
                "{} sequences of up to {} positions do not fit a cache of {slots} sequences of {capacity}",
                sequences.len(),
                copy.longest()
            )
        }
        Ok(copy)
    }

    /// These lengths with those of `other` behind them; capacity and room grow where they must.
    pub fn push(&self, other: &Self) -> Self {
        let lengths = [self.get(), other.get()].concat();
        let (slots, capacity) = (self.slots.max(lengths.len()), self.capacity.max(other.capacity));
        Self { lengths, capacity, slots, context: self.context }
    }

    fn of(&self, sequences: &[usize]) -> Result<Vec<usize>> {
        let length = |sequence: &usize| match self.lengths.get(*sequence) {
            Some(length) => Ok(*length),
            None => candle_core::bail!("sequence {sequence} is not in 0..{} of this cache", self.lengths.len()),
        };
        sequences.iter().map(length).collect()
    }
}

fn check_capacity(capacity: usize, context: usize) -> Result<()> {
    if capacity > context {
        candle_core::bail!(
            "a cache of {capacity} positions (prefix, text and new tokens together) is more than the decoder's context length, which allows {context}"
        )
    }
    Ok(())
}
