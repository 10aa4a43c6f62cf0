//! Keys and values of the positions already seen, preallocated, each row with its own length.
//!
//! Rows that end leave and new ones enter without a copy of those that stay.
//! A decoder that keeps something else than our keys and values has a [`CacheStore`] of its own behind the same face.

use crate::cache_store::{CacheStore, MakeStore, StoreSizes};
use crate::spec::DecoderSpec;
use candle_core::{DType, Result, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The type that keys and values are kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CacheType {
    /// 32-bit floats: as computed.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
}

impl CacheType {
    /// The name in configs.
    pub fn name(self) -> &'static str {
        match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::Bf16 => "bf16",
        }
    }

    fn dtype(self) -> DType {
        match self {
            CacheType::F32 => DType::F32,
            CacheType::F16 => DType::F16,
            CacheType::Bf16 => DType::BF16,
        }
    }
}

/// One layer's keys and values, each `[slots, H, capacity, head_dim]`; the first B slots are the rows.
#[derive(Debug, Clone)]
struct Layer {
    k: Tensor,
    v: Tensor,
}

/// A store in place of layers, made at the first run.
struct Foreign {
    make: MakeStore,
    store: Option<Box<dyn CacheStore>>,
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Foreign(begun: {})", self.store.is_some())
    }
}

/// A preallocated cache of B rows. Rows may differ in length, so a batch needs no padding in the middle.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Option<Layer>>,
    heads: usize,
    head_dim: usize,
    capacity: usize,
    context: usize,
    slots: usize,
    dtype: CacheType,
    lengths: Vec<usize>,
    foreign: Option<Foreign>,
}

impl KvCache {
    /// An empty cache for `batch` rows of at most `capacity` positions; memory is taken at the first append.
    ///
    /// # Errors
    /// A capacity above the decoder's context length.
    pub fn new(spec: &DecoderSpec, batch: usize, capacity: usize) -> Result<Self> {
        let cache = Self {
            layers: vec![None; spec.layers],
            heads: spec.kv_heads,
            head_dim: spec.head_dim,
            capacity,
            context: spec.context,
            slots: batch,
            dtype: CacheType::F32,
            lengths: vec![0; batch],
            foreign: None,
        };
        cache.check_capacity(capacity)?;
        Ok(cache)
    }

