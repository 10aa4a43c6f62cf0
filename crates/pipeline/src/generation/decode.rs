//! Continuous batching: sequences of different lengths in one batch, each stopping at its own end of sequence.
//!
//! All sequences share every read of the weights. One that finishes leaves the batch, and a waiting prompt is admitted;
//! a prefix that prompts have in common goes through the decoder once.

use super::request::Request;
use super::sampler::{Sampler, log_softmax};
use super::shared::{self, Kept};
use super::stop::{Stop, StopWatch};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use limber_core::{Decoder, DecoderCache, Run};
use limber_text::Tokenizer;
use serde::Serialize;
use std::time::Instant;

/// Why a sequence stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finish {
    /// At its end of sequence, which is not among its tokens.
    Eos,
    /// At `max_tokens`.
    Length,
    /// Before a stop string, which is not in its text.
    Stop,
}

impl Finish {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Finish::Eos => "eos",
            Finish::Length => "length",
            Finish::Stop => "stop",
        }
    }
}

/// What one sequence gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The new ids, without the end of sequence, up to the one in which a stop string begins.
    pub tokens: Vec<u32>,
    /// Log-probability of each id, over the whole vocabulary at temperature 1.
    pub logprobs: Vec<f32>,
    /// Why it stopped.
    pub finish: Finish,
    /// Bytes of the text of its ids that go before a stop string; None where it ended otherwise.
    pub stopped_at: Option<usize>,
    /// Seconds it was in the decoder, with the sequences beside it.
    pub timing: Timing,
}

impl Generation {
    /// The text up to its end, without white space around it.
    ///
    /// # Errors
    /// An id that the tokenizer cannot decode.
    pub fn text(&self, tokenizer: &Tokenizer) -> Result<String> {
        Ok(self.whole_text(tokenizer)?.trim().to_string())
    }

    /// The text up to its end, white space included.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub fn whole_text(&self, tokenizer: &Tokenizer) -> Result<String> {
        let mut text = tokenizer.decode(&self.tokens, true)?;
        if let Some(at) = self.stopped_at {
            text.truncate(at);
        }
        Ok(text)
    }
}

/// Seconds of a sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timing {
    /// Its prompt through the decoder once, with those admitted at the same time.
    pub prefill_s: f64,
    /// All further tokens.
    pub decode_s: f64,
}

/// Where prompts come from and where texts go.
pub trait RequestSource {
    /// Up to `n` further prompts, each `[1, T, D]` f32, T its own; fewer than `n` where no more are left.
    ///
    /// # Errors
    /// Whatever stops the run.
    fn prompts(&mut self, n: usize) -> Result<Vec<Tensor>>;

    /// The stream of random numbers of a sequence, counted over the run: a run that resumes another says which sequence
    /// of the whole it is.
    fn stream(&self, sequence: usize) -> u64 {
        sequence as u64
    }

    /// A sequence, counted over the run, has a new id.
    ///
    /// # Errors
    /// Whatever stops the run.
    fn token(&mut self, _sequence: usize, _id: u32) -> Result<()> {
        Ok(())
    }

    /// A sequence has finished; they finish in any order.
    ///
    /// # Errors
    /// Whatever stops the run.
    fn done(&mut self, sequence: usize, generation: Generation) -> Result<()>;
}

/// One sequence of the batch.
struct Sequence<'a> {
    number: usize,
    sampler: Sampler,
    watch: Option<StopWatch<'a>>,
    next: u32,
    since: Instant,
    generation: Generation,
}

/// Generates text for every prompt of `source`.
///
/// # Errors
/// A prompt and new tokens beyond the context length; what the decoder or the source report.
pub fn run(decoder: &dyn Decoder, request: &Request, source: &mut dyn RequestSource) -> Result<()> {
    request.sampling.check()?;
    if request.max_tokens == 0 {
        bail!("max-tokens 0 is not allowed, it is 1 or above")
    }
    let batch = request.batch.max(1);
    let mut cache: Option<Box<dyn DecoderCache>> = None;
    let mut kept = Kept::default();
    let mut sequences: Vec<Sequence<'_>> = Vec::new();
    let mut device = Device::Cpu;
    let (mut admitted, mut waiting) = (0, true);
    loop {
        if waiting && sequences.len() < batch {
            let wanted = batch - sequences.len();
            let prompts = source.prompts(wanted)?;
            waiting = prompts.len() == wanted;
            if let Some(first) = prompts.first() {
                device = first.device().clone();
                let (mut new_sequences, mut new, logits) =
                    admit(decoder, &prompts, request, &mut kept, &|at| (admitted + at, source.stream(admitted + at)))?;
                admitted += prompts.len();
                step(&mut new_sequences, new.as_mut(), &logits, request, source)?;
                match &mut cache {
                    Some(cache) => cache.push_sequences(new.as_ref())?,
                    None => cache = Some(new),
                }
                sequences.append(&mut new_sequences);
            }
        }
        if sequences.is_empty() {
            if waiting {
                continue;
            }
            return Ok(());
        }
        let Some(cache) = cache.as_deref_mut() else { bail!("sequences without a cache") };
        let ids: Vec<u32> = sequences.iter().map(|sequence| sequence.next).collect();
        let ids = Tensor::from_vec(ids, (sequences.len(), 1), &device)?;
        let logits = decoder.forward(&decoder.embed(&ids)?, &mut Run::cached(cache))?;
        step(&mut sequences, cache, &logits, request, source)?;
    }
}

