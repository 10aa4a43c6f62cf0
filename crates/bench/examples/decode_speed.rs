//! Runs one decoder for a script that lets it take turns with a reference library: `benches/reference/decoders.py`.
//!
//! `decode_speed KIND WEIGHTS DTYPE`, then a command a line, each answered by its seconds: `prefill T` is one prompt of T
//! positions, `decode B P` a step of B rows that have P positions behind them, `logits T FILE` a prompt whose last
//! logits `[1, V]` go to a safetensors file. The ids of a prompt are 7919 i modulo V.

use anyhow::{Result, bail};
use candle_core::{Device, Tensor, safetensors};
use limber_core::{CacheOptions, Decoder, DecoderCache, Run, WeightType, Weights};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, weights, dtype] = words.as_slice() else { bail!("usage: decode_speed KIND WEIGHTS DTYPE") };
    let Some(dtype) = WeightType::named(dtype) else { bail!("unknown dtype {dtype:?}") };
    let start = Instant::now();
    let registry = limber_pipeline::built_in::registry()?;
    let files: Vec<&str> =
        registry.get(limber_core::registry::Role::Decoder, kind)?.files.iter().map(String::as_str).collect();
    let source = limber_weights::open(&weights.parse()?, &files, Path::new("."))?;
    let prepared = registry.decoder(kind, serde_json::Value::Null, source.as_ref())?;
    let decoder = prepared.build(&Weights::new(source, Device::Cpu, Some(dtype)))?;
    println!("ready after {:.3} s", start.elapsed().as_secs_f64());
    let mut kept = None;
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let seconds = match words.as_slice() {
            ["prefill", t] => prefill(decoder.as_ref(), t.parse()?)?.0,
            ["logits", t, file] => {
                let (seconds, logits) = prefill(decoder.as_ref(), t.parse()?)?;
                safetensors::save(&HashMap::from([("logits", logits)]), file)?;
                seconds
            }
            ["decode", b, p] => step(decoder.as_ref(), b.parse()?, p.parse()?, &mut kept)?,
            _ => bail!("unknown command {line:?}"),
        };
        println!("{seconds:.6}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn embeds(decoder: &dyn Decoder, t: usize) -> Result<Tensor> {
    let vocab = decoder.spec().vocab;
    let ids: Vec<u32> = (0..t).map(|i| (7919 * i % vocab) as u32).collect();
    Ok(decoder.embed(&Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?)?)
}

fn prefill(decoder: &dyn Decoder, t: usize) -> Result<(f64, Tensor)> {
    let embeds = embeds(decoder, t)?;
    let start = Instant::now();
    let mut cache = decoder.new_cache(&CacheOptions::new(1, t))?;
    let logits = decoder.forward(&embeds, &mut Run::cached(cache.as_mut()))?;
    Ok((start.elapsed().as_secs_f64(), logits))
}

/// The rows and positions that a cache was filled for.
type Kept = Option<((usize, usize), Box<dyn DecoderCache>)>;

fn step(decoder: &dyn Decoder, b: usize, p: usize, kept: &mut Kept) -> Result<f64> {
    let mut cache = match kept.take() {
        Some((sizes, cache)) if sizes == (b, p) => cache,
        _ => {
            let mut one = decoder.new_cache(&CacheOptions::new(1, p))?;
            decoder.forward(&embeds(decoder, p)?, &mut Run::cached(one.as_mut()))?;
            one.copy_sequences(&vec![0; b], b, p + 1)?
        }
    };
    let ids = Tensor::full(1u32, (b, 1), &Device::Cpu)?;
    let start = Instant::now();
    decoder.forward(&decoder.embed(&ids)?, &mut Run::cached(cache.as_mut()))?;
    let seconds = start.elapsed().as_secs_f64();
    cache.truncate(p)?;
    *kept = Some(((b, p), cache));
    Ok(seconds)
}
