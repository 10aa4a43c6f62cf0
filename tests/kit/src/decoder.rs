//! The contract of `Decoder` without a cache: specs, shapes, causality, masks, taps, gradients.

use crate::lively;
use crate::report::Report;
use crate::values::{close, difference, has_shape, noise, refused, same, values};
use crate::{cached, gradient, settings};
use anyhow::{Result, bail, ensure};
use candle_core::{DType, Device, Tensor, Var};
use limber_core::registry::{Entry, Maker};
use limber_core::{Backend, CacheOptions, Checkpointing, Decoder, DecoderSpec, LogitPositions, Run};

/// Longest context of a tiny preset; the suite fills it.
const LONGEST: usize = 512;
/// Positions of most checks.
pub(crate) const T: usize = 6;

/// Checks a decoder: specs, shapes, causality, cache, masks, taps, gradients, refusals.
pub fn check_decoder(entry: &Entry) -> Report {
    let mut report = Report::new(entry);
    let Maker::Decoder(prepare) = &entry.maker else {
        report.check("is a decoder", || bail!("it is registered as {}", entry.maker.role()));
        return report;
    };
    let source = lively::lively(1);
    settings::check(&mut report, entry, |settings| prepare(settings, source.as_ref()));
    let build = || -> Result<_> {
        let prepared = prepare(entry.tiny.clone(), source.as_ref())?;
        Ok((prepared.spec.clone(), prepared.build(&lively::weights(1))?))
    };
    let Some((spec, decoder)) = report.get("builds from its tiny settings with random weights", build) else {
        return report;
    };
    let decoder: &dyn Decoder = decoder.as_ref();

    let sound = report.get("the spec is sound, and the same before and after the weights", || {
        let DecoderSpec { width, vocab, layers, kv_heads, head_dim, context, ref eos } = spec;
        ensure!(decoder.spec() == spec, "spec {spec:?} became {:?}", decoder.spec());
        let sizes = [width, vocab, layers, kv_heads, head_dim];
        ensure!(sizes.iter().all(|size| *size > 0), "spec {spec:?} has a size of 0");
        ensure!((2 * T..=LONGEST).contains(&context), "a tiny context of {context}, expected {}..={LONGEST}", 2 * T);
        ensure!(
            eos.iter().all(|id| (*id as usize) < vocab),
            "end-of-sequence ids {eos:?} lie beyond the vocabulary of {vocab} entries"
        );
        Ok(())
    });
    if sound.is_none() {
        return report;
    }
    embeddings(&mut report, decoder, &spec);
    logits(&mut report, decoder, &spec);
    report.check("the same embeddings give the same logits, built again too", || {
        let embeds = embeds(decoder, 2, T)?;
        let first = decoder.forward(&embeds, &mut Run::new())?;
        same("second call", &first, &decoder.forward(&embeds, &mut Run::new())?)?;
        same("second build", &first, &build()?.1.forward(&embeds, &mut Run::new())?)
    });
    visibility(&mut report, decoder);
    taps(&mut report, decoder, &spec);
    gradients(&mut report, decoder);
    refusals(&mut report, decoder, &spec);
    cached::check(&mut report, decoder, &spec);
    report.check("candle's operations give what the kernels give, as on an accelerator", || {
        let candles =
            prepare(entry.tiny.clone(), source.as_ref())?.build(&lively::weights(1).with_backend(Backend::Candle))?;
        backends(decoder, candles.as_ref())
    });
    report
}

