//! How many positions each row of a cache holds and may hold: what every cache counts, whatever it keeps.

use super::CacheOptions;
use candle_core::Result;

/// The lengths of a cache's rows, its capacity and its room for rows. Every change is checked before it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceLengths {
    lengths: Vec<usize>,
    capacity: usize,
    slots: usize,
    context: usize,
}

impl SequenceLengths {
    /// Rows of length 0, of a decoder whose context length is `context`.
    ///
    /// # Errors
    /// A capacity above the context length.
    pub fn new(options: &CacheOptions, context: usize) -> Result<Self> {
        check_capacity(options.capacity, context)?;
        let slots = options.slots.max(options.batch);
        Ok(Self { lengths: vec![0; options.batch], capacity: options.capacity, slots, context })
    }

    /// Cached positions of each row.
    pub fn get(&self) -> &[usize] {
        &self.lengths
    }

    /// Number of rows B.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// The length of the longest row; 0 without rows.
    pub fn longest(&self) -> usize {
        self.lengths.iter().max().copied().unwrap_or(0)
    }

    /// Maximum number of positions of a row.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Rows that there is room for.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Row r now holds `new[r]` more positions.
    ///
    /// # Errors
    /// Another number of rows, or a row beyond the capacity.
    pub fn advance(&mut self, new: &[usize]) -> Result<()> {
        if new.len() != self.lengths.len() {
            candle_core::bail!("{} lengths for a cache of {} rows", new.len(), self.lengths.len())
        }
        let grown: Vec<usize> = self.lengths.iter().zip(new).map(|(length, new)| length.saturating_add(*new)).collect();
        if let Some(bad) = grown.iter().find(|length| **length > self.capacity) {
            candle_core::bail!("{bad} positions are more than the cache holds, which is {}", self.capacity)
        }
        self.lengths = grown;
        Ok(())
    }

    /// No row is longer than `length`.
    pub fn truncate(&mut self, length: usize) {
        for row in &mut self.lengths {
            *row = (*row).min(length);
        }
    }

    /// The lengths of the rows listed, which take the place of these.
    ///
    /// # Errors
    /// An index outside the batch.
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
        let lengths = self.of(rows)?;
        Ok(Self { slots: self.slots.max(rows.len()), lengths, ..*self })
    }

    /// The lengths of a new cache of the rows listed, with room for `slots` rows of `capacity` positions.
    ///
    /// # Errors
    /// An index outside the batch, fewer slots than rows, a capacity below a row's length or above the context length.
    pub fn copy(&self, rows: &[usize], slots: usize, capacity: usize) -> Result<Self> {
        let copy = Self { lengths: self.of(rows)?, capacity, slots, context: self.context };
        check_capacity(capacity, self.context)?;
        if slots < rows.len() || capacity < copy.longest() {
            candle_core::bail!(
                "{} rows of up to {} positions do not fit a cache of {slots} rows of {capacity}",
                rows.len(),
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

    fn of(&self, rows: &[usize]) -> Result<Vec<usize>> {
        let length = |row: &usize| match self.lengths.get(*row) {
            Some(length) => Ok(*length),
            None => candle_core::bail!("row {row} is not in 0..{} of this cache", self.lengths.len()),
        };
        rows.iter().map(length).collect()
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
