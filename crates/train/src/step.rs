//! One micro-batch: [prefix][caption] through the frozen decoder, cross-entropy on the caption's tokens, gradients of
//! the stitch alone.
//!
//! Position K - 1 + i predicts token i of the caption, the last one the end of sequence; of a prompt between the two, and of
//! the questions of a conversation, nothing is predicted. Rows are padded at the end, logits are computed where there are targets and nowhere else.

use super::learner::Learner;
use super::optimizer::{Gradients, Optimizer};
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use limber_core::ops::cross_entropy;
use limber_core::{Checkpointing, LogitPositions, Mode, Run};
use limber_data::{Sample, Tokens};
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

/// Rows of texts around a prefix: ids padded to the longest, lengths, and where the targets are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// `[B, T]`, row-major, padded with the end of sequence.
    pub ids: Vec<u32>,
    /// T.
    pub longest: usize,
    /// Tokens of each row.
    pub lengths: Vec<usize>,
    /// Tokens of each row that go before the prefix.
    pub before: Vec<usize>,
    /// (row, position) in the sequence with its prefix of K, whose logits predict the target beside it.
    pub positions: Vec<(usize, usize)>,
    /// The target of each position.
    pub targets: Vec<u32>,
}

impl Rows {
    /// Lays out texts around a prefix of `prefix` tokens; what does not fit the context is cut off.
    pub fn new(texts: &[&Tokens], prefix: usize, context: usize, eos: u32, normalise: Normalise) -> Self {
        let room = context.saturating_sub(prefix);
        let lengths: Vec<usize> = texts.iter().map(|text| text.ids.len().min(room)).collect();
        let longest = lengths.iter().max().copied().unwrap_or(0);
        let mut all = Self {
            ids: vec![eos; texts.len() * longest],
            longest,
            before: texts.iter().zip(&lengths).map(|(text, length)| text.before.min(*length)).collect(),
            lengths: lengths.clone(),
            positions: Vec::new(),
            targets: Vec::new(),
        };
        for (row, (text, length)) in texts.iter().zip(lengths).enumerate() {
            all.ids[row * longest..][..length].copy_from_slice(&text.ids[..length]);
            // Token i of the text stands at position i of the sequence, or behind the prefix.
            let position = |i: usize| if i < text.before { i } else { prefix + i };
            let learned =
                text.ids[..length].iter().zip(&text.learned).enumerate().filter(|(_, (_, learned))| **learned);
            // Nothing predicts the first token of a sequence.
            for (i, (id, _)) in learned.filter(|(i, _)| position(*i) > 0) {
                all.positions.push((row, position(i) - 1));
                all.targets.push(*id);
            }
            // A text that was cut off has not ended; the original pads to the longest, which then has no end either.
            let is_whole = text.ends && text.ids.len() == length;
            if is_whole && (normalise == Normalise::Step || length < longest) {
                all.positions.push((row, position(length) - 1));
                all.targets.push(eos);
            }
        }
        all
    }

    /// The sequences `[B, K + T, D]` of prefixes `[B, K, D]` and the texts' embeddings `[B, T, D]`.
    fn around(&self, prefix: &Tensor, embeds: &Tensor) -> Result<Tensor> {
        if self.before.iter().all(|before| *before == 0) {
            return Ok(Tensor::cat(&[prefix, embeds], 1)?);
        }
        let row = |(at, before): (usize, &usize)| {
            let (prefix, embeds) = (prefix.narrow(0, at, 1)?, embeds.narrow(0, at, 1)?);
            let (front, back) = (embeds.narrow(1, 0, *before)?, embeds.narrow(1, *before, self.longest - before)?);
            Tensor::cat(&[&front, &prefix, &back], 1)
        };
        let rows = self.before.iter().enumerate().map(row).collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&rows, 0)?)
    }
}

