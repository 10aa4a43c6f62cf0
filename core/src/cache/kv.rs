//! Keys and values of the positions already seen, preallocated, each sequence with its own length.
//!
//! Sequences that finish leave and new ones are admitted without a copy of those that stay.

use super::{CacheOptions, CacheType, DecoderCache, SequenceLengths};
use crate::spec::DecoderSpec;
use candle_core::{DType, Device, Result, Tensor};

/// One layer's keys and values, each `[slots, H, capacity, head_dim]`; the first B slots are the sequences.
#[derive(Debug, Clone)]
struct Layer {
    k: Tensor,
    v: Tensor,
}

/// Keys and values of every layer, for B sequences. Memory is taken at the first append.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Option<Layer>>,
    heads: usize,
    head_dim: usize,
    dtype: CacheType,
    lengths: SequenceLengths,
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
            lengths: SequenceLengths::new(options, spec.context)?,
        })
    }

    /// Writes new keys and values `[B, H, T, head_dim]` of `layer` behind what each sequence holds, and returns views
    /// of all positions `[B, H, longest, head_dim]`. Lengths change in [`Self::advance`], once a run.
    ///
    /// # Errors
    /// More positions than the capacity; a shape that does not fit.
    pub fn append(&mut self, layer: usize, k: &Tensor, v: &Tensor) -> Result<(Tensor, Tensor)> {
        let (b, h, t, d) = k.dims4()?;
        let capacity = self.lengths.capacity();
        if (b, h, d) != (self.lengths.batch(), self.heads, self.head_dim) || v.dims() != k.dims() {
            candle_core::bail!(
                "keys of shape {:?} and values of {:?} do not fit a cache of [{}, {}, {capacity}, {}]",
                k.dims(),
                v.dims(),
                self.lengths.batch(),
                self.heads,
                self.head_dim
            )
        }
        let longest = self.lengths.longest() + t;
        if longest > capacity {
            candle_core::bail!("{longest} positions are more than the cache holds, which is {capacity}")
        }
        let dtype = self.dtype.dtype();
        let layer = self.layer(layer, dtype, k.device())?;
        // A detached copy, so that a cache never keeps a graph alive.
        let (k, v) = (k.detach().contiguous()?.to_dtype(dtype)?, v.detach().contiguous()?.to_dtype(dtype)?);
        let (all_k, all_v) = (layer.k.narrow(0, 0, b)?, layer.v.narrow(0, 0, b)?);
        let lengths = self.lengths.get();
        let first = lengths.first().copied().unwrap_or(0);
        if lengths.iter().all(|length| *length == first) {
            all_k.slice_set(&k, 2, first)?;
            all_v.slice_set(&v, 2, first)?;
        } else {
            for (sequence, length) in lengths.iter().enumerate() {
                all_k.narrow(0, sequence, 1)?.slice_set(&k.narrow(0, sequence, 1)?, 2, *length)?;
                all_v.narrow(0, sequence, 1)?.slice_set(&v.narrow(0, sequence, 1)?, 2, *length)?;
            }
        }
        Ok((all_k.narrow(2, 0, longest)?, all_v.narrow(2, 0, longest)?))
    }

    /// Ends a run: sequence b now holds `new[b]` more positions.
    ///
    /// # Errors
    /// Another number of sequences, or a sequence beyond the capacity.
    pub fn advance(&mut self, new: &[usize]) -> Result<()> {
        self.lengths.advance(new)
    }

    /// The memory of a layer, which is taken where there is none yet.
    fn layer(&mut self, index: usize, dtype: DType, device: &Device) -> Result<Layer> {
        let shape = (self.lengths.slots(), self.heads, self.lengths.capacity(), self.head_dim);
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

    /// As [`DecoderCache::copy_sequences`].
    fn copy(&self, sequences: &[usize], slots: usize, capacity: usize) -> Result<Self> {
        let new = self.lengths.copy(sequences, slots, capacity)?;
        let copy = |x: &Tensor| -> Result<Tensor> {
            let all = Tensor::zeros((slots, self.heads, capacity, self.head_dim), x.dtype(), x.device())?;
            for (to, (from, length)) in sequences.iter().zip(new.get()).enumerate() {
                copy_sequence((x, *from), (&all, to), *length)?;
            }
            Ok(all)
        };
        let layers = self
            .layers
            .iter()
            .map(|layer| layer.as_ref().map(|l| Ok(Layer { k: copy(&l.k)?, v: copy(&l.v)? })).transpose())
            .collect::<Result<_>>()?;
        Ok(Self { layers, lengths: new, ..*self })
    }

    /// What two caches must have in common for one to admit the sequences of the other.
    fn kind(&self) -> String {
        let Self { layers, heads, head_dim, dtype, .. } = self;
        format!("{} layers of {heads} heads of width {head_dim} in {}", layers.len(), dtype.name())
    }
}

