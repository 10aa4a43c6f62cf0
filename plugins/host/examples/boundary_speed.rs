//! What the plugin boundary costs: RN50x16's encode compiled in and through a library, turn by turn.
//!
//! `cargo build --release --workspace --examples`, then `target/release/examples/boundary_speed [ROUNDS]`. Prints
//! seconds of each (the least and the median) and the ratio of medians.

use anyhow::{Context, Result};
use candle_core::Tensor;
use limber_core::{Encoder, Init, Registry, Weights};
use limber_encoder_clip_resnet as _;
use std::time::Instant;

fn encoder(registry: &Registry) -> Result<Box<dyn Encoder>> {
    let weights = Weights::random(1);
    let settings = serde_json::from_str(r#"{"model": "RN50x16"}"#)?;
    registry.encoder("clip-resnet", settings, weights.source().as_ref())?.build(&weights)
}

fn main() -> Result<()> {
    let rounds: usize = std::env::args().nth(1).map_or(Ok(12), |text| text.parse())?;
    let name = format!("{}built_in_components{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let path = std::env::current_exe()?.parent().context("a folder")?.join(name);
    let mut loaded = Registry::new();
    limber_plugin_host::open(&path, None)?.register(&mut loaded)?;
    let sides = [("compiled in", encoder(&Registry::from_inventory()?)?), ("library", encoder(&loaded)?)];
    let side = sides[0].1.input_spec().image().context("an image encoder")?.side;
    let pixels: Tensor = Weights::random(2).tensor("pixels", &[1, 3, side, side], Init::normal(1.0))?;
    let mut seconds = [Vec::new(), Vec::new()];
    let mut features = Vec::new();
    for round in 0..=rounds {
        for turn in 0..2 {
            // Whoever goes first goes second next time.
            let which = (turn + round) % 2;
            let start = Instant::now();
            let output = sides[which].1.encode(&pixels)?;
            if round > 0 {
                seconds[which].push(start.elapsed().as_secs_f64());
            } else {
                features.push(output.flatten_all()?.to_vec1::<f32>()?);
            }
        }
    }
    anyhow::ensure!(features[0] == features[1], "the two sides give different features");
    let median: Vec<f64> = seconds
        .iter_mut()
        .map(|list| {
            list.sort_by(f64::total_cmp);
            list[list.len() / 2]
        })
        .collect();
    for (i, (name, _)) in sides.iter().enumerate() {
        println!("{name:12} least {:.4} s, median {:.4} s", seconds[i][0], median[i]);
    }
    println!("the boundary costs {:+.2} % of RN50x16's encode", 100.0 * (median[1] / median[0] - 1.0));
    Ok(())
}