/// Runs one micro-batch and adds its gradients to `sums`.
///
/// # Errors
/// A loss that is not finite, naming the items; what the components report.
pub fn micro_batch(
    learner: &Learner,
    optimizer: &Optimizer,
    samples: &[Sample],
    mode: Mode,
    normalise: Normalise,
    checkpointing: Checkpointing,
    sums: &mut Gradients,
) -> Result<Micro> {
    let start = Instant::now();
    let prefix = learner.prefix(&inputs(samples), mode)?;
    let (losses, loss, targets) = forward(learner, samples, &prefix, normalise, checkpointing)?;
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
pub fn loss_of(learner: &Learner, samples: &[Sample], mode: Mode, normalise: Normalise) -> Result<(f64, usize)> {
    let prefix = learner.prefix(&inputs(samples), mode)?.detach();
    let (_, loss, targets) = forward(learner, samples, &prefix, normalise, Checkpointing::None)?;
    Ok((loss, targets))
}

fn inputs(samples: &[Sample]) -> Vec<Tensor> {
    samples.iter().map(|sample| sample.input.clone()).collect()
}

/// -log p of each target `[targets]`, their sum and number.
fn forward(
    learner: &Learner,
    samples: &[Sample],
    prefix: &Tensor,
    normalise: Normalise,
    checkpointing: Checkpointing,
) -> Result<(Tensor, f64, usize)> {
    let model = learner.model;
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
    let texts: Vec<&Tokens> = samples.iter().map(|sample| &sample.tokens).collect();
    let rows = Rows::new(&texts, k, context, eos, normalise);
    if rows.targets.is_empty() {
        let names: Vec<&str> = samples.iter().map(|s| s.name.as_str()).collect();
        bail!("no answer fits the decoder's context length of {context}; the items are {}", names.join("; "))
    }
    let ids = Tensor::from_vec(rows.ids.clone(), (b, rows.longest), prefix.device())?;
    let embeds = rows.around(prefix, &decoder.embed(&ids)?.detach())?; // [B, K + T, D]
    let mut run = Run {
        lengths: Some(rows.lengths.iter().map(|t| k + t).collect()),
        logits: LogitPositions::At(rows.positions),
        checkpointing,
        ..Run::new()
    };
    let logits = decoder.forward(&embeds, &mut run)?; // [targets, V]
    let losses = cross_entropy(&logits, &rows.targets)?;
    let loss: f64 = losses.to_vec1::<f32>()?.iter().map(|x| f64::from(*x)).sum();
    if !loss.is_finite() {
        let names: Vec<&str> = samples.iter().map(|s| s.name.as_str()).collect();
        bail!("the loss is {loss}, which is not finite; the items are {}", names.join("; "))
    }
    Ok((losses, loss, rows.targets.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// A caption's tokens.
    fn caption(ids: &[u32]) -> Tokens {
        let mut tokens = Tokens { ends: true, ..Tokens::default() };
        tokens.push(ids, true);
        tokens
    }

    fn rows(texts: &[Tokens], context: usize, normalise: Normalise) -> Rows {
        Rows::new(&texts.iter().collect::<Vec<_>>(), 4, context, 9, normalise)
    }

    #[test]
    fn targets_are_the_captions_and_one_end_each() {
        let texts = [caption(&[5, 6, 7]), caption(&[8])];
        let ours = rows(&texts, 32, Normalise::Step);
        assert_eq!((ours.ids, ours.longest, ours.lengths), (vec![5, 6, 7, 8, 9, 9], 3, vec![3, 1]));
        assert_eq!(ours.positions, [(0, 3), (0, 4), (0, 5), (0, 6), (1, 3), (1, 4)]);
        assert_eq!(ours.targets, [5, 6, 7, 9, 8, 9]);
        let original = rows(&texts, 32, Normalise::Original { micro_batches: 1 });
        assert_eq!(original.targets, [5, 6, 7, 8, 9]);
        assert_eq!(original.positions, [(0, 3), (0, 4), (0, 5), (1, 3), (1, 4)]);
    }

    #[test]
    fn a_caption_beyond_the_context_is_cut_and_does_not_end() {
        let cut = rows(&[caption(&[1, 2, 3, 4]), caption(&[5, 6])], 6, Normalise::Step);
        assert_eq!((cut.lengths.as_slice(), cut.targets.as_slice()), (&[2, 2][..], &[1, 2, 5, 6, 9][..]));
        assert!(cut.positions.iter().all(|(_, at)| *at < 6));
    }

    #[test]
    fn of_a_conversation_the_answers_alone_are_targets() {
        // Question 1, 2, the image, question 3; answer 4 and its end 9; question 5, answer 6.
        let mut talk = Tokens { ends: true, before: 2, ..Tokens::default() };
        for (ids, learned) in [(&[1, 2, 3][..], false), (&[4, 9], true), (&[5], false), (&[6], true)] {
            talk.push(ids, learned);
        }
        let laid = rows(&[talk, caption(&[7])], 32, Normalise::Step);
        // 1 2 K K K K 3 4 9 5 6: 4 stands at position 7.
        assert_eq!(laid.positions, [(0, 6), (0, 7), (0, 9), (0, 10), (1, 3), (1, 4)]);
        assert_eq!(laid.targets, [4, 9, 6, 9, 7, 9]);
        let numbers = |n: usize, first: f32| -> Vec<f32> { (0..n).map(|i| first + i as f32).collect() };
        let prefix = Tensor::from_vec(numbers(8, 100.0), (2, 4, 1), &Device::Cpu).unwrap();
        let embeds = Tensor::from_vec(numbers(14, 1.0), (2, 7, 1), &Device::Cpu).unwrap();
        let all = laid.around(&prefix, &embeds).unwrap().squeeze(2).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(all[0], [1.0, 2.0, 100.0, 101.0, 102.0, 103.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(all[1][..6], [104.0, 105.0, 106.0, 107.0, 8.0, 9.0]);
        // A question that fills the context leaves nothing to learn.
        assert!(
            rows(&[Tokens { ids: vec![1; 40], learned: vec![false; 40], before: 2, ends: true }], 32, Normalise::Step)
                .targets
                .is_empty()
        );
    }
}