/// The first `length` positions of a sequence of `from` to a sequence of `to`, both `[slots, H, capacity, head_dim]`.
fn copy_sequence((from, sequence): (&Tensor, usize), (to, at): (&Tensor, usize), length: usize) -> Result<()> {
    if length == 0 {
        return Ok(());
    }
    let part = from.narrow(0, sequence, 1)?.narrow(2, 0, length)?.contiguous()?;
    to.narrow(0, at, 1)?.slice_set(&part, 2, 0)
}

impl DecoderCache for KvCache {
    fn sequences(&self) -> &SequenceLengths {
        &self.lengths
    }

    fn truncate(&mut self, length: usize) -> Result<()> {
        self.lengths.truncate(length);
        Ok(())
    }

    /// Where later sequences take the places of earlier ones, those that move are copied and no other.
    fn select_sequences(&mut self, sequences: &[usize]) -> Result<()> {
        let new = self.lengths.select(sequences)?;
        if sequences.iter().enumerate().any(|(to, from)| *from < to) {
            *self = self.copy(sequences, new.slots(), new.capacity())?;
            return Ok(());
        }
        for layer in self.layers.iter().flatten() {
            for (to, from) in sequences.iter().enumerate().filter(|(to, from)| to != *from) {
                for x in [&layer.k, &layer.v] {
                    let moved = x.narrow(0, *from, 1)?.copy()?;
                    x.narrow(0, to, 1)?.slice_set(&moved, 0, 0)?;
                }
            }
        }
        self.lengths = new;
        Ok(())
    }

    fn copy_sequences(&self, sequences: &[usize], slots: usize, capacity: usize) -> Result<Box<dyn DecoderCache>> {
        Ok(Box::new(self.copy(sequences, slots, capacity)?))
    }

    /// Without a free slot, or where `other` has a larger capacity, room is made by a copy of all.
    fn push_sequences(&mut self, other: &dyn DecoderCache) -> Result<()> {
        let other: &Self = other.downcast_ref()?;
        if self.kind() != other.kind() {
            candle_core::bail!("sequences of a cache of {} do not fit one of {}", other.kind(), self.kind())
        }
        let (own, new) = (self.lengths.batch(), self.lengths.push(&other.lengths));
        if (new.slots(), new.capacity()) != (self.lengths.slots(), self.lengths.capacity()) {
            let kept: Vec<usize> = (0..own).collect();
            *self = self.copy(&kept, new.slots(), new.capacity())?;
        }
        for (index, from) in other.layers.iter().enumerate() {
            let Some(from) = from else { continue };
            let to = self.layer(index, from.k.dtype(), from.k.device())?;
            for (to, from) in [(&to.k, &from.k), (&to.v, &from.v)] {
                for (sequence, length) in other.lengths.get().iter().enumerate() {
                    copy_sequence((from, sequence), (to, own + sequence), *length)?;
                }
            }
        }
        self.lengths = new;
        Ok(())
    }
}
