//! What a decoder remembers of the positions that it has seen, behind one trait: [`DecoderCache`].
//!
//! Generation admits and finishes sequences, shares prefixes and takes positions back without knowing what a decoder
//! keeps. The decoder chooses the type: [`KvCache`] holds keys and values; a recurrent model or another library has a
//! type of its own around [`SequenceLengths`].

mod kv;
mod lengths;
mod options;
#[cfg(test)]
mod tests;

pub use kv::KvCache;
pub use lengths::SequenceLengths;
pub use options::{CacheOptions, CacheType};

use candle_core::{Error, Result};
use std::any::{Any, type_name};

/// The state of a batch of sequences in a decoder, as [`Decoder::new_cache`](crate::Decoder::new_cache) makes it.
///
/// Sequences may differ in length, so a batch needs no padding in the middle. Each decoder
/// grows its own type in `forward`, where [`Run::cache_as`](crate::Run::cache_as) gives it back.
pub trait DecoderCache: Any + Send + Sync {
    /// How many positions each sequence holds and may hold.
    fn sequences(&self) -> &SequenceLengths;

    /// Cached positions of each sequence.
    fn lengths(&self) -> &[usize] {
        self.sequences().get()
    }

    /// Maximum number of positions of a sequence.
    fn capacity(&self) -> usize {
        self.sequences().capacity()
    }

    /// Drops the positions from `length` on in every sequence: a shared prefix is used again.
    ///
    /// # Errors
    /// Positions that cannot be taken back.
    fn truncate(&mut self, length: usize) -> Result<()>;

    /// Keeps the sequences listed, in that order; an index may stand twice. Sequences that have finished leave the batch so.
    ///
    /// # Errors
    /// An index outside the batch.
    fn select_sequences(&mut self, sequences: &[usize]) -> Result<()>;

    /// A new cache of the sequences listed, an index once or several times, with room for `slots` sequences of `capacity`
    /// positions: a shared prefix is computed once and given to many sequences.
    ///
    /// # Errors
    /// An index outside the batch, fewer slots than sequences, a capacity below a sequence's length or above the context length.
    fn copy_sequences(&self, sequences: &[usize], slots: usize, capacity: usize) -> Result<Box<dyn DecoderCache>>;

    /// Admits all sequences of `other` behind its own; the capacity becomes the larger of both.
    ///
    /// # Errors
    /// A cache of another decoder.
    fn push_sequences(&mut self, other: &dyn DecoderCache) -> Result<()>;

    /// The name of the type, for messages.
    fn type_name(&self) -> &'static str {
        type_name::<Self>()
    }
}

impl dyn DecoderCache {
    /// This cache as the type that its decoder made.
    ///
    /// # Errors
    /// A cache of another type.
    pub fn downcast_ref<C: DecoderCache>(&self) -> Result<&C> {
        let found = self.type_name();
        (self as &dyn Any).downcast_ref().ok_or_else(|| other_decoder::<C>(found))
    }

    /// As `downcast_ref`, to be changed.
    ///
    /// # Errors
    /// A cache of another type.
    pub fn downcast_mut<C: DecoderCache>(&mut self) -> Result<&mut C> {
        let found = self.type_name();
        (self as &mut dyn Any).downcast_mut().ok_or_else(|| other_decoder::<C>(found))
    }
}

fn other_decoder<C>(found: &str) -> Error {
    Error::msg(format!("the cache is that of another decoder: it is a {found}, expected a {}", type_name::<C>()))
}
