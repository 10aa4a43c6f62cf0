//! Keys and values of the positions already seen, preallocated, each row with its own length.

use crate::spec::DecoderSpec;
use candle_core::{DType, Device, Result, Tensor};

/// One layer's keys and values, each `[B, H, capacity, head_dim]`.
#[derive(Debug, Clone)]
struct Layer {
    k: Tensor,
    v: Tensor,
}

/// A preallocated cache of B rows. Rows may differ in length, so a batch needs no padding in the middle.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Option<Layer>>,
    heads: usize,
    head_dim: usize,
    capacity: usize,
    lengths: Vec<usize>,
}

impl KvCache {
    /// An empty cache for `batch` rows of at most `capacity` positions; memory is taken at the first append.
    ///
    /// # Errors
    /// A capacity above the decoder's context length.
    pub fn new(spec: &DecoderSpec, batch: usize, capacity: usize) -> Result<Self> {
        if capacity > spec.context {
            candle_core::bail!(
                "a cache of {capacity} positions (prefix, text and new tokens together) is more than the decoder's context length, which allows {}",
                spec.context
            )
        }
        Ok(Self {
            layers: vec![None; spec.layers],
            heads: spec.kv_heads,
            head_dim: spec.head_dim,
            capacity,
            lengths: vec![0; batch],
        })
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
        let capacity = self.capacity;
        let Some(slot) = self.layers.get_mut(layer) else {
            candle_core::bail!("layer {layer} is not in 0..{} of this cache", self.layers.len())
        };
        let entry = match slot {
            Some(entry) => entry,
            None => slot.insert(Layer {
                k: Tensor::zeros((b, h, capacity, d), DType::F32, k.device())?,
                v: Tensor::zeros((b, h, capacity, d), DType::F32, v.device())?,
            }),
        };
        // A detached copy, so that a cache never keeps a graph alive.
        let (k, v) = (k.detach().contiguous()?, v.detach().contiguous()?);
        let first = self.lengths.first().copied().unwrap_or(0);
        if self.lengths.iter().all(|len| *len == first) {
            entry.k.slice_set(&k, 2, first)?;
            entry.v.slice_set(&v, 2, first)?;
        } else {
            for (row, len) in self.lengths.iter().enumerate() {
                entry.k.narrow(0, row, 1)?.slice_set(&k.narrow(0, row, 1)?, 2, *len)?;
                entry.v.narrow(0, row, 1)?.slice_set(&v.narrow(0, row, 1)?, 2, *len)?;
            }
        }
        Ok((entry.k.narrow(2, 0, longest)?, entry.v.narrow(2, 0, longest)?))
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
    }

    /// Keeps the rows listed, in that order; an index may stand twice. Rows that ended leave the batch this way.
    ///
    /// # Errors
    /// An index outside the batch.
    pub fn select_rows(&mut self, rows: &[usize]) -> Result<()> {
        if let Some(bad) = rows.iter().find(|r| **r >= self.lengths.len()) {
            candle_core::bail!("row {bad} is not in 0..{} of this cache", self.lengths.len())
        }
        let index: Vec<u32> = rows.iter().map(|r| *r as u32).collect();
        let index = Tensor::new(index, &self.device())?;
        for layer in self.layers.iter_mut().flatten() {
            layer.k = layer.k.index_select(&index, 0)?;
            layer.v = layer.v.index_select(&index, 0)?;
        }
        self.lengths = rows.iter().map(|r| self.lengths[*r]).collect();
        Ok(())
    }

    fn device(&self) -> Device {
        self.layers.iter().flatten().next().map_or(Device::Cpu, |l| l.k.device().clone())
    }
}
