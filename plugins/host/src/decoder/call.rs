//! One call of a plugin's decoder: what a run asks for, checked, and as the ABI has it.

use crate::memory::with_bytes;
use candle_core::{DType, Tensor};
use limber_core::decoder::check_context;
use limber_core::{Checkpointing, DecoderSpec, LogitPositions, Run};
use limber_plugin_abi::*;
use std::ptr::null;

/// What a run asks for, owned, so that a backward pass can ask again.
pub(super) struct Asked {
    pub dims: [usize; 3],
    pub lengths: Vec<u64>,
    pub past: Option<Vec<u64>>,
    mask: Option<Tensor>,
    pub logits: LogitPositions,
    checkpointing: Checkpointing,
}

impl Asked {
    /// Checks a run, so that a plugin gets nothing that does not fit.
    pub(super) fn new(spec: &DecoderSpec, embeds: &Tensor, run: &Run) -> candle_core::Result<Self> {
        let DecoderSpec { width, context, .. } = *spec;
        let [b, t, d] = match embeds.dims() {
            [b, t, d] if *b > 0 && *t > 0 && *d == width => [*b, *t, *d],
            other => candle_core::bail!("embeddings have shape {other:?}, expected [B, T, {width}]"),
        };
        let (lengths, past) = (run.sequence_lengths(b, t)?, run.past(b)?);
        // Padding takes positions too, as in our own decoders.
        check_context(&past, &vec![t; b], context)?;
        let keys = past.iter().max().copied().unwrap_or(0) + t;
        if let Some(cache) = &run.cache
            && keys > cache.capacity()
        {
            candle_core::bail!("{keys} positions are more than the cache holds, which is {}", cache.capacity())
        }
        if let LogitPositions::At(list) = &run.logits
            && let Some(bad) = list.iter().find(|(sequence, at)| *sequence >= b || *at >= t)
        {
            candle_core::bail!("logits asked at {bad:?}, expected sequences 0..{b} and positions 0..{t}")
        }
        let mask = match &run.mask {
            None => None,
            Some(mask) if mask.dtype() == DType::U8 && matches!(mask.dims(), [r, k] if *r == b && *k >= keys) => {
                Some(mask.narrow(1, 0, keys)?)
            }
            Some(mask) => {
                candle_core::bail!("a mask of {:?} {:?}, expected u8 [{b}, {keys}]", mask.dtype(), mask.dims())
            }
        };
        let numbers = |list: Vec<usize>| list.into_iter().map(|n| n as u64).collect();
        Ok(Self {
            dims: [b, t, d],
            lengths: numbers(lengths),
            past: run.cache.is_some().then(|| numbers(past)),
            mask,
            logits: run.logits.clone(),
            checkpointing: run.checkpointing,
        })
    }

    /// Runs `body` with the call's table, without output, cache, taps and tape.
    pub(super) fn with<R>(
        &self,
        embeds: *const LimberTensor,
        body: impl FnOnce(LimberForward) -> candle_core::Result<R>,
    ) -> candle_core::Result<R> {
        let (logits, positions) = match &self.logits {
            LogitPositions::All => (LIMBER_LOGITS_ALL, Vec::new()),
            LogitPositions::Last => (LIMBER_LOGITS_LAST, Vec::new()),
            LogitPositions::Hidden => (LIMBER_LOGITS_HIDDEN, Vec::new()),
            LogitPositions::At(list) => {
                (LIMBER_LOGITS_AT, list.iter().flat_map(|(sequence, at)| [*sequence as u64, *at as u64]).collect())
            }
        };
        let call = LimberForward {
            flags: if self.checkpointing == Checkpointing::None { 0 } else { LIMBER_CALL_RECOMPUTE },
            logits,
            embeds,
            lengths: self.lengths.as_ptr(),
            past: self.past.as_ref().map_or(null(), |past| past.as_ptr()),
            positions: positions.as_ptr(),
            n_positions: positions.len() as u64 / 2,
            ..LimberForward::empty()
        };
        match &self.mask {
            None => body(call),
            Some(mask) => with_bytes(mask, |mask| body(LimberForward { mask, ..call })),
        }
    }

    /// The shape of what the run gives.
    pub(super) fn output(&self, spec: &DecoderSpec) -> Vec<usize> {
        let [b, t, d] = self.dims;
        match &self.logits {
            LogitPositions::All => vec![b, t, spec.vocab],
            LogitPositions::Last => vec![b, spec.vocab],
            LogitPositions::At(list) => vec![list.len(), spec.vocab],
            LogitPositions::Hidden => vec![b, t, d],
        }
    }
}
