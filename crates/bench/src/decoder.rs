//! The stages of the decoder, for each type of its weights: loading, the prompt once, and steps of several batches.

use super::work::DecoderWork;
use super::{Components, Line, Options, Probe, Runs, memory};
use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use limber_core::{CacheOptions, CacheType, Decoder, DecoderCache, DecoderSpec, Run, WeightType};
use limber_pipeline::generation::{Sampler, Sampling};
use std::time::Instant;

/// Words behind the prefix, as many as GPT-2's tokenizer makes of "A picture of".
pub(super) const WORDS: [u32; 3] = [1, 2, 3];

/// Measures every type that `options` asks for and that memory has room for.
pub(super) fn run(
    components: &Components,
    options: &Options,
    probe: &mut Option<Probe>,
    prefix: &Tensor,
    out: &mut dyn FnMut(&Line) -> Result<()>,
    note: &mut dyn FnMut(&str),
) -> Result<()> {
    let (work, spec) = components.decoder_work()?;
    let positions = prefix.dim(1)? + WORDS.len();
    let capacity = positions + options.tokens + 1;
    if capacity > spec.context {
        bail!(
            "a prefix of {} positions, {} words and {} tokens are more than the decoder's context length, which allows {}",
            prefix.dim(1)?,
            WORDS.len(),
            options.tokens + 1,
            spec.context
        )
    }
    for &dtype in &options.dtypes {
        if let Some(reason) = no_room(&work, dtype) {
            note(&reason);
            continue;
        }
        let bench = One { components, options, work: &work, spec: &spec, dtype, capacity };
        bench.run(probe, prefix, out)?;
    }
    Ok(())
}

/// Why a type is left out: what it copies does not fit in the memory that is left.
pub(super) fn no_room(work: &DecoderWork, dtype: Option<WeightType>) -> Option<String> {
    let (needed, available) = (work.copied(dtype), memory::available()?);
    (needed > available).then(|| {
        let gb = |n: u64| n as f64 / 1e9;
        let name = name(dtype);
        format!("{name}: its weights take {:.1} GB, {:.1} GB of memory are left; left out", gb(needed), gb(available))
    })
}

/// What a line calls a type.
pub(super) fn name(dtype: Option<WeightType>) -> String {
    dtype.map_or_else(|| "stored".to_string(), |dtype| dtype.name().to_string())
}

/// One type of weights.
struct One<'a> {
    components: &'a Components,
    options: &'a Options,
    work: &'a DecoderWork,
    spec: &'a DecoderSpec,
    dtype: Option<WeightType>,
    capacity: usize,
}

impl One<'_> {
    fn run(&self, probe: &mut Option<Probe>, prefix: &Tensor, out: &mut dyn FnMut(&Line) -> Result<()>) -> Result<()> {
        let device = &self.components.device;
        memory::reset_peak();
        let start = Instant::now();
        let decoder = self.components.decoder(self.dtype)?;
        device.synchronize()?;
        let load = self.line("load", 1, None, start.elapsed().as_secs_f64());
        out(&load.with_work(Some(self.work.size(self.dtype)), None, &[]))?;

        let prompt = self.components.prompt(decoder.as_ref(), prefix, &WORDS)?;
        let positions = prompt.dim(1)?;
        memory::reset_peak();
        let mut filled = None;
        let runs = Runs::of(self.options.repeats, device, probe, || {
            let options = CacheOptions::new(1, self.capacity).with_type(self.components.cache);
            let mut cache = decoder.new_cache(&options)?;
            let logits = decoder.forward(&prompt, &mut Run::cached(cache.as_mut()))?;
            filled = Some((cache, logits));
            Ok(())
        })?;
        let line = self.line("prefill", 1, Some(positions), runs.median());
        let (bytes, flops) = (self.work.bytes(self.dtype, 0, 0, 0), self.work.flops(1, 0, positions));
        out(&self.per_second(line, positions).with_work(Some(bytes), Some(flops), &runs.around))?;

        let Some((cache, logits)) = filled else { bail!("the prompt did not run") };
        for &batch in &self.options.batches {
            memory::reset_peak();
            let rows = cache.copy_sequences(&vec![0; batch], batch, self.capacity)?;
            let runs = self.steps(probe, decoder.as_ref(), rows, &logits, batch)?;
            let past = positions + 1 + self.options.tokens / 2;
            let line = self.line("decode", batch, Some(past), runs.median());
            let bytes = self.work.bytes(self.dtype, batch, past, size(self.components.cache));
            let flops = self.work.flops(batch, past, 1);
            out(&self.per_second(line, batch).with_work(Some(bytes), Some(flops), &runs.around))?;
        }
        Ok(())
    }

    /// Steps of `batch` rows: embedding, decoder, greedy choice.
    fn steps(
        &self,
        probe: &mut Option<Probe>,
        decoder: &dyn Decoder,
        mut cache: Box<dyn DecoderCache>,
        logits: &Tensor,
        batch: usize,
    ) -> Result<Runs> {
        let mut sampler = Sampler::new(Sampling::default(), self.spec.vocab, 0, 0);
        let mut choose = |logits: &Tensor| -> Result<Vec<u32>> {
            logits.to_device(&Device::Cpu)?.to_vec2::<f32>()?.iter().map(|row| sampler.sample(row)).collect()
        };
        let mut ids = vec![choose(logits)?[0]; batch];
        let mut step = || -> Result<f64> {
            let start = Instant::now();
            let last = Tensor::from_slice(&ids, (batch, 1), &self.components.device)?;
            let logits = decoder.forward(&decoder.embed(&last)?, &mut Run::cached(cache.as_mut()))?;
            ids = choose(&logits)?;
            Ok(start.elapsed().as_secs_f64())
        };
        step()?;
        let mut runs = Runs::default();
        for _ in 0..self.options.tokens {
            runs.add(probe, &mut step)?;
        }
        Ok(runs)
    }

    fn line(&self, stage: &'static str, batch: usize, positions: Option<usize>, seconds: f64) -> Line {
        Line {
            dtype: Some(name(self.dtype)),
            positions,
            peak_bytes: memory::peak(),
            ..Line::new(stage, batch, seconds)
        }
    }

    fn per_second(&self, line: Line, tokens: usize) -> Line {
        Line { tokens_per_s: Some(tokens as f64 / line.seconds), ..line }
    }
}

/// Bytes of a cached number.
fn size(cache: CacheType) -> usize {
    match cache {
        CacheType::F32 => 4,
        CacheType::F16 | CacheType::Bf16 => 2,
    }
}
