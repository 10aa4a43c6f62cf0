//! The cache of a plugin's decoder: a handle of the library's, and the lengths of its sequences.

use super::Built;
use crate::component::function;
use candle_core::{Error, Result};
use limber_core::{CacheOptions, CacheType, DecoderCache, SequenceLengths};
use limber_plugin_abi::lend::c_text;
use limber_plugin_abi::{LimberCache, LimberCacheOptions, LimberSink, LimberStatus};
use std::ffi::CString;
use std::ptr::null_mut;
use std::sync::Arc;

/// What a plugin keeps of the positions that its decoder has seen.
pub(crate) struct PluginCache {
    built: Arc<Built>,
    raw: *mut LimberCache,
    dtype: CacheType,
    lengths: SequenceLengths,
    /// A change that failed; nothing may be computed over what it left.
    failed: Option<String>,
}

// SAFETY: handles may be used from any thread, one at a time, as the ABI says; the instance's lock sees to that where
// the component is not concurrent, and a cache that changes is borrowed alone.
unsafe impl Send for PluginCache {}
// SAFETY: as above.
unsafe impl Sync for PluginCache {}

/// The options as C has them, and the text that they point to.
fn options(lengths: &SequenceLengths, dtype: CacheType) -> (LimberCacheOptions, CString) {
    let format = c_text(dtype.name());
    let options = LimberCacheOptions {
        batch: lengths.batch() as u64,
        capacity: lengths.capacity() as u64,
        slots: lengths.slots() as u64,
        format: format.as_ptr(),
        ..LimberCacheOptions::empty()
    };
    (options, format)
}

fn indices(sequences: &[usize]) -> Vec<u64> {
    sequences.iter().map(|sequence| *sequence as u64).collect()
}

impl PluginCache {
    /// An empty cache of this decoder.
    pub(crate) fn new(built: &Arc<Built>, asked: &CacheOptions) -> Result<Self> {
        let lengths = SequenceLengths::new(asked, built.spec.context)?;
        let (options, _format) = options(&lengths, asked.dtype);
        let mut raw = null_mut();
        let make = function!(built.table, cache_new);
        {
            let (instance, _own) = built.instance.enter();
            // SAFETY: all arguments live beyond the call.
            let made =
                built.component.call("make a cache", |error| unsafe { make(instance, &options, &mut raw, error) });
            made.map_err(Error::msg)?;
        }
        Self::of(built, raw, asked.dtype, lengths)
    }

    fn of(built: &Arc<Built>, raw: *mut LimberCache, dtype: CacheType, lengths: SequenceLengths) -> Result<Self> {
        if raw.is_null() {
            candle_core::bail!("{}: make a cache: it gives none", built.component.label())
        }
        Ok(Self { built: built.clone(), raw, dtype, lengths, failed: None })
    }

    /// The plugin's handle, for calls of the decoder `built`.
    ///
    /// # Errors
    /// A cache of another decoder; a change that failed before.
    pub(crate) fn handle(&self, built: &Arc<Built>) -> Result<*mut LimberCache> {
        if !Arc::ptr_eq(&self.built, built) {
            let (found, expected) = (self.built.component.label(), built.component.label());
            candle_core::bail!(
                "the cache is that of another decoder: it is one of {found}, built apart from this {expected}"
            )
        }
        match &self.failed {
            Some(message) => Err(Error::msg(message.clone())),
            None => Ok(self.raw),
        }
    }

    /// Ends a run: sequence b now holds `new[b]` more positions.
    pub(crate) fn advance(&mut self, new: &[usize]) -> Result<()> {
        self.lengths.advance(new)
    }

    /// Calls a function that changes the cache. Where it fails, its state is unknown.
    fn change(&mut self, what: &str, function: impl FnOnce(*const LimberSink) -> LimberStatus) -> Result<()> {
        let (_, own) = self.built.instance.enter();
        let done = self.built.component.call(what, function);
        drop(own);
        done.map_err(|message| {
            self.failed.get_or_insert_with(|| message.clone());
            Error::msg(message)
        })
    }
}

impl DecoderCache for PluginCache {
    fn sequences(&self) -> &SequenceLengths {
        &self.lengths
    }

    fn truncate(&mut self, length: usize) -> Result<()> {
        let (truncate, raw) = (function!(self.built.table, cache_truncate), self.raw);
        // SAFETY: the handle is not yet released.
        self.change("truncate a cache", |error| unsafe { truncate(raw, length as u64, error) })?;
        self.lengths.truncate(length);
        Ok(())
    }

    fn select_sequences(&mut self, sequences: &[usize]) -> Result<()> {
        let new = self.lengths.select(sequences)?;
        let (select, raw, sequences) = (function!(self.built.table, cache_select), self.raw, indices(sequences));
        // SAFETY: the handle is not yet released, the sequences live beyond the call.
        self.change("select sequences of a cache", |error| unsafe {
            select(raw, sequences.as_ptr(), sequences.len() as u64, error)
        })?;
        self.lengths = new;
        Ok(())
    }

    fn copy_sequences(&self, sequences: &[usize], slots: usize, capacity: usize) -> Result<Box<dyn DecoderCache>> {
        let new = self.lengths.copy(sequences, slots, capacity)?;
        let (from, copy, sequences) =
            (self.handle(&self.built)?, function!(self.built.table, cache_copy), indices(sequences));
        let (options, _format) = options(&new, self.dtype);
        let mut raw = null_mut();
        {
            let (_, _own) = self.built.instance.enter();
            // SAFETY: all arguments live beyond the call, the handle is not yet released.
            let done = self.built.component.call("copy sequences of a cache", |error| unsafe {
                copy(from, sequences.as_ptr(), sequences.len() as u64, &options, &mut raw, error)
            });
            done.map_err(Error::msg)?;
        }
        Ok(Box::new(Self::of(&self.built, raw, self.dtype, new)?))
    }

    fn push_sequences(&mut self, other: &dyn DecoderCache) -> Result<()> {
        let other: &Self = other.downcast_ref()?;
        let (append, raw, from) = (function!(self.built.table, cache_append), self.raw, other.handle(&self.built)?);
        // SAFETY: both handles are this decoder's and not yet released, and the two are different caches.
        self.change("append to a cache", |error| unsafe { append(raw, from, error) })?;
        self.lengths = self.lengths.push(&other.lengths);
        Ok(())
    }
}

impl Drop for PluginCache {
    fn drop(&mut self) {
        let release = function!(self.built.table, cache_release);
        let (_, _own) = self.built.instance.enter();
        // SAFETY: called once, and nothing uses the handle any more.
        unsafe { release(self.raw) };
    }
}