    /// As [`Self::new`], of a decoder that keeps what it has seen in stores of its own.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_store(spec: &DecoderSpec, batch: usize, capacity: usize, make: MakeStore) -> Result<Self> {
        let cache = Self::new(spec, batch, capacity)?;
        Ok(Self { foreign: Some(Foreign { make, store: None }), ..cache })
    }

    /// The store of a cache that was made with one; it is made now where there is none yet.
    ///
    /// # Errors
    /// A cache of our own keys and values; a store that cannot be made.
    pub fn store(&mut self) -> Result<&mut dyn CacheStore> {
        let sizes = self.store_sizes(self.lengths.len());
        let Some(foreign) = &mut self.foreign else {
            candle_core::bail!("this cache holds keys and values of another decoder")
        };
        let store = match foreign.store.take() {
            Some(store) => store,
            None => (foreign.make)(sizes)?,
        };
        Ok(foreign.store.insert(store).as_mut())
    }

    fn store_sizes(&self, batch: usize) -> StoreSizes {
        StoreSizes { batch, capacity: self.capacity, slots: self.slots.max(batch), dtype: self.dtype }
    }

    fn check_capacity(&self, capacity: usize) -> Result<()> {
        if capacity > self.context {
            candle_core::bail!(
                "a cache of {capacity} positions (prefix, text and new tokens together) is more than the decoder's context length, which allows {}",
                self.context
            )
        }
        Ok(())
    }

    /// The same empty cache, keeping keys and values in `dtype`.
    pub fn with_type(mut self, dtype: CacheType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Cached positions of each row.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Most positions a row can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Writes new keys and values `[B, H, T, head_dim]` of `layer` behind what each row holds, and returns views
    /// of all positions `[B, H, longest, head_dim]`. Lengths change in [`Self::advance`], once a run.
    ///
    /// # Errors
    /// More positions than the capacity; a shape that does not fit.
    pub fn append(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let (b, h, t, d) = k.dims4()?;
        if (b, h, d) != (self.lengths.len(), self.heads, self.head_dim) {
            candle_core::bail!(
                "keys of shape {:?} do not fit a cache of [{}, {}, {}, {}]",
                k.dims(),
                self.lengths.len(),
                self.heads,
                self.capacity,
                self.head_dim
            )
        }
        let longest = self.lengths.iter().max().copied().unwrap_or(0) + t;
        if longest > self.capacity {
            candle_core::bail!("{longest} positions are more than the cache holds, which is {}", self.capacity)
        }
        let (capacity, slots, dtype) = (self.capacity, self.slots, self.dtype.dtype());
        let Some(slot) = self.layers.get_mut(layer) else {
            candle_core::bail!("layer {layer} is not in 0..{} of this cache", self.layers.len())
        };
        let entry = match slot {
            Some(entry) => entry,
            None => slot.insert(Layer {
                k: Tensor::zeros((slots, h, capacity, d), dtype, k.device())?,
                v: Tensor::zeros((slots, h, capacity, d), dtype, v.device())?,
            }),
        };
        // A detached copy, so that a cache never keeps a graph alive.
        let (k, v) = (k.detach().contiguous()?.to_dtype(dtype)?, v.detach().contiguous()?.to_dtype(dtype)?);
        let first = self.lengths.first().copied().unwrap_or(0);
        let (all_k, all_v) = (entry.k.narrow(0, 0, b)?, entry.v.narrow(0, 0, b)?);
        if self.lengths.iter().all(|len| *len == first) {
            all_k.slice_set(&k, 2, first)?;
            all_v.slice_set(&v, 2, first)?;
        } else {
            for (row, len) in self.lengths.iter().enumerate() {
                all_k.narrow(0, row, 1)?.slice_set(&k.narrow(0, row, 1)?, 2, *len)?;
                all_v.narrow(0, row, 1)?.slice_set(&v.narrow(0, row, 1)?, 2, *len)?;
            }
        }
        Ok((all_k.narrow(2, 0, longest)?, all_v.narrow(2, 0, longest)?))
    }

    /// Ends a run: row r now holds `new[r]` more positions.
    ///
    /// # Errors
    /// Another number of rows, or a row beyond the capacity.
    pub fn advance(&mut self, new: &[usize]) -> Result<()> {
        if new.len() != self.lengths.len() {
            candle_core::bail!("{} lengths for a cache of {} rows", new.len(), self.lengths.len())
        }
        for (len, add) in self.lengths.iter_mut().zip(new) {
            if *len + add > self.capacity {
                candle_core::bail!("{} positions are more than the cache holds, which is {}", *len + add, self.capacity)
            }
            *len += add;
        }
        Ok(())
    }

    /// Drops the positions from `length` on in every row: a shared prefix is used again.
    pub fn truncate(&mut self, length: usize) {
        for len in &mut self.lengths {
            *len = (*len).min(length);
        }
        if let Some(store) = self.foreign.as_mut().and_then(|f| f.store.as_mut()) {
            store.truncate(length);
        }
    }

    /// Keeps the rows listed, in that order; an index may stand twice. Rows that ended leave the batch this way: where
    /// later rows take the places of earlier ones, those that move are copied and no other.
    ///
    /// # Errors
    /// An index outside the batch.
    pub fn select_rows(&mut self, rows: &[usize]) -> Result<()> {
        if let Some(foreign) = &mut self.foreign {
            if let Some(bad) = rows.iter().find(|r| **r >= self.lengths.len()) {
                candle_core::bail!("row {bad} is not in 0..{} of this cache", self.lengths.len())
            }
            if let Some(store) = &mut foreign.store {
                store.select_rows(rows)?;
            }
            self.lengths = rows.iter().map(|r| self.lengths[*r]).collect();
            return Ok(());
        }
        if rows.iter().enumerate().any(|(to, from)| *from < to) {
            let slots = self.slots.max(rows.len());
            *self = self.copy_rows(rows, slots, self.capacity)?;
            return Ok(());
        }
        self.check_rows(rows)?;
        for layer in self.layers.iter().flatten() {
            for (to, from) in rows.iter().enumerate().filter(|(to, from)| to != *from) {
                for x in [&layer.k, &layer.v] {
                    let moved = x.narrow(0, *from, 1)?.copy()?;
                    x.narrow(0, to, 1)?.slice_set(&moved, 0, 0)?;
                }
            }
        }
        self.lengths = rows.iter().map(|r| self.lengths[*r]).collect();
        Ok(())
    }

    fn check_rows(&self, rows: &[usize]) -> Result<()> {
        match rows.iter().find(|r| **r >= self.lengths.len()) {
            Some(bad) => candle_core::bail!("row {bad} is not in 0..{} of this cache", self.lengths.len()),
            None => Ok(()),
        }
    }

    /// A new cache of the rows listed, an index once or several times, with room for `slots` rows of `capacity`
    /// positions: a shared prefix is computed once and given to many rows.
    ///
    /// # Errors
    /// An index outside the batch, fewer slots than rows, a capacity below a row's length or above the context.
    pub fn copy_rows(&self, rows: &[usize], slots: usize, capacity: usize) -> Result<Self> {
        self.check_rows(rows)?;
        self.check_capacity(capacity)?;
        let lengths: Vec<usize> = rows.iter().map(|r| self.lengths[*r]).collect();
        let longest = lengths.iter().max().copied().unwrap_or(0);
        if slots < rows.len() || capacity < longest {
            candle_core::bail!(
                "{} rows of up to {longest} positions do not fit a cache of {slots} rows of {capacity}",
                rows.len()
            )
        }
        if let Some(Foreign { make, store }) = &self.foreign {
            let mut copy = Self { capacity, slots, lengths, ..self.empty() };
            let sizes = copy.store_sizes(rows.len());
            let store = store.as_ref().map(|store| store.copy_rows(rows, sizes)).transpose()?;
            copy.foreign = Some(Foreign { make: make.clone(), store });
            return Ok(copy);
        }
        let copy = |x: &Tensor| -> Result<Tensor> {
            let all = Tensor::zeros((slots, self.heads, capacity, self.head_dim), x.dtype(), x.device())?;
            for (to, from) in rows.iter().enumerate() {
                let row = x.narrow(0, *from, 1)?.narrow(2, 0, lengths[to])?.contiguous()?;
                if lengths[to] > 0 {
                    all.narrow(0, to, 1)?.slice_set(&row, 2, 0)?;
                }
            }
            Ok(all)
        };
        let layers = self
            .layers
            .iter()
            .map(|layer| layer.as_ref().map(|l| Ok(Layer { k: copy(&l.k)?, v: copy(&l.v)? })).transpose())
            .collect::<Result<_>>()?;
        Ok(Self { layers, capacity, slots, lengths, ..self.empty() })
    }

    /// Takes in all rows of `other` behind its own. Without a free slot, or where `other` is longer, room is made by a
    /// copy of all.
    ///
    /// # Errors
    /// A cache of another decoder or type.
    pub fn push_rows(&mut self, other: &KvCache) -> Result<()> {
        if let (Some(_), Some(theirs)) = (&self.foreign, &other.foreign) {
            let handle = theirs.store.as_ref().map(|store| store.handle()).transpose()?;
            self.capacity = self.capacity.max(other.capacity);
            self.slots = self.slots.max(self.lengths.len() + other.lengths.len());
            match handle {
                Some(handle) => self.store()?.push_rows(handle)?,
                // Rows that have seen nothing: they may still enter a cache that has not begun either.
                None if other.lengths.is_empty() || self.foreign.as_ref().is_some_and(|f| f.store.is_none()) => {}
                None => candle_core::bail!("rows of a cache that has not begun cannot enter one that has"),
            }
            self.lengths.extend_from_slice(&other.lengths);
            return Ok(());
        }
        let sizes = |c: &KvCache| (c.layers.len(), c.heads, c.head_dim, c.dtype, c.foreign.is_some());
        if sizes(self) != sizes(other) {
            candle_core::bail!("rows of a cache of {:?} do not fit one of {:?}", sizes(other), sizes(self))
        }
        let (rows, new) = (self.lengths.len(), other.lengths.len());
        if rows + new > self.slots || other.capacity > self.capacity {
            let own: Vec<usize> = (0..rows).collect();
            *self = self.copy_rows(&own, self.slots.max(rows + new), self.capacity.max(other.capacity))?;
        }
        for (slot, from) in self.layers.iter_mut().zip(&other.layers) {
            let Some(from) = from else { continue };
            let shape = (self.slots, self.heads, self.capacity, self.head_dim);
            let to = match slot {
                Some(to) => to,
                None => slot.insert(Layer {
                    k: Tensor::zeros(shape, from.k.dtype(), from.k.device())?,
                    v: Tensor::zeros(shape, from.v.dtype(), from.v.device())?,
                }),
            };
            for (to, from) in [(&to.k, &from.k), (&to.v, &from.v)] {
                for (row, len) in other.lengths.iter().enumerate().filter(|(_, len)| **len > 0) {
                    let part = from.narrow(0, row, 1)?.narrow(2, 0, *len)?.contiguous()?;
                    to.narrow(0, rows + row, 1)?.slice_set(&part, 2, 0)?;
                }
            }
        }
        self.lengths.extend_from_slice(&other.lengths);
        Ok(())
    }

    /// This cache's sizes and no rows.
    fn empty(&self) -> Self {
        Self { layers: Vec::new(), lengths: Vec::new(), foreign: None, ..*self }
    }

    /// Makes room for `slots` rows in all, before the first append.
    pub fn reserve(mut self, slots: usize) -> Self {
        if self.layers.iter().all(Option::is_none) {
            self.slots = slots.max(self.lengths.len());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Init, Weights};
    use std::sync::{Arc, Mutex};

    const SPEC: DecoderSpec =
        DecoderSpec { width: 6, vocab: 1, layers: 2, kv_heads: 2, head_dim: 3, context: 32, eos: Vec::new() };

    fn noise(b: usize, t: usize, seed: u64) -> Tensor {
        Weights::random(seed).tensor("x", &[b, 2, t, 3], Init::normal(1.0)).unwrap()
    }

    /// Rows of lengths 4, 2 and 3, the same in both layers but for the seed.
    fn filled(dtype: CacheType, slots: usize) -> KvCache {
        let mut cache = KvCache::new(&SPEC, 3, 10).unwrap().with_type(dtype).reserve(slots);
        for layer in 0..2 {
            cache.append(layer, &noise(3, 4, layer as u64), &noise(3, 4, 9 + layer as u64)).unwrap();
        }
        cache.advance(&[4, 2, 3]).unwrap();
        cache
    }

    /// What is seen of each row: keys and values of layer 1 up to its length.
    fn seen(cache: &mut KvCache) -> Vec<Vec<f32>> {
        let b = cache.lengths().len();
        let (k, v) = cache.append(1, &noise(b, 1, 77), &noise(b, 1, 78)).unwrap();
        let flat = |x: &Tensor| x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let row = |r: usize| {
            let len = cache.lengths()[r];
            let part = |x: &Tensor| flat(&x.get(r).unwrap().narrow(1, 0, len).unwrap());
            [part(&k), part(&v)].concat()
        };
        (0..b).map(row).collect()
    }

    #[test]
    fn rows_leave_and_enter_in_every_type() {
        for dtype in [CacheType::F32, CacheType::F16, CacheType::Bf16] {
            let all = seen(&mut filled(dtype, 3));
            for rows in [&[2, 1][..], &[0, 2], &[1, 0, 1], &[2, 2, 2, 2], &[]] {
                let expected: Vec<Vec<f32>> = rows.iter().map(|r| all[*r].clone()).collect();
                let mut cache = filled(dtype, 3);
                cache.select_rows(rows).unwrap();
                if !rows.is_empty() {
                    assert_eq!(seen(&mut cache), expected, "{dtype:?} {rows:?}");
                }
                let mut grown = filled(dtype, 3).copy_rows(rows, 5, 20).unwrap();
                assert_eq!(grown.capacity(), 20);
                if !rows.is_empty() {
                    assert_eq!(seen(&mut grown), expected, "{dtype:?} {rows:?}");
                }
            }
            // Into free slots, into too few of them, into an empty cache, and from a longer one.
            for (slots, capacity) in [(8, 10), (3, 10), (3, 30)] {
                let mut cache = filled(dtype, slots);
                let other = filled(dtype, 3).copy_rows(&[1, 2], 2, capacity).unwrap();
                cache.push_rows(&other).unwrap();
                assert_eq!(cache.lengths(), [4, 2, 3, 2, 3]);
                let expected = [0, 1, 2, 1, 2].map(|r: usize| all[r].clone());
                assert_eq!(seen(&mut cache), expected, "{dtype:?} {slots} {capacity}");
            }
            let mut empty = KvCache::new(&SPEC, 0, 10).unwrap().with_type(dtype).reserve(4);
            empty.push_rows(&filled(dtype, 3)).unwrap();
            assert_eq!(seen(&mut empty), all);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let check = |result: Result<()>, expected: &str| {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        let mut cache = filled(CacheType::F32, 3);
        check(cache.select_rows(&[3]), "row 3 is not in 0..3");
        check(cache.copy_rows(&[0], 1, 3).map(drop), "1 rows of up to 4 positions do not fit a cache of 1 rows of 3");
        check(cache.copy_rows(&[0, 1], 1, 9).map(drop), "do not fit a cache of 1 rows");
        check(cache.copy_rows(&[0], 1, 33).map(drop), "context length, which allows 32");
        check(cache.push_rows(&filled(CacheType::F16, 3)), "do not fit one of");
    }

    /// A store that writes down what is asked of it.
    struct Asked(Arc<Mutex<Vec<String>>>, usize);

    impl CacheStore for Asked {
        fn handle(&self) -> Result<usize> {
            Ok(self.1)
        }

        fn truncate(&mut self, length: usize) {
            self.0.lock().unwrap().push(format!("{}: truncate {length}", self.1));
        }

        fn select_rows(&mut self, rows: &[usize]) -> Result<()> {
            self.0.lock().unwrap().push(format!("{}: select {rows:?}", self.1));
            Ok(())
        }

        fn copy_rows(&self, rows: &[usize], sizes: StoreSizes) -> Result<Box<dyn CacheStore>> {
            self.0.lock().unwrap().push(format!("{}: copy {rows:?} {sizes:?}", self.1));
            Ok(Box::new(Asked(self.0.clone(), self.1 + 10)))
        }

        fn push_rows(&mut self, other: usize) -> Result<()> {
            self.0.lock().unwrap().push(format!("{}: push {other}", self.1));
            Ok(())
        }
    }

    #[test]
    fn a_store_is_made_at_its_first_use_and_asked_in_order() {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let log = calls.clone();
        let make: MakeStore = Arc::new(move |sizes| {
            log.lock().unwrap().push(format!("make {sizes:?}"));
            Ok(Box::new(Asked(log.clone(), 1)))
        });
        let sizes = |batch, capacity, slots| StoreSizes { batch, capacity, slots, dtype: CacheType::F16 };
        let mut cache = KvCache::with_store(&SPEC, 2, 10, make.clone()).unwrap().with_type(CacheType::F16).reserve(5);
        cache.truncate(9);
        cache.select_rows(&[1, 0]).unwrap();
        assert_eq!(calls.lock().unwrap().len(), 0);
        assert_eq!(cache.store().unwrap().handle().unwrap(), 1);
        cache.advance(&[4, 6]).unwrap();
        cache.truncate(5);
        assert_eq!(cache.lengths(), [4, 5]);
        let copy = cache.copy_rows(&[1, 1, 0], 4, 20).unwrap();
        assert_eq!((copy.lengths(), copy.capacity()), (&[5, 5, 4][..], 20));
        cache.select_rows(&[1]).unwrap();
        cache.push_rows(&copy).unwrap();
        assert_eq!((cache.lengths(), cache.capacity()), (&[5, 5, 5, 4][..], 20));
        let expected = [
            format!("make {:?}", sizes(2, 10, 5)),
            "1: truncate 5".into(),
            format!("1: copy [1, 1, 0] {:?}", sizes(3, 20, 4)),
            "1: select [1]".into(),
            "1: push 11".into(),
        ];
        assert_eq!(*calls.lock().unwrap(), expected);
        // What does not fit is refused before the store hears of it, and the two sorts of cache do not mix.
        assert!(cache.select_rows(&[4]).is_err());
        assert!(cache.copy_rows(&[0], 1, 4).is_err());
        let message = filled(CacheType::F16, 3).push_rows(&cache).unwrap_err().to_string();
        assert!(message.contains("do not fit one of"), "{message}");
        assert!(filled(CacheType::F16, 3).store().is_err());
        assert_eq!(*calls.lock().unwrap(), expected);
    }
}
