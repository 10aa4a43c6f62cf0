//! What a type of weights does to the next token's distribution, beside the same weights in f32.
//!
//! The f32 model writes texts greedily behind its prompts; every type then reads the same texts, and its distribution at
//! each position is compared: mean Kullback-Leibler divergence KL(f32 || type) in nats, and how often both have the same
//! likeliest token.

use super::decoder::{WORDS, name, no_room};
use super::{Components, Options};
use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, IndexOp, Tensor};
use limber_core::{Decoder, InputSpec, LogitPositions, Mode, Run, WeightType};
use limber_pipeline::generation::{Request, Sampling, generate};
use limber_world as world;
use serde::Serialize;

/// Prompts that are compared.
const PROMPTS: u64 = 16;

/// How one type compares: a line of `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quality {
    /// Always `quality`.
    pub stage: &'static str,
    /// The type of the decoder's weights.
    pub dtype: String,
    /// Positions compared.
    pub positions: usize,
    /// Mean KL(f32 || type) in nats.
    pub kl: f64,
    /// The greatest of them.
    pub max_kl: f64,
    /// Share of positions where both have the same likeliest token.
    pub top1: f64,
}

impl Quality {
    /// Measures every type of `options` but f32 on texts of up to `options.tokens` tokens.
    ///
    /// # Errors
    /// Memory that has no room for f32, what the components report.
    pub fn measure(
        components: &Components,
        options: &Options,
        out: &mut dyn FnMut(&Quality) -> Result<()>,
        note: &mut dyn FnMut(&str),
    ) -> Result<()> {
        options.check()?;
        let (work, spec) = components.decoder_work()?;
        if let Some(reason) = no_room(&work, Some(WeightType::F32)) {
            bail!("{reason}, and nothing can be compared without it; --layers takes fewer layers")
        }
        let decoder = components.decoder(Some(WeightType::F32))?;
        let mut texts = Vec::new();
        for index in 0..PROMPTS {
            // The words differ, so that the prompts do where the encoder takes no images.
            let mut words = WORDS.to_vec();
            words.push((4 + index as usize % spec.vocab.saturating_sub(4).max(1)) as u32);
            let words = if components.input.image().is_some() { &WORDS[..] } else { &words };
            let prompt = components.prompt(decoder.as_ref(), &prefix(components, index)?, words)?;
            let room = spec.context.saturating_sub(prompt.dim(1)?);
            let request = Request {
                max_tokens: options.tokens.min(room),
                sampling: Sampling::default(),
                seed: 0,
                limit: spec.vocab,
                eos: spec.eos.clone(),
                stop: None,
                batch: 1,
                cache: components.cache,
            };
            let written = generate(decoder.as_ref(), std::slice::from_ref(&prompt), &request, &mut |_, _| Ok(()))?;
            texts.push((prompt, written.into_iter().next().context("no text was written")?.tokens));
        }
        let expected = distributions(components, decoder.as_ref(), &texts)?;
        drop(decoder);
        for &dtype in options.dtypes.iter().filter(|dtype| **dtype != Some(WeightType::F32)) {
            if let Some(reason) = no_room(&work, dtype) {
                note(&reason);
                continue;
            }
            let decoder = components.decoder(dtype)?;
            out(&compare(name(dtype), &expected, &distributions(components, decoder.as_ref(), &texts)?))?;
        }
        Ok(())
    }
}

/// The prefix `[1, K, D]` of scene `index`, or of random features.
fn prefix(components: &Components, index: u64) -> Result<Tensor> {
    let features = match components.input {
        InputSpec::Image(_) => {
            // A seed that no recipe trains on.
            let options = world::Options { min_objects: 1, max_objects: 2 };
            let image = world::draw(&world::scene(90_002, index, &options), 64);
            components.encoder.encode(&components.preprocessor.pixels(&image)?.unsqueeze(0)?)?
        }
        InputSpec::Features => {
            let (n, e) = (components.features.tokens, components.features.width);
            let values = (0..n * e).map(|i| ((i as u64 * 7919 + index * 131) % 1009) as f32 / 504.5 - 1.0).collect();
            Tensor::from_vec::<_, f32>(values, (1, n, e), &components.device)?
        }
    };
    Ok(components.stitch.project(&features, Mode::Inference)?.detach())
}

/// Log-probabilities `[V]` at the last position of every prompt and at every token behind it.
fn distributions(
    components: &Components,
    decoder: &dyn Decoder,
    texts: &[(Tensor, Vec<u32>)],
) -> Result<Vec<Vec<f32>>> {
    let mut all = Vec::new();
    for (prompt, tokens) in texts {
        let (_, t, _) = prompt.dims3()?;
        let embeds = match tokens.as_slice() {
            [] => prompt.clone(),
            tokens => {
                let ids = Tensor::new(tokens, &components.device)?.unsqueeze(0)?;
                Tensor::cat(&[prompt, &decoder.embed(&ids)?], 1)?
            }
        };
        let wanted = (0..=tokens.len()).map(|i| (0, t - 1 + i)).collect();
        let mut run = Run { logits: LogitPositions::At(wanted), ..Run::new() };
        let logits = decoder.forward(&embeds.detach(), &mut run)?.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
        for row in 0..logits.dim(0)? {
            all.push(log_softmax(logits.i(row)?.to_vec1::<f32>()?));
        }
    }
    Ok(all)
}

fn log_softmax(mut logits: Vec<f32>) -> Vec<f32> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - top).exp()).sum();
    let shift = top + sum.ln() as f32;
    logits.iter_mut().for_each(|x| *x -= shift);
    logits
}

fn compare(dtype: String, expected: &[Vec<f32>], found: &[Vec<f32>]) -> Quality {
    let (mut sum, mut max, mut same) = (0.0, 0f64, 0);
    for (p, q) in expected.iter().zip(found) {
        let kl: f64 = p.iter().zip(q).map(|(p, q)| f64::from(*p).exp() * f64::from(p - q)).sum();
        // Rounding may leave a difference of nothing just below 0.
        let kl = kl.max(0.0);
        sum += kl;
        max = max.max(kl);
        same += usize::from(top(p) == top(q));
    }
    let n = expected.len().max(1) as f64;
    Quality { stage: "quality", dtype, positions: expected.len(), kl: sum / n, max_kl: max, top1: same as f64 / n }
}

fn top(values: &[f32]) -> Option<usize> {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_and_agreement_by_hand() {
        let p = log_softmax(vec![0.0, 0.0]);
        let q = log_softmax(vec![3f32.ln(), 0.0]);
        // KL((1/2, 1/2) || (3/4, 1/4)) = ln(2) - ln(3) / 2.
        let expected = 2f64.ln() - 3f64.ln() / 2.0;
        let quality = compare("q8_0".into(), &[p.clone(), q.clone()], &[q.clone(), q.clone()]);
        assert!((quality.kl - expected / 2.0).abs() < 1e-6 && (quality.max_kl - expected).abs() < 1e-6, "{quality:?}");
        // Of two equal ones the later counts as the likeliest.
        assert_eq!((quality.positions, quality.top1), (2, 0.5));
        let p = [p];
        let same = compare("f16".into(), &p, &p);
        assert_eq!((same.kl, same.top1), (0.0, 1.0));
    }
}