/// Logits at once and over a cache, and gradients under every kind of checkpointing, of one decoder on two backends.
fn backends(kernels: &dyn Decoder, candles: &dyn Decoder) -> Result<()> {
    let x = embeds(kernels, 2, T)?;
    let all = kernels.forward(&x, &mut Run::new())?;
    close("logits", &candles.forward(&x, &mut Run::new())?, &all)?;
    let mut cache = candles.new_cache(&CacheOptions::new(2, T))?;
    for (from, count) in [(0, 3), (3, 1), (4, T - 4)] {
        let mut run = Run { logits: LogitPositions::All, ..Run::cached(cache.as_mut()) };
        let step = candles.forward(&x.narrow(1, from, count)?, &mut run)?;
        close("logits over a cache", &step, &all.narrow(1, from, count)?)?;
    }
    let x = Var::from_tensor(&x)?;
    for checkpointing in [Checkpointing::None, Checkpointing::Full, Checkpointing::Selective] {
        let gradient = |decoder: &dyn Decoder| -> Result<Tensor> {
            let (lengths, logits) = (Some(vec![T, T - 2]), LogitPositions::At(vec![(1, 0), (0, T - 1)]));
            let mut run = Run { lengths, logits, checkpointing, ..Run::new() };
            let loss = decoder.forward(x.as_tensor(), &mut run)?.sqr()?.sum_all()?;
            let mut grads = loss.backward()?;
            grads.remove(x.as_tensor()).ok_or_else(|| anyhow::anyhow!("no gradient reaches the embeddings"))
        };
        close(&format!("gradient, {checkpointing:?}"), &gradient(candles)?, &gradient(kernels)?)?;
    }
    Ok(())
}

/// Ids that differ from row to row and position to position, as far as V allows.
pub(crate) fn ids(decoder: &dyn Decoder, b: usize, t: usize) -> Result<Tensor> {
    let vocab = decoder.spec().vocab;
    let ids: Vec<u32> = (0..b * t).map(|i| ((7 * i + i / 3 + 1) % vocab) as u32).collect();
    Ok(Tensor::from_vec(ids, (b, t), &Device::Cpu)?)
}

/// Embeddings of such ids, each moved by a little noise of its own size, so that no two positions are equal.
pub(crate) fn embeds(decoder: &dyn Decoder, b: usize, t: usize) -> Result<Tensor> {
    let embeds = decoder.embed(&ids(decoder, b, t)?)?;
    let all = values(&embeds)?;
    let size = (all.iter().map(|v| v * v).sum::<f64>() / all.len() as f64).sqrt().max(1e-3);
    Ok(embeds.add(&noise(embeds.dims(), 11)?.affine(0.3 * size, 0.0)?)?.detach())
}

/// The same embeddings, with other values at position `at` of every row.
fn changed(embeds: &Tensor, at: usize) -> Result<Tensor> {
    let (b, t, d) = embeds.dims3()?;
    let window: Vec<f32> = (0..t).map(|i| if i == at { 1.0 } else { 0.0 }).collect();
    let window = Tensor::from_vec(window, (1, t, 1), &Device::Cpu)?.broadcast_as((b, t, d))?;
    let scale = values(embeds)?.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    Ok(embeds.add(&noise(embeds.dims(), 12)?.affine(scale, 0.0)?.mul(&window)?)?)
}

fn embeddings(report: &mut Report, decoder: &dyn Decoder, spec: &DecoderSpec) {
    report.check("embeddings have the shape of the spec, f32 and finite", || {
        has_shape("embeddings", &decoder.embed(&ids(decoder, 2, T)?)?, &[2, T, spec.width])?;
        let twice = decoder.embed(&Tensor::new(&[[1u32, 0, 1]], &Device::Cpu)?)?;
        same("one id at two positions", &twice.narrow(1, 0, 1)?, &twice.narrow(1, 2, 1)?)?;
        decoder.embed(&Tensor::new(&[[spec.vocab as u32 - 1]], &Device::Cpu)?)?;
        Ok(())
    });
    report.check("ids outside the vocabulary are an error", || {
        for id in [spec.vocab as u32, u32::MAX] {
            refused(&format!("id {id} of {}", spec.vocab), decoder.embed(&Tensor::new(&[[0, id]], &Device::Cpu)?))?;
        }
        Ok(())
    });
}

