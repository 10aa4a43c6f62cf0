//! Keys and values of the positions already seen, preallocated, each row with its own length.
//!
//! Rows that finish leave and new ones are admitted without a copy of those that stay.

use super::{CacheOptions, CacheType, DecoderCache, SequenceLengths};
use crate::spec::DecoderSpec;
use candle_core::{DType, Device, Result, Tensor};

/// One layer's keys and values, each `[slots, H, capacity, head_dim]`; the first B slots are the rows.
#[derive(Debug, Clone)]
struct Layer {
    k: Tensor,
    v: Tensor,
}

/// Keys and values of every layer, for B rows. Memory is taken at the first append.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Option<Layer>>,
    heads: usize,
    head_dim: usize,
    dtype: CacheType,
    rows: SequenceLengths,
}

impl KvCache {
    /// An empty cache for a decoder of these sizes.
    ///
    /// # Errors
    /// A capacity above the decoder's context length.
    pub fn new(spec: &DecoderSpec, options: &CacheOptions) -> Result<Self> {
        Ok(Self {
            layers: vec![None; spec.layers],
            heads: spec.kv_heads,
            head_dim: spec.head_dim,
            dtype: options.dtype,
            rows: SequenceLengths::new(options, spec.context)?,
        })
    }

    /// Writes new keys and values `[B, H, T, head_dim]` of `layer` behind what each row holds, and returns views
    /// of all positions `[B, H, longest, head_dim]`. Lengths change in [`Self::advance`], once a run.
    ///
    /// # Errors
    /// More positions than the capacity; a shape that does not fit.
    pub fn append(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let (b, h, t, d) = k.dims4()?;
        let capacity = self.rows.capacity();
        if (b, h, d) != (self.rows.rows(), self.heads, self.head_dim) || v.dims() != k.dims() {
            candle_core::bail!(
                "keys of shape {:?} and values of {:?} do not fit a cache of [{}, {}, {capacity}, {}]",
                k.dims(),
                v.dims(),
                self.rows.rows(),
                self.heads,
                self.head_dim
            )
        }
        let longest = self.rows.longest() + t;
        if longest > capacity {
            candle_core::bail!("{longest} positions are more than the cache holds, which is {capacity}")
        }
        let dtype = self.dtype.dtype();
        let layer = self.layer(layer, dtype, k.device())?;
        // A detached copy, so that a cache never keeps a graph alive.
        let (k, v) = (k.detach().contiguous()?.to_dtype(dtype)?, v.detach().contiguous()?.to_dtype(dtype)?);
        let (all_k, all_v) = (layer.k.narrow(0, 0, b)?, layer.v.narrow(0, 0, b)?);
        let lengths = self.rows.get();
        let first = lengths.first().copied().unwrap_or(0);
        if lengths.iter().all(|length| *length == first) {
            all_k.slice_set(&k, 2, first)?;
            all_v.slice_set(&v, 2, first)?;
        } else {
            for (row, length) in lengths.iter().enumerate() {
                all_k.narrow(0, row, 1)?.slice_set(&k.narrow(0, row, 1)?, 2, *length)?;
                all_v.narrow(0, row, 1)?.slice_set(&v.narrow(0, row, 1)?, 2, *length)?;
            }
        }
        Ok((all_k.narrow(2, 0, longest)?, all_v.narrow(2, 0, longest)?))
    }

    /// Ends a run: row r now holds `new[r]` more positions.
    ///
    /// # Errors
    /// Another number of rows, or a row beyond the capacity.
    pub fn advance(&mut self, new: &[usize]) -> Result<()> {
        self.rows.advance(new)
    }

    /// The memory of a layer, which is taken where there is none yet.
    fn layer(&mut self, index: usize, dtype: DType, device: &Device) -> Result<Layer> {
        let shape = (self.rows.slots(), self.heads, self.rows.capacity(), self.head_dim);
        let layers = self.layers.len();
        let Some(layer) = self.layers.get_mut(index) else {
            candle_core::bail!("layer {index} is not in 0..{layers} of this cache")
        };
        if let Some(layer) = layer {
            return Ok(layer.clone());
        }
        let new = Layer { k: Tensor::zeros(shape, dtype, device)?, v: Tensor::zeros(shape, dtype, device)? };
        Ok(layer.insert(new).clone())
    }

