//! Encodes the pixels of a file once for every line of standard input and prints the seconds of each, so that a script
//! can let it take turns with a reference library: `benches/reference/encoders.py`.
//!
//! `encode_speed KIND SETTINGS WEIGHTS PIXELS OUT`: settings as JSON, weights as in a config, `pixels` [B,3,S,S] of a
//! safetensors file; at the end `features` [B,N,E] and `load_s` go to OUT.

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor, safetensors};
use limber_core::Weights;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, settings, weights, pixels, out] = words.as_slice() else {
        bail!("usage: encode_speed KIND SETTINGS WEIGHTS PIXELS OUT")
    };
    let start = Instant::now();
    let registry = limber_pipeline::built_in::registry()?;
    let files: Vec<&str> =
        registry.get(limber_core::registry::Role::Encoder, kind)?.files.iter().map(String::as_str).collect();
    let source = limber_weights::open(&weights.parse()?, &files, Path::new("."))?;
    let prepared = registry.encoder(kind, serde_json::from_str(settings)?, source.as_ref())?;
    let encoder = prepared.build(&Weights::new(source, Device::Cpu, None))?;
    let load = start.elapsed().as_secs_f32();
    let pixels = safetensors::load(pixels, &Device::Cpu)?.remove("pixels").context("no tensor named pixels")?;
    let mut features = encoder.encode(&pixels)?;
    println!("ready after {load:.3} s");
    for line in std::io::stdin().lines() {
        line?;
        let start = Instant::now();
        features = encoder.encode(&pixels)?;
        println!("{:.6}", start.elapsed().as_secs_f64());
        std::io::stdout().flush()?;
    }
    let load = Tensor::new(load, &Device::Cpu)?;
    safetensors::save(&HashMap::from([("features", features), ("load_s", load)]), out)?;
    Ok(())
}
