//! What stands behind a [`KvCache`](crate::KvCache) where a decoder keeps something else than our keys and values: a handle of a
//! foreign library, a recurrent state.

use crate::cache::CacheType;
use candle_core::Result;
use std::sync::Arc;

/// What a decoder of another library keeps in place of our keys and values. Lengths are the [`KvCache`](crate::KvCache)'s to count.
pub trait CacheStore: Send + Sync {
    /// The library's own handle, for its decoder.
    ///
    /// # Errors
    /// What failed before and could not be reported then.
    fn handle(&self) -> Result<usize>;

    /// As [`truncate`](crate::KvCache::truncate); what fails is reported by the next forward run.
    fn truncate(&mut self, length: usize);

    /// As [`select_rows`](crate::KvCache::select_rows), in whatever order.
    ///
    /// # Errors
    /// What the library reports.
    fn select_rows(&mut self, rows: &[usize]) -> Result<()>;

    /// As [`copy_rows`](crate::KvCache::copy_rows).
    ///
    /// # Errors
    /// What the library reports.
    fn copy_rows(&self, rows: &[usize], sizes: StoreSizes) -> Result<Box<dyn CacheStore>>;

    /// Appends the rows of the store whose handle is `other`.
    ///
    /// # Errors
    /// What the library reports.
    fn push_rows(&mut self, other: usize) -> Result<()>;
}

/// The sizes of a new [`CacheStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreSizes {
    /// Rows B.
    pub batch: usize,
    /// Most positions of a row.
    pub capacity: usize,
    /// Rows that it may grow to.
    pub slots: usize,
    /// The type to keep values in; a hint.
    pub dtype: CacheType,
}

/// Makes an empty [`CacheStore`].
pub type MakeStore = Arc<dyn Fn(StoreSizes) -> Result<Box<dyn CacheStore>> + Send + Sync>;
