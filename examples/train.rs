//! Trains the demo's stitch from random for a few steps on drawn scenes: `cargo run --release --example train -- FOLDER`.

use limber::config::load_text;
use limber::train::{Event, Trainer};
use limber_world::{WorldOptions, write_dataset};
use std::path::PathBuf;

const CONFIG: &str = "
encoder: {kind: clip-resnet}
stitch: {kind: linear, dropout: 0.0, weights: 'random:1'}
decoder: {kind: gptj}
train: {steps: 5, batch: 8, lr: 4.0e-3, warmup: 2, output: run}
data: {format: magma, path: scenes}
";

fn main() -> limber::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or("runs/example".to_string()));
    write_dataset(&WorldOptions::new(64, 1, folder.join("scenes")), &mut |_| ())?;
    // Components without weights are the embedded demo's; paths count from the folder.
    let config = load_text("train.yaml", CONFIG, &folder, &[])?.config;
    let outcome = Trainer::new(config)?.run(|event| {
        if let Event::Step(record) = event {
            println!("step {}: loss {:.3}", record.step + 1, record.loss);
        }
    })?;
    println!("{}", outcome.stitch.unwrap_or_default().display());
    Ok(())
}
