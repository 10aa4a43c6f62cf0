//! Prompts through the decoder: what they have in common at their beginning is computed once.
//!
//! Few-shot prompts share their examples, questions about one image share its prefix. What is common is told by the
//! embeddings themselves, so that no caller has to say so.

use anyhow::Result;
use candle_core::Tensor;
use limber_core::{CacheOptions, CacheType, Decoder, DecoderCache, LogitPositions, Run};

/// Fewer common positions than this are computed again: a copy of the cache costs about as much.
const WORTH_SHARING: usize = 8;

/// The beginning of the last prompts, for the next ones to be compared with.
#[derive(Default)]
pub struct Kept {
    /// Embeddings `[P, D]`, row-major; all that `cache` holds where there is one.
    embeds: Vec<f32>,
    /// One row, of these embeddings; made once a second prompt has begun alike.
    cache: Option<Box<dyn DecoderCache>>,
}

/// Prompts `[1, T, D]`, T their own, through the decoder: a cache of one row a prompt and the logits `[B, V]` after each.
///
/// # Errors
/// What the decoder reports.
pub fn prefill(
    decoder: &dyn Decoder,
    prompts: &[Tensor],
    capacity: usize,
    dtype: CacheType,
    kept: &mut Kept,
) -> Result<(Box<dyn DecoderCache>, Tensor)> {
    let Some(first) = prompts.first() else { anyhow::bail!("no prompt") };
    let (_, _, width) = first.dims3()?;
    let flat: Vec<Vec<f32>> =
        prompts.iter().map(|p| p.detach().flatten_all()?.to_vec1::<f32>()).collect::<candle_core::Result<_>>()?;
    let lengths: Vec<usize> = flat.iter().map(|p| p.len() / width.max(1)).collect();
    // Every row has a position of its own left, whose logits are asked for.
    let shortest = lengths.iter().min().copied().unwrap_or(0).saturating_sub(1);
    let among = flat.iter().fold(shortest, |n, p| n.min(common(&flat[0], p, width)));
    let with_kept = among.min(common(&flat[0], &kept.embeds, width));
    let wanted = if prompts.len() > 1 { among } else { with_kept };
    let wanted = if lengths.iter().all(|len| decoder.supports_prefix_reuse(*len)) { wanted } else { 0 };
    let mut cache = if wanted < WORTH_SHARING {
        *kept = Kept { embeds: flat[0].clone(), cache: None };
        decoder.new_cache(&CacheOptions::new(prompts.len(), capacity).with_type(dtype))?
    } else {
        let base = begin(decoder, &first.narrow(1, 0, wanted)?, with_kept, dtype, kept.cache.take())?;
        let rows = base.copy_sequences(&vec![0; prompts.len()], prompts.len(), capacity)?;
        *kept = Kept { embeds: flat[0][..wanted * width].to_vec(), cache: Some(base) };
        rows
    };
    let done = cache.lengths().first().copied().unwrap_or(0);
    let longest = lengths.iter().max().copied().unwrap_or(0);
    let rest: Vec<Tensor> = prompts
        .iter()
        .zip(&lengths)
        .map(|(p, len)| p.detach().narrow(1, done, len - done)?.pad_with_zeros(1, 0, longest - len))
        .collect::<candle_core::Result<_>>()?;
    let mut run = Run::cached(cache.as_mut());
    run.lengths = Some(lengths.iter().map(|len| len - done).collect());
    let logits = decoder.forward(&Tensor::cat(&rest, 0)?, &mut run)?;
    Ok((cache, logits))
}

/// A cache of one row, of `embeds` `[1, P, D]`, whose first `there` positions `old` holds if it is given.
fn begin(
    decoder: &dyn Decoder,
    embeds: &Tensor,
    there: usize,
    dtype: CacheType,
    old: Option<Box<dyn DecoderCache>>,
) -> Result<Box<dyn DecoderCache>> {
    let wanted = embeds.dim(1)?;
    let mut base = match old {
        Some(mut old) if there > 0 => {
            old.truncate(there)?;
            old.copy_sequences(&[0], 1, wanted)?
        }
        _ => decoder.new_cache(&CacheOptions::new(1, wanted).with_type(dtype))?,
    };
    let there = base.lengths()[0];
    if there < wanted {
        let mut run = Run { logits: LogitPositions::Hidden, ..Run::cached(base.as_mut()) };
        decoder.forward(&embeds.narrow(1, there, wanted - there)?, &mut run)?;
    }
    Ok(base)
}

/// Whole positions that two rows of embeddings begin with alike.
fn common(a: &[f32], b: &[f32], width: usize) -> usize {
    if width == 0 {
        return 0;
    }
    a.chunks_exact(width).zip(b.chunks_exact(width)).take_while(|(a, b)| a == b).count()
}