fn logits(report: &mut Report, decoder: &dyn Decoder, spec: &DecoderSpec) {
    let forward = |embeds: &Tensor, logits, lengths: Option<Vec<usize>>| {
        decoder.forward(embeds, &mut Run { logits, lengths, ..Run::new() })
    };
    report.check("logits have the shape of the spec and of the positions asked for", || {
        let embeds = embeds(decoder, 2, T)?;
        let all = forward(&embeds, LogitPositions::All, None)?;
        has_shape("logits", &all, &[2, T, spec.vocab])?;
        let last = forward(&embeds, LogitPositions::Last, Some(vec![T, 2]))?;
        has_shape("last logits", &last, &[2, spec.vocab])?;
        close("last of a full row", &last.get(0)?, &all.get(0)?.get(T - 1)?)?;
        close("last of a row of 2", &last.get(1)?, &all.get(1)?.get(1)?)?;
        let at = forward(&embeds, LogitPositions::At(vec![(1, 0), (0, 3), (0, 3)]), None)?;
        has_shape("listed logits", &at, &[3, spec.vocab])?;
        close("listed (1, 0)", &at.get(0)?, &all.get(1)?.get(0)?)?;
        close("listed (0, 3)", &at.get(2)?, &all.get(0)?.get(3)?)?;
        has_shape("hidden states", &forward(&embeds, LogitPositions::Hidden, None)?, &[2, T, spec.width])
    });
    report.check("a batch gives what its rows give alone, padded or not", || {
        let embeds = embeds(decoder, 3, T)?;
        let lengths = [T, 1, 4];
        let batch = forward(&embeds, LogitPositions::All, Some(lengths.to_vec()))?;
        for (row, length) in lengths.into_iter().enumerate() {
            let single = forward(&embeds.narrow(0, row, 1)?.narrow(1, 0, length)?, LogitPositions::All, None)?;
            let valid = batch.narrow(0, row, 1)?.narrow(1, 0, length)?;
            close(&format!("row {row} of {length} positions"), &valid, &single)?;
        }
        Ok(())
    });
}

fn visibility(report: &mut Report, decoder: &dyn Decoder) {
    report.check("a position sees earlier positions and no later one", || {
        let embeds = embeds(decoder, 2, T)?;
        let before = decoder.forward(&embeds, &mut Run::new())?;
        let after = decoder.forward(&changed(&embeds, 3)?, &mut Run::new())?;
        close("logits before the changed position", &before.narrow(1, 0, 3)?, &after.narrow(1, 0, 3)?)?;
        for at in 3..T {
            let apart = difference(&before.narrow(1, at, 1)?, &after.narrow(1, at, 1)?)?;
            ensure!(apart > 0.0, "position {at} does not see a change at position 3");
        }
        Ok(())
    });
    report.check("a key that the mask hides is not seen", || {
        let embeds = embeds(decoder, 2, T)?;
        let mut mask = vec![1u8; 2 * T];
        mask[1] = 0;
        let mask = Tensor::from_vec(mask, (2, T), &Device::Cpu)?;
        let run = |embeds: &Tensor| decoder.forward(embeds, &mut Run { mask: Some(mask.clone()), ..Run::new() });
        let (before, after) = (run(&embeds)?, run(&changed(&embeds, 1)?)?);
        let tail = |x: &Tensor, row| -> Result<Tensor> { Ok(x.narrow(0, row, 1)?.narrow(1, 2, T - 2)?) };
        close("row 0, position 1 hidden", &tail(&before, 0)?, &tail(&after, 0)?)?;
        ensure!(
            difference(&tail(&before, 1)?, &tail(&after, 1)?)? > 0.0,
            "row 1, where nothing is hidden, sees no change"
        );
        let mut short = Run { mask: Some(mask.narrow(1, 0, T - 1)?), ..Run::new() };
        refused("a mask of T - 1 keys", decoder.forward(&embeds, &mut short))
    });
}

fn taps(report: &mut Report, decoder: &dyn Decoder, spec: &DecoderSpec) {
    report.check("taps have L + 1 hidden states and L attentions of their shapes", || {
        let embeds = embeds(decoder, 2, T)?;
        let mut run = Run { logits: LogitPositions::Hidden, ..Run::new() };
        (run.taps.want_hidden, run.taps.want_attention) = (true, true);
        let last = decoder.forward(&embeds, &mut run)?;
        let (hidden, attention) = (&run.taps.hidden, &run.taps.attention);
        ensure!(hidden.len() == spec.layers + 1, "{} hidden states for {} layers", hidden.len(), spec.layers);
        ensure!(attention.len() == spec.layers, "{} attentions for {} layers", attention.len(), spec.layers);
        for state in hidden {
            has_shape("hidden states", state, &[2, T, spec.width])?;
        }
        close("the last tap and the hidden states", &hidden[spec.layers], &last)?;
        for probabilities in attention {
            let heads = probabilities.dims().get(1).copied().unwrap_or(0);
            ensure!(heads > 0 && heads % spec.kv_heads == 0, "{heads} attention heads over {} of keys", spec.kv_heads);
            has_shape("attentions", probabilities, &[2, heads, T, T])?;
            let sums = probabilities.sum(3)?;
            close("sums of attention", &sums, &sums.ones_like()?)?;
        }
        Ok(())
    });
}

