//! A foreign decoder's cache, behind the same face as our own.

use crate::decoder::Built;
use crate::part::function;
use candle_core::{Error, Result};
use limber_core::{CacheStore, StoreSizes};
use limber_plugin_abi::lend::c_text;
use limber_plugin_abi::{LimberCache, LimberCacheOptions};
use std::ffi::CString;
use std::ptr::null_mut;
use std::sync::{Arc, PoisonError};

/// A handle of the plugin's.
pub(crate) struct Cache {
    built: Arc<Built>,
    raw: *mut LimberCache,
    /// A truncation that failed; nothing may be computed over what it left.
    failed: Option<String>,
}

// SAFETY: handles may be used from any thread, one at a time, as the ABI says; the instance's lock sees to that where
// the part is not concurrent, and a `Cache` that changes is borrowed alone.
unsafe impl Send for Cache {}
// SAFETY: as above.
unsafe impl Sync for Cache {}

/// Sizes, and the text that they point to.
fn options(sizes: StoreSizes) -> (LimberCacheOptions, CString) {
    let format = c_text(sizes.dtype.name());
    let options = LimberCacheOptions {
        batch: sizes.batch as u64,
        capacity: sizes.capacity as u64,
        slots: sizes.slots as u64,
        format: format.as_ptr(),
        ..LimberCacheOptions::empty()
    };
    (options, format)
}

fn indices(rows: &[usize]) -> Vec<u64> {
    rows.iter().map(|row| *row as u64).collect()
}

impl Cache {
    /// An empty one.
    pub(crate) fn new(built: &Arc<Built>, sizes: StoreSizes) -> Result<Self> {
        let (options, _format) = options(sizes);
        let mut raw = null_mut();
        let make = function!(built.table, cache_new);
        {
            let (instance, _own) = built.instance.enter();
            // SAFETY: all arguments live beyond the call.
            let made = built.part.call("make a cache", |error| unsafe { make(instance, &options, &mut raw, error) });
            made.map_err(Error::msg)?;
        }
        Self::of(built, raw)
    }

    fn of(built: &Arc<Built>, raw: *mut LimberCache) -> Result<Self> {
        if raw.is_null() {
            candle_core::bail!("{}: make a cache: it gives none", built.part.label())
        }
        built.caches.lock().unwrap_or_else(PoisonError::into_inner).insert(raw as usize);
        Ok(Self { built: built.clone(), raw, failed: None })
    }
}

impl CacheStore for Cache {
    fn handle(&self) -> Result<usize> {
        match &self.failed {
            Some(message) => Err(Error::msg(message.clone())),
            None => Ok(self.raw as usize),
        }
    }

    fn truncate(&mut self, length: usize) {
        let truncate = function!(self.built.table, cache_truncate);
        let (_, _own) = self.built.instance.enter();
        // SAFETY: the handle is not yet released.
        let done =
            self.built.part.call("truncate a cache", |error| unsafe { truncate(self.raw, length as u64, error) });
        self.failed = done.err().or(self.failed.take());
    }

    fn select_rows(&mut self, rows: &[usize]) -> Result<()> {
        let select = function!(self.built.table, cache_select);
        let rows = indices(rows);
        let (_, _own) = self.built.instance.enter();
        // SAFETY: the handle is not yet released, the rows live beyond the call.
        let done = self.built.part.call("select rows of a cache", |error| unsafe {
            select(self.raw, rows.as_ptr(), rows.len() as u64, error)
        });
        done.map_err(Error::msg)
    }

    fn copy_rows(&self, rows: &[usize], sizes: StoreSizes) -> Result<Box<dyn CacheStore>> {
        let copy = function!(self.built.table, cache_copy);
        let rows = indices(rows);
        let (options, _format) = options(sizes);
        let mut raw = null_mut();
        {
            let (_, _own) = self.built.instance.enter();
            // SAFETY: as above.
            let done = self.built.part.call("copy rows of a cache", |error| unsafe {
                copy(self.raw, rows.as_ptr(), rows.len() as u64, &options, &mut raw, error)
            });
            done.map_err(Error::msg)?;
        }
        let mut copy = Self::of(&self.built, raw)?;
        copy.failed = self.failed.clone();
        Ok(Box::new(copy))
    }

    fn push_rows(&mut self, other: usize) -> Result<()> {
        self.built.check_cache(other)?;
        let append = function!(self.built.table, cache_append);
        let (_, _own) = self.built.instance.enter();
        // SAFETY: both handles are this decoder's and not yet released.
        let done = self
            .built
            .part
            .call("append to a cache", |error| unsafe { append(self.raw, other as *const LimberCache, error) });
        done.map_err(Error::msg)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        self.built.caches.lock().unwrap_or_else(PoisonError::into_inner).remove(&(self.raw as usize));
        let release = function!(self.built.table, cache_release);
        let (_, _own) = self.built.instance.enter();
        // SAFETY: called once, and nothing uses the handle any more.
        unsafe { release(self.raw) };
    }
}