/// New sequences with their cache and the logits after their prompts; `slot` tells a sequence's number and its random
/// stream.
fn admit<'a>(
    decoder: &dyn Decoder,
    prompts: &[Tensor],
    request: &'a Request<'_>,
    kept: &mut Kept,
    slot: &dyn Fn(usize) -> (usize, u64),
) -> Result<(Vec<Sequence<'a>>, Box<dyn DecoderCache>, Tensor)> {
    let start = Instant::now();
    let capacity = capacity(decoder, prompts, request)?;
    let (cache, logits) =
        shared::prefill(decoder, prompts, capacity, request.cache, kept).context("the prompt could not be read")?;
    let timing = Timing { prefill_s: start.elapsed().as_secs_f64(), decode_s: 0.0 };
    let sequence = |at| {
        let (number, stream) = slot(at);
        let sampler = Sampler::new(request.sampling, request.limit, request.seed, stream);
        let generation =
            Generation { tokens: vec![], logprobs: vec![], finish: Finish::Length, stopped_at: None, timing };
        let watch = request.stop.as_ref().and_then(Stop::watch);
        Sequence { number, sampler, watch, next: 0, since: Instant::now(), generation }
    };
    Ok(((0..prompts.len()).map(sequence).collect(), cache, logits))
}

/// Draws the next id of every sequence from logits `[B, V]`; finished sequences leave, the last ones moving into the
/// gaps.
fn step(
    sequences: &mut Vec<Sequence<'_>>,
    cache: &mut dyn DecoderCache,
    logits: &Tensor,
    request: &Request,
    source: &mut dyn RequestSource,
) -> Result<()> {
    let table = logits.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
    let mut ended = Vec::new();
    for (at, (sequence, values)) in sequences.iter_mut().zip(&table).enumerate() {
        let position = sequence.generation.tokens.len() + 1;
        let location = || format!("sequence {}, new token {position}", sequence.number);
        let id = sequence.sampler.sample(values).with_context(location)?;
        if request.eos.contains(&id) {
            sequence.generation.finish = Finish::Eos;
            ended.push(at);
            continue;
        }
        if request.stop.as_ref().is_some_and(|stop| stop.is_id(id)) {
            sequence.generation.finish = Finish::Stop;
            ended.push(at);
            continue;
        }
        sequence.generation.tokens.push(id);
        sequence.generation.logprobs.push(log_softmax(values, id).with_context(location)?);
        sequence.next = id;
        source.token(sequence.number, id)?;
        if let Some(watch) = &mut sequence.watch
            && let Some(cut) = watch.push(id)?
        {
            let generation = &mut sequence.generation;
            generation.tokens.truncate(cut.tokens);
            generation.logprobs.truncate(cut.tokens);
            (generation.finish, generation.stopped_at) = (Finish::Stop, Some(cut.bytes));
            ended.push(at);
        } else if position == request.max_tokens {
            ended.push(at);
        }
    }
    if ended.is_empty() {
        return Ok(());
    }
    let mut stay: Vec<usize> = (0..sequences.len()).collect();
    for at in ended.into_iter().rev() {
        let mut sequence = sequences.swap_remove(at);
        stay.swap_remove(at);
        sequence.generation.timing.decode_s = sequence.since.elapsed().as_secs_f64();
        source.done(sequence.number, sequence.generation)?;
    }
    cache.select_sequences(&stay)?;
    Ok(())
}

/// Positions that a cache for these prompts needs.
fn capacity(decoder: &dyn Decoder, prompts: &[Tensor], request: &Request) -> Result<usize> {
    let context = decoder.spec().context;
    let mut longest = 0;
    for prompt in prompts {
        longest = longest.max(prompt.dim(1)?);
    }
    let positions = longest.saturating_add(request.max_tokens);
    if positions > context {
        bail!(
            "a prompt of {longest} positions (prefix and text) and {} new tokens are {positions} positions; the decoder's context length allows {context}",
            request.max_tokens,
        )
    }
    // The last token is never fed back, so it needs no position.
    Ok(positions - 1)
}

/// Generates text for `prompts`, each `[1, T, D]` f32, all of them in one batch. `token` hears of every new id:
/// (sequence, id).
///
/// # Errors
/// As [`run`].
pub fn generate(
    decoder: &dyn Decoder,
    prompts: &[Tensor],
    request: &Request,
    token: &mut dyn FnMut(usize, u32) -> Result<()>,
) -> Result<Vec<Generation>> {
    struct List<'a> {
        left: &'a [Tensor],
        token: &'a mut dyn FnMut(usize, u32) -> Result<()>,
        done: Vec<Option<Generation>>,
    }
    impl RequestSource for List<'_> {
        fn prompts(&mut self, n: usize) -> Result<Vec<Tensor>> {
            let (now, later) = self.left.split_at(n.min(self.left.len()));
            self.left = later;
            Ok(now.to_vec())
        }
        fn token(&mut self, sequence: usize, id: u32) -> Result<()> {
            (self.token)(sequence, id)
        }
        fn done(&mut self, sequence: usize, generation: Generation) -> Result<()> {
            self.done[sequence] = Some(generation);
            Ok(())
        }
    }
    let mut list = List { left: prompts, token, done: vec![None; prompts.len()] };
    run(decoder, request, &mut list)?;
    list.done.into_iter().map(|sequence| sequence.context("a sequence did not finish")).collect()
}