fn gradients(report: &mut Report, decoder: &dyn Decoder) {
    let forward = |embeds: &Tensor, logits| decoder.forward(embeds, &mut Run { logits, ..Run::new() });
    report.check("the gradient reaches the embeddings and equals finite differences", || {
        let embeds = Var::from_tensor(&embeds(decoder, 2, T)?)?;
        gradient::check("the embeddings", &embeds, None, &|| forward(&embeds, LogitPositions::All))
    });
    report.check("the gradient reaches earlier positions through attention", || {
        let embeds = Var::from_tensor(&embeds(decoder, 2, T)?)?;
        // Of the last position's logits, for all embeddings but the last: the prefix of a stitch is trained this way.
        let window: Vec<f32> = (0..T).map(|i| if i + 1 < T { 1.0 } else { 0.0 }).collect();
        let window = Tensor::from_vec(window, (1, T, 1), &Device::Cpu)?.broadcast_as(embeds.dims())?.contiguous()?;
        gradient::check("earlier embeddings", &embeds, Some(&window), &|| forward(&embeds, LogitPositions::Last))
    });
    report.check("activation checkpointing gives the same gradient", || {
        let embeds = Var::from_tensor(&embeds(decoder, 2, T)?)?;
        let gradient = |logits: &LogitPositions, checkpointing: Checkpointing| -> Result<Tensor> {
            let (lengths, logits) = (Some(vec![T, T - 2]), logits.clone());
            let mut run = Run { lengths, logits, checkpointing, ..Run::new() };
            let loss = decoder.forward(embeds.as_tensor(), &mut run)?.sqr()?.sum_all()?;
            match loss.backward()?.remove(embeds.as_tensor()) {
                Some(gradient) => Ok(gradient),
                None => bail!("no gradient reaches the embeddings"),
            }
        };
        // At some positions, twice at one of them: a last block may leave the others out.
        for logits in [LogitPositions::All, LogitPositions::At(vec![(1, 0), (0, T - 1), (0, T - 1)])] {
            let whole = gradient(&logits, Checkpointing::None)?;
            close("gradient, full checkpointing", &gradient(&logits, Checkpointing::Full)?, &whole)?;
            close("gradient, selective checkpointing", &gradient(&logits, Checkpointing::Selective)?, &whole)?;
        }
        Ok(())
    });
}

fn refusals(report: &mut Report, decoder: &dyn Decoder, spec: &DecoderSpec) {
    let d = spec.width;
    report.check("embeddings and runs of another shape are an error", || {
        for shape in [&[1, T, d + 1][..], &[T, d], &[1, 0, d]] {
            let embeds = Tensor::zeros(shape, DType::F32, &Device::Cpu)?;
            refused(&format!("shape {shape:?}"), decoder.forward(&embeds, &mut Run::new()))?;
        }
        let embeds = embeds(decoder, 2, T)?;
        for lengths in [vec![T], vec![T, T + 1], vec![0, T]] {
            let what = format!("lengths {lengths:?} for 2 rows of {T}");
            refused(&what, decoder.forward(&embeds, &mut Run { lengths: Some(lengths), ..Run::new() }))?;
        }
        for at in [(2, 0), (0, T)] {
            let logits = LogitPositions::At(vec![at]);
            refused(&format!("position {at:?}"), decoder.forward(&embeds, &mut Run { logits, ..Run::new() }))?;
        }
        refused("ids of one dimension", decoder.embed(&Tensor::new(&[0u32], &Device::Cpu)?))
    });
    report.check("the context length can be filled, and not exceeded", || {
        has_shape(
            "logits",
            &decoder.forward(&embeds(decoder, 1, spec.context)?, &mut Run::new())?,
            &[1, spec.context, spec.vocab],
        )?;
        let more = spec.context + 1;
        refused(&format!("{more} positions"), decoder.forward(&embeds(decoder, 1, more)?, &mut Run::new()))?;
        refused(&format!("a cache of {more}"), decoder.new_cache(&CacheOptions::new(1, more)))
    });
}
