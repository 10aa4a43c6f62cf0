//! The decoding loop: rows of different lengths in one batch, each stopping at its own end of sequence.

use super::sampler::{Sampler, Sampling, log_softmax};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use limber_core::{Decoder, Run};
use serde::Serialize;
use std::time::Instant;

/// What a batch of prompts asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Most new tokens of a row.
    pub max_tokens: usize,
    /// How ids are chosen.
    pub sampling: Sampling,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Number of the first row among all rows of the run, so that batches do not change what is drawn.
    pub first_row: u64,
    /// Ids from here on are never chosen.
    pub limit: usize,
    /// Ids that end a row.
    pub eos: Vec<u32>,
}

/// Why a row stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// At its end of sequence, which is not among its tokens.
    Eos,
    /// At `max_tokens`.
    Length,
}

/// What one row gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The new ids, without the end of sequence.
    pub tokens: Vec<u32>,
    /// Log-probability of each id, over the whole vocabulary at temperature 1.
    pub logprobs: Vec<f32>,
    /// Why it stopped.
    pub finish: Finish,
}

/// Seconds of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// All prompts through the decoder once.
    pub prefill_s: f64,
    /// All further tokens.
    pub decode_s: f64,
}

/// Generates text for `prompts`, each `[1, T, D]` f32, T its own. `token` hears of every new id: (row, id).
///
/// # Errors
/// A prompt and new tokens beyond the context length; what the decoder or `token` report.
pub fn generate(
    decoder: &dyn Decoder,
    prompts: &[Tensor],
    request: &Request,
    token: &mut dyn FnMut(usize, u32) -> Result<()>,
) -> Result<(Vec<Generation>, Timing)> {
    request.sampling.check()?;
    let spec = decoder.spec();
    let lengths: Vec<usize> = prompts.iter().map(|p| p.dim(1)).collect::<candle_core::Result<_>>()?;
    let Some(longest) = lengths.iter().max().copied() else { return Ok(Default::default()) };
    if longest + request.max_tokens > spec.context {
        bail!(
            "a prompt of {longest} positions (prefix and text) and {} new tokens are {} positions; the decoder's context length allows {}",
            request.max_tokens,
            longest + request.max_tokens,
            spec.context
        )
    }
    if request.max_tokens == 0 {
        bail!("max-tokens 0 is not allowed, it is 1 or above")
    }
    let mut done: Vec<Generation> =
        prompts.iter().map(|_| Generation { tokens: vec![], logprobs: vec![], finish: Finish::Length }).collect();
    let mut samplers: Vec<Sampler> = (0..prompts.len() as u64)
        .map(|row| Sampler::new(request.sampling, request.limit, request.seed, request.first_row + row))
        .collect();
    // The last token is never fed back, so it takes no place.
    let mut cache = decoder.new_cache(prompts.len(), longest + request.max_tokens - 1)?;
    let mut timing = Timing::default();
    let start = Instant::now();
    let mut run = Run::cached(&mut cache);
    run.lengths = Some(lengths);
    let mut logits = decoder.forward(&pad(prompts, longest)?, &mut run).context("the prompt could not be read")?;
    timing.prefill_s = start.elapsed().as_secs_f64();
    let start = Instant::now();
    // rows[i] is the prompt that row i of the batch belongs to; rows that end leave it.
    let mut rows: Vec<usize> = (0..prompts.len()).collect();
    for step in 1..=request.max_tokens {
        let table = logits.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
        let (mut stay, mut next) = (Vec::new(), Vec::new());
        for (at, values) in table.iter().enumerate() {
            let row = rows[at];
            let id = samplers[row].sample(values).with_context(|| format!("row {row}, new token {step}"))?;
            if request.eos.contains(&id) {
                done[row].finish = Finish::Eos;
                continue;
            }
            done[row].tokens.push(id);
            done[row].logprobs.push(log_softmax(values, id));
            token(row, id)?;
            stay.push(at);
            next.push(id);
        }
        if step == request.max_tokens || next.is_empty() {
            break;
        }
        if stay.len() < rows.len() {
            cache.select_rows(&stay)?;
            rows = stay.iter().map(|at| rows[*at]).collect();
        }
        let device = logits.device();
        let ids = Tensor::from_vec(next, (rows.len(), 1), device)?;
        logits = decoder.forward(&decoder.embed(&ids)?, &mut Run::cached(&mut cache))?;
    }
    timing.decode_s = start.elapsed().as_secs_f64();
    Ok((done, timing))
}

/// Prompts `[1, T, D]` as one `[B, longest, D]`, zeros behind the shorter ones.
fn pad(prompts: &[Tensor], longest: usize) -> candle_core::Result<Tensor> {
    let rows: Vec<Tensor> = prompts
        .iter()
        .map(|p| p.detach().pad_with_zeros(1, 0, longest - p.dim(1)?))
        .collect::<candle_core::Result<_>>()?;
    Tensor::cat(&rows, 0)
}
