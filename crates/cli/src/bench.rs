//! `limber bench`: speed of each stage relative to the measured roofline.

use super::options::Shared;
use super::output;
use anyhow::{Context, Result};
use clap::Args;
use limber_bench::{self as bench, Components, Line, Options, Quality};
use limber_core::WeightType;
use limber_pipeline::Depth;
use limber_pipeline::plugins;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    shared: Shared,
    /// Run only L layers of the decoder, with random weights in the sizes of the config
    #[arg(long, value_name = "L")]
    layers: Option<usize>,
    /// Batch sizes of the decoding stage, separated by commas
    #[arg(long, value_name = "B,...", value_delimiter = ',', default_value = "1,8,32")]
    batch: Vec<usize>,
    /// Number of decoding steps to time; with --quality, the maximum number of tokens of a text
    #[arg(long, value_name = "N", default_value_t = 16)]
    tokens: usize,
    /// Number of runs of every other stage; the median is reported
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeats: usize,
    /// Image file to decode [default: a generated scene of 512 pixels]
    #[arg(long, value_name = "IMAGE")]
    image: Option<PathBuf>,
    /// Compare next-token distributions of each weight type with those of f32 instead of measuring speed
    #[arg(long)]
    quality: bool,
}

/// What `--dtype` says beside the types: as the weights are stored.
const STORED: &str = "stored";

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut shared = arguments.shared.clone();
    let dtypes = shared.dtype.take();
    let mut config = shared.load(None)?;
    let registry = plugins::registry(&config)?;
    let device = limber_pipeline::device(config.device)?;
    let options = Options {
        dtypes: types(dtypes.as_deref(), device.is_cpu())?,
        batches: arguments.batch.clone(),
        tokens: arguments.tokens,
        repeats: arguments.repeats,
        image: match &arguments.image {
            Some(path) => Some(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?),
            None => None,
        },
    };
    options.check()?;
    match arguments.layers {
        Some(layers) => config = bench::reduced(&config, &registry, layers)?,
        None => shared.bring(&config, &registry, Depth::Text)?,
    }
    let components = Components::load(&config, registry)?;
    let (json, mut note) = (shared.json, |text: &str| output::note(text));
    if arguments.quality {
        if !json {
            output::line(&format!(
                "{:8} {:>9} {:>12} {:>12} {:>7}",
                "dtype", "positions", "mean KL", "max KL", "top-1"
            ))?;
        }
        return Quality::measure(
            &components,
            &options,
            &mut |q| if json { output::json(q) } else { quality(q) },
            &mut note,
        );
    }
    if !json {
        output::line(&row(&HEAD))?;
    }
    bench::run(
        &components,
        &options,
        &mut |line| if json { output::json(line) } else { output::line(&table(line)) },
        &mut note,
    )
}

/// The types asked for; by default all that the device supports.
fn types(text: Option<&str>, is_cpu: bool) -> Result<Vec<Option<WeightType>>> {
    let Some(text) = text else {
        return Ok(WeightType::ALL.into_iter().filter(|dtype| is_cpu || !dtype.is_quantised()).map(Some).collect());
    };
    let one = |name: &str| match name.parse::<WeightType>() {
        _ if name == STORED => Ok(None),
        Ok(dtype) => Ok(Some(dtype)),
        Err(error) => anyhow::bail!("--dtype: {error}, or {STORED}, several separated by commas"),
    };
    text.split(',').map(|name| one(name.trim())).collect()
}

fn quality(q: &Quality) -> Result<()> {
    output::line(&format!(
        "{:8} {:>9} {:>12.3e} {:>12.3e} {:>6.1}%",
        q.dtype,
        q.positions,
        q.kl,
        q.max_kl,
        100.0 * q.top1
    ))
}

const HEAD: [&str; 11] =
    ["stage", "dtype", "batch", "ms", "tokens/s", "MB", "GFLOP", "GB/s", "GFLOP/s", "share", "peak MB"];

fn row(cells: &[impl AsRef<str>; 11]) -> String {
    let widths = [8, 6, 5, 10, 9, 9, 9, 7, 8, 10, 8];
    let mut line = String::new();
    for (i, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let cell = cell.as_ref();
        // Words to the left, numbers to the right.
        line += &if i < 2 { format!("{cell:width$} ") } else { format!("{cell:>width$} ") };
    }
    line.trim_end().to_string()
}

fn table(line: &Line) -> String {
    let number = |value: Option<f64>, places: usize| value.map_or_else(String::new, |v| format!("{v:.places$}"));
    let mega = |value: Option<u64>| number(value.map(|v| v as f64 / 1e6), 1);
    let share = match (line.share, line.limit) {
        (Some(share), Some(limit)) => format!("{share:.2} {limit}"),
        _ => String::new(),
    };
    row(&[
        line.stage.to_string(),
        line.dtype.clone().unwrap_or_default(),
        line.batch.to_string(),
        format!("{:.3}", 1e3 * line.seconds),
        number(line.tokens_per_s, 1),
        mega(line.bytes),
        number(line.flops.map(|n| n as f64 / 1e9), 2),
        number(line.gb_s, 1),
        number(line.gflop_s, 1),
        share,
        number(line.peak_bytes.map(|n| n as f64 / 1e6), 0),
    ])
}
