//! Cached = uncached: step by step, in chunks, over rows of different lengths, and to the last position that fits.

use crate::decoder::{T, embeds};
use crate::report::Report;
use crate::values::{close, has_shape, refused};
use anyhow::{Result, ensure};
use candle_core::Tensor;
use limber_core::{CacheOptions, Decoder, DecoderSpec, LogitPositions, Run};

/// Adds the checks of a decoder's cache.
pub(crate) fn check(report: &mut Report, decoder: &dyn Decoder, spec: &DecoderSpec) {
    report.check("cached step by step = uncached", || chunks(decoder, &[1; T]));
    report.check("cached in chunks = uncached", || {
        chunks(decoder, &[3, 1, 2])?;
        chunks(decoder, &[T - 1, 1])
    });
    report.check("cached rows of different lengths = each row alone", || ragged(decoder));
    report.check("a cached mask hides cached keys", || {
        let embeds = embeds(decoder, 1, T)?;
        let mut bits = vec![1u8; T];
        bits[1] = 0;
        let mask = Tensor::from_vec(bits, (1, T), embeds.device())?;
        let whole = decoder.forward(&embeds, &mut Run { mask: Some(mask.clone()), ..Run::new() })?;
        let mut cache = decoder.new_cache(&CacheOptions::new(1, T))?;
        for (from, len) in [(0, 4), (4, 2)] {
            let mask = Some(mask.narrow(1, 0, from + len)?);
            let mut run = Run { mask, logits: LogitPositions::All, ..Run::cached(cache.as_mut()) };
            let part = decoder.forward(&embeds.narrow(1, from, len)?, &mut run)?;
            close(&format!("positions from {from}"), &part, &whole.narrow(1, from, len)?)?;
        }
        Ok(())
    });
    report.check("a cache takes what it was made for, and no more", || {
        let mut cache = decoder.new_cache(&CacheOptions::new(2, T))?;
        let three = embeds(decoder, 3, 1)?;
        refused("3 rows over a cache of 2", decoder.forward(&three, &mut Run::cached(cache.as_mut())))?;
        let two = embeds(decoder, 2, T)?;
        has_shape("logits", &decoder.forward(&two, &mut Run::cached(cache.as_mut()))?, &[2, spec.vocab])?;
        refused(
            "a position beyond the cache",
            decoder.forward(&two.narrow(1, 0, 1)?, &mut Run::cached(cache.as_mut())),
        )?;
        cache.truncate(T - 1)?;
        decoder.forward(&two.narrow(1, T - 1, 1)?, &mut Run::cached(cache.as_mut()))?;
        Ok(())
    });
}

/// Two rows in pieces of these lengths against the whole.
fn chunks(decoder: &dyn Decoder, pieces: &[usize]) -> Result<()> {
    let embeds = embeds(decoder, 2, T)?;
    let whole = decoder.forward(&embeds, &mut Run::new())?;
    let mut cache = decoder.new_cache(&CacheOptions::new(2, T + 2))?;
    let mut from = 0;
    for len in pieces.iter().copied() {
        let mut run = Run { logits: LogitPositions::All, ..Run::cached(cache.as_mut()) };
        let part = decoder.forward(&embeds.narrow(1, from, len)?, &mut run)?;
        close(&format!("{len} positions from {from} on"), &part, &whole.narrow(1, from, len)?)?;
        from += len;
        ensure!(cache.lengths() == [from, from], "the cache holds {:?} after {from} positions", cache.lengths());
    }
    Ok(())
}

/// Three rows, prefilled to different lengths in one padded call, then two steps each.
fn ragged(decoder: &dyn Decoder) -> Result<()> {
    let lengths = [4, 1, 3];
    let embeds = embeds(decoder, 3, T)?;
    let mut cache = decoder.new_cache(&CacheOptions::new(3, T))?;
    let mut run = Run { lengths: Some(lengths.to_vec()), ..Run::cached(cache.as_mut()) };
    let mut outputs = vec![decoder.forward(&embeds.narrow(1, 0, 4)?, &mut run)?];
    ensure!(cache.lengths() == lengths, "the cache holds {:?} after rows of {lengths:?}", cache.lengths());
    for step in 0..2 {
        let next: Vec<Tensor> = lengths
            .into_iter()
            .enumerate()
            .map(|(row, len)| embeds.narrow(0, row, 1)?.narrow(1, len + step, 1))
            .collect::<candle_core::Result<_>>()?;
        outputs.push(decoder.forward(&Tensor::cat(&next, 0)?, &mut Run::cached(cache.as_mut()))?);
    }
    for (row, len) in lengths.into_iter().enumerate() {
        let alone = decoder.forward(&embeds.narrow(0, row, 1)?.narrow(1, 0, len + 2)?, &mut Run::new())?;
        for (step, output) in outputs.iter().enumerate() {
            let single = alone.narrow(1, len - 1 + step, 1)?.squeeze(1)?;
            close(&format!("row {row} of {len} positions, step {step}"), &output.narrow(0, row, 1)?, &single)?;
        }
    }
    Ok(())
}
