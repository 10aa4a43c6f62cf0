//! One micro-batch: [prefix][caption] through the frozen decoder, cross-entropy on the caption's tokens, gradients of
//! the stitch alone.
//!
//! Position K - 1 + i predicts token i of the caption, the last one the end of sequence. Rows are padded at the end,
//! logits are computed where there are targets and nowhere else.

use super::optimizer::{Gradients, Optimizer};
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use limber_core::ops::cross_entropy;
use limber_core::{Checkpointing, LogitPositions, Mode, Run};
use limber_data::Sample;
use limber_pipeline::model::Model;
use std::time::Instant;

/// How the losses of micro-batches are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalise {
    /// By the target tokens of the whole step; every caption ends in an end of sequence.
    Step,
    /// The original's: the mean of the micro-batches' means, and no end of sequence for a batch's longest caption.
    Original {
        /// Micro-batches of a step.
        micro_batches: usize,
    },
}

/// What a micro-batch gave; its gradients are added to the step's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Micro {
    /// Sum of -log p over the targets.
    pub loss: f64,
    /// Target tokens.
    pub targets: usize,
    /// Seconds of encoder, stitch and decoder, forward.
    pub forward_s: f64,
    /// Seconds backward.
    pub backward_s: f64,
}

/// Rows of captions: ids padded to the longest, lengths, and where the targets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captions {
    /// `[B, T]`, row-major, padded with the end of sequence.
    pub ids: Vec<u32>,
    /// T.
    pub longest: usize,
    /// Tokens of each row.
    pub lengths: Vec<usize>,
    /// (row, position) behind a prefix of K, whose logits predict the target beside it.
    pub positions: Vec<(usize, usize)>,
    /// The target of each position.
    pub targets: Vec<u32>,
}

impl Captions {
    /// Lays out captions behind a prefix of `prefix` tokens; what does not fit the context is cut off.
    pub fn new(captions: &[&[u32]], prefix: usize, context: usize, eos: u32, normalise: Normalise) -> Self {
        let room = context.saturating_sub(prefix);
        let lengths: Vec<usize> = captions.iter().map(|ids| ids.len().min(room)).collect();
        let longest = lengths.iter().max().copied().unwrap_or(0);
        let mut all = Self {
            ids: vec![eos; captions.len() * longest],
            longest,
            lengths: lengths.clone(),
            positions: Vec::new(),
            targets: Vec::new(),
        };
        for (row, (ids, length)) in captions.iter().zip(lengths).enumerate() {
            all.ids[row * longest..][..length].copy_from_slice(&ids[..length]);
            for (i, id) in ids[..length].iter().enumerate() {
                all.positions.push((row, prefix + i - 1));
                all.targets.push(*id);
            }
            // A caption that was cut off has not ended; the original pads to the longest, which then has no end either.
            let ends = ids.len() == length && (normalise == Normalise::Step || length < longest);
            if ends {
                all.positions.push((row, prefix + length - 1));
                all.targets.push(eos);
            }
        }
        all
    }
}

/// Runs one micro-batch and adds its gradients to `sums`.
///
/// # Errors
/// A loss that is not finite, naming the items; what the components report.
pub fn micro_batch(
    model: &Model,
    optimizer: &Optimizer,
    samples: &[Sample],
    mode: Mode,
    normalise: Normalise,
    checkpointing: Checkpointing,
    sums: &mut Gradients,
) -> Result<Micro> {
    let start = Instant::now();
    let prefix = prefix(model, samples, mode)?;
    let (losses, loss, targets) = forward(model, samples, &prefix, normalise, checkpointing)?;
    let forward_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    let factor = match normalise {
        Normalise::Step => 1.0,
        Normalise::Original { micro_batches } => 1.0 / (targets * micro_batches) as f64,
    };
    let grads = (losses.sum_all()? * factor)?.backward()?;
    optimizer.gather(&grads, sums)?;
    Ok(Micro { loss, targets, forward_s, backward_s: start.elapsed().as_secs_f64() })
}