    /// As [`DecoderCache::copy_rows`].
    fn copy(&self, rows: &[usize], slots: usize, capacity: usize) -> Result<Self> {
        let new = self.rows.copy(rows, slots, capacity)?;
        let copy = |x: &Tensor| -> Result<Tensor> {
            let all = Tensor::zeros((slots, self.heads, capacity, self.head_dim), x.dtype(), x.device())?;
            for (to, (from, length)) in rows.iter().zip(new.get()).enumerate() {
                copy_row((x, *from), (&all, to), *length)?;
            }
            Ok(all)
        };
        let layers = self
            .layers
            .iter()
            .map(|layer| layer.as_ref().map(|l| Ok(Layer { k: copy(&l.k)?, v: copy(&l.v)? })).transpose())
            .collect::<Result<_>>()?;
        Ok(Self { layers, rows: new, ..*self })
    }

    /// What two caches must have in common for one to admit the rows of the other.
    fn kind(&self) -> String {
        let Self { layers, heads, head_dim, dtype, .. } = self;
        format!("{} layers of {heads} heads of width {head_dim} in {}", layers.len(), dtype.name())
    }
}

/// The first `length` positions of a row of `from` to a row of `to`, both `[slots, H, capacity, head_dim]`.
fn copy_row((from, row): (&Tensor, usize), (to, at): (&Tensor, usize), length: usize) -> Result<()> {
    if length == 0 {
        return Ok(());
    }
    let part = from.narrow(0, row, 1)?.narrow(2, 0, length)?.contiguous()?;
    to.narrow(0, at, 1)?.slice_set(&part, 2, 0)
}

impl DecoderCache for KvCache {
    fn lengths(&self) -> &[usize] {
        self.rows.get()
    }

    fn capacity(&self) -> usize {
        self.rows.capacity()
    }

    fn truncate(&mut self, length: usize) -> Result<()> {
        self.rows.truncate(length);
        Ok(())
    }

    /// Where later rows take the places of earlier ones, those that move are copied and no other.
    fn select_rows(&mut self, rows: &[usize]) -> Result<()> {
        let new = self.rows.select(rows)?;
        if rows.iter().enumerate().any(|(to, from)| *from < to) {
            *self = self.copy(rows, new.slots(), new.capacity())?;
            return Ok(());
        }
        for layer in self.layers.iter().flatten() {
            for (to, from) in rows.iter().enumerate().filter(|(to, from)| to != *from) {
                for x in [&layer.k, &layer.v] {
                    let moved = x.narrow(0, *from, 1)?.copy()?;
                    x.narrow(0, to, 1)?.slice_set(&moved, 0, 0)?;
                }
            }
        }
        self.rows = new;
        Ok(())
    }

    fn copy_rows(&self, rows: &[usize], slots: usize, capacity: usize) -> Result<Box<dyn DecoderCache>> {
        Ok(Box::new(self.copy(rows, slots, capacity)?))
    }

    /// Without a free slot, or where `other` has a larger capacity, room is made by a copy of all.
    fn push_rows(&mut self, other: &dyn DecoderCache) -> Result<()> {
        let other: &Self = other.downcast_ref()?;
        if self.kind() != other.kind() {
            candle_core::bail!("rows of a cache of {} do not fit one of {}", other.kind(), self.kind())
        }
        let (rows, new) = (self.rows.rows(), self.rows.push(&other.rows));
        if (new.slots(), new.capacity()) != (self.rows.slots(), self.rows.capacity()) {
            let own: Vec<usize> = (0..rows).collect();
            *self = self.copy(&own, new.slots(), new.capacity())?;
        }
        for (index, from) in other.layers.iter().enumerate() {
            let Some(from) = from else { continue };
            let to = self.layer(index, from.k.dtype(), from.k.device())?;
            for (to, from) in [(&to.k, &from.k), (&to.v, &from.v)] {
                for (row, length) in other.rows.get().iter().enumerate() {
                    copy_row((from, row), (to, rows + row), *length)?;
                }
            }
        }
        self.rows = new;
        Ok(())
    }
}
