//! The functions of a decoder's cache.

use crate::call::{exported, numbers, set, text};
use crate::decoder::decoder;
use crate::export::{handle, release};
use anyhow::{Context, Result, bail};
use limber_core::{CacheOptions, CacheType, DecoderCache};
use limber_plugin_abi::*;

/// What is behind a handle of a cache, of whatever type the decoder keeps.
pub(crate) type Cache = Box<dyn DecoderCache>;

/// The part of a decoder's table that is about caches.
pub(crate) fn table() -> LimberDecoder {
    LimberDecoder {
        cache_new: Some(cache_new),
        cache_truncate: Some(cache_truncate),
        cache_select: Some(cache_select),
        cache_copy: Some(cache_copy),
        cache_append: Some(cache_append),
        cache_release: Some(release::<LimberCache, Cache>),
        ..LimberDecoder::empty()
    }
}

/// # Safety
/// `options` is null or as the ABI says.
unsafe fn sizes(options: *const LimberCacheOptions) -> Result<CacheOptions> {
    // SAFETY: by the caller's promise.
    let options = unsafe { read(options)? };
    let dtype = match options.format.is_null() {
        true => CacheType::F32,
        false => {
            // SAFETY: by the caller's promise.
            let name = unsafe { text(options.format, "format")? };
            // A hint: a type that is not known here is kept as computed.
            [CacheType::F16, CacheType::Bf16].into_iter().find(|t| t.name() == name).unwrap_or_default()
        }
    };
    let slots = usize::try_from(options.slots.max(options.batch))?;
    let sizes = CacheOptions::new(usize::try_from(options.batch)?, usize::try_from(options.capacity)?);
    Ok(sizes.with_type(dtype).with_slots(slots))
}

exported! {
    fn cache_new(
        instance: *mut LimberInstance, options: *const LimberCacheOptions, out: *mut *mut LimberCache,
    ) {
        set(out, handle::<_, Cache>(decoder(instance)?.new_cache(&sizes(options)?)?))
    }
}

/// # Safety
/// `cache` is null or what `cache_new` or `cache_copy` made.
unsafe fn cache<'a>(cache: *mut LimberCache) -> Result<&'a mut dyn DecoderCache> {
    // SAFETY: by the caller's promise.
    let cache = unsafe { cache.cast::<Cache>().as_mut() };
    Ok(cache.context("the cache is null")?.as_mut())
}

/// # Safety
/// As [`cache`].
unsafe fn cache_read<'a>(cache: *const LimberCache) -> Result<&'a dyn DecoderCache> {
    // SAFETY: by the caller's promise.
    let cache = unsafe { cache.cast::<Cache>().as_ref() };
    Ok(cache.context("the cache is null")?.as_ref())
}

exported! {
    fn cache_truncate(handle: *mut LimberCache, length: u64) {
        Ok(cache(handle)?.truncate(usize::try_from(length)?)?)
    }
}

exported! {
    fn cache_select(handle: *mut LimberCache, rows: *const u64, n_rows: u64) {
        let rows = numbers(rows, usize::try_from(n_rows)?)?.unwrap_or_default();
        Ok(cache(handle)?.select_sequences(&rows)?)
    }
}

exported! {
    fn cache_copy(
        from: *const LimberCache, rows: *const u64, n_rows: u64, options: *const LimberCacheOptions,
        out: *mut *mut LimberCache,
    ) {
        let rows = numbers(rows, usize::try_from(n_rows)?)?.unwrap_or_default();
        let CacheOptions { capacity, slots, .. } = sizes(options)?;
        set(out, handle::<_, Cache>(cache_read(from)?.copy_sequences(&rows, slots, capacity)?))
    }
}

exported! {
    fn cache_append(handle: *mut LimberCache, other: *const LimberCache) {
        if std::ptr::eq(handle, other) {
            bail!("a cache cannot be appended to itself")
        }
        Ok(cache(handle)?.push_sequences(cache_read(other)?)?)
    }
}