/// Sum of -log p over the targets of `samples`, and their number, without gradients.
///
/// # Errors
/// As [`micro_batch`].
pub fn loss_of(model: &Model, samples: &[Sample], mode: Mode, normalise: Normalise) -> Result<(f64, usize)> {
    let prefix = prefix(model, samples, mode)?.detach();
    let (_, loss, targets) = forward(model, samples, &prefix, normalise, Checkpointing::None)?;
    Ok((loss, targets))
}

/// The prefixes `[B, K, D]` of samples, with the graph of the stitch.
fn prefix(model: &Model, samples: &[Sample], mode: Mode) -> Result<Tensor> {
    let inputs: Vec<Tensor> = samples.iter().map(|sample| sample.input.clone()).collect();
    Ok(model.stitch().project(&model.features(&inputs)?, mode)?)
}

/// -log p of each target `[targets]`, their sum and number.
fn forward(
    model: &Model,
    samples: &[Sample],
    prefix: &Tensor,
    normalise: Normalise,
    checkpointing: Checkpointing,
) -> Result<(Tensor, f64, usize)> {
    let (b, k, _) = prefix.dims3()?;
    let decoder = model.decoder();
    let context = decoder.spec().context;
    if k == 0 || k >= context {
        bail!("a prefix of {k} tokens leaves no room for a caption; the decoder's context length allows {context}")
    }
    let eos = model
        .language()
        .eos()
        .to_vec()
        .first()
        .copied()
        .context("the decoder has no end of sequence, which training needs")?;
    let captions: Vec<&[u32]> = samples.iter().map(|sample| sample.ids.as_slice()).collect();
    let captions = Captions::new(&captions, k, context, eos, normalise);
    let ids = Tensor::from_vec(captions.ids, (b, captions.longest), prefix.device())?;
    let embeds = Tensor::cat(&[prefix, &decoder.embed(&ids)?.detach()], 1)?; // [B, K + T, D]
    let mut run = Run {
        lengths: Some(captions.lengths.iter().map(|t| k + t).collect()),
        logits: LogitPositions::At(captions.positions),
        checkpointing,
        ..Run::new()
    };
    let logits = decoder.forward(&embeds, &mut run)?; // [targets, V]
    let losses = cross_entropy(&logits, &captions.targets)?;
    let loss: f64 = losses.to_vec1::<f32>()?.iter().map(|x| f64::from(*x)).sum();
    if !loss.is_finite() {
        let names: Vec<&str> = samples.iter().map(|s| s.name.as_str()).collect();
        bail!("the loss is {loss}, which is not finite; the items are {}", names.join("; "))
    }
    Ok((losses, loss, captions.targets.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_captions_and_one_end_each() {
        let rows: [&[u32]; 2] = [&[5, 6, 7], &[8]];
        let ours = Captions::new(&rows, 4, 32, 9, Normalise::Step);
        assert_eq!((ours.ids, ours.longest, ours.lengths), (vec![5, 6, 7, 8, 9, 9], 3, vec![3, 1]));
        assert_eq!(ours.positions, [(0, 3), (0, 4), (0, 5), (0, 6), (1, 3), (1, 4)]);
        assert_eq!(ours.targets, [5, 6, 7, 9, 8, 9]);
        let original = Captions::new(&rows, 4, 32, 9, Normalise::Original { micro_batches: 1 });
        assert_eq!(original.targets, [5, 6, 7, 8, 9]);
        assert_eq!(original.positions, [(0, 3), (0, 4), (0, 5), (1, 3), (1, 4)]);
    }

    #[test]
    fn a_caption_beyond_the_context_is_cut_and_does_not_end() {
        let cut = Captions::new(&[&[1, 2, 3, 4], &[5, 6]], 4, 6, 9, Normalise::Step);
        assert_eq!((cut.lengths.as_slice(), cut.targets.as_slice()), (&[2, 2][..], &[1, 2, 5, 6, 9][..]));
        assert!(cut.positions.iter().all(|(_, at)| *at < 6));
    }
}
