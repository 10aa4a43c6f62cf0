//! Speed of each stage beside what the machine can do at best, and what a type of weights costs in quality.
//!
//! The limits come first: streaming reads in bytes a second, f32 matrix products in operations a second. A stage that
//! reads `bytes` and does `flops` cannot take less than the longer of bytes / read rate and flops / matrix rate; its
//! `share` is that time over its own, so 1 is the machine's limit.

mod decoder;
mod images;
mod limits;
mod memory;
mod parts;
mod quality;
mod work;

pub use limits::Limits;
pub use parts::{Parts, reduced};
pub use quality::Quality;

use anyhow::{Result, ensure};
use candle_core::Device;
use limber_core::WeightType;
use serde::Serialize;
use std::time::Instant;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// The types that the decoder's weights are held in, one after the other; None is as they are stored.
    pub dtypes: Vec<Option<WeightType>>,
    /// Rows of the decoding stage.
    pub batches: Vec<usize>,
    /// Decoding steps of each batch, after one that is not timed.
    pub tokens: usize,
    /// Runs of every other stage, after one that is not timed; the median counts.
    pub repeats: usize,
    /// The bytes of an image file; None draws a scene of 512 pixels.
    pub image: Option<Vec<u8>>,
}

impl Options {
    /// Checks the counts.
    ///
    /// # Errors
    /// The first that is 0.
    pub fn check(&self) -> Result<()> {
        ensure!(self.tokens > 0, "tokens 0 is not allowed, it is 1 or above");
        ensure!(self.repeats > 0, "repeats 0 is not allowed, it is 1 or above");
        ensure!(!self.dtypes.is_empty(), "no dtype is asked for");
        ensure!(!self.batches.is_empty(), "no batch is asked for");
        ensure!(self.batches.iter().all(|b| *b > 0), "batch 0 is not allowed, it is 1 or above");
        Ok(())
    }
}

/// One stage: a line of `--json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Line {
    /// `read`, `gemm` (the limits), `image`, `pixels`, `encode`, `stitch`, `load`, `prefill` or `decode`.
    pub stage: &'static str,
    /// The type of the decoder's weights, where they take part.
    pub dtype: Option<String>,
    /// Images or rows together.
    pub batch: usize,
    /// Positions that go through the decoder (`prefill`), or that a row has behind it at the median step (`decode`).
    pub positions: Option<usize>,
    /// Median seconds; of a step for all rows in `decode`.
    pub seconds: f64,
    /// Bytes of weights, and of cached keys and values, that are read.
    pub bytes: Option<u64>,
    /// Floating-point operations, two for a multiplication with its addition.
    pub flops: Option<u64>,
    /// 10^9 bytes a second.
    pub gb_s: Option<f64>,
    /// 10^9 operations a second.
    pub gflop_s: Option<f64>,
    /// Share of the machine's limit, see the module.
    pub share: Option<f64>,
    /// Which limit is the nearer: `read` or `gemm`.
    pub limit: Option<&'static str>,
    /// Positions or tokens of all rows a second.
    pub tokens_per_s: Option<f64>,
    /// Most memory that the process held during the stage, mapped weights included; None where the system does not say.
    pub peak_bytes: Option<u64>,
}

impl Line {
    /// A stage of `batch` that takes `seconds`.
    fn new(stage: &'static str, batch: usize, seconds: f64) -> Self {
        Self { stage, batch, seconds, ..Self::default() }
    }

    /// With what it reads and computes, against the limits of the CPU.
    fn with_work(mut self, bytes: Option<u64>, flops: Option<u64>, limits: Option<&Limits>) -> Self {
        (self.bytes, self.flops) = (bytes, flops);
        let rate = |n: Option<u64>| n.filter(|_| self.seconds > 0.0).map(|n| n as f64 / self.seconds / 1e9);
        (self.gb_s, self.gflop_s) = (rate(bytes), rate(flops));
        if let (Some(limits), Some(bytes), Some(flops)) = (limits, bytes, flops) {
            let (read, gemm) = (bytes as f64 / limits.read / 1e9, flops as f64 / limits.gemm / 1e9);
            self.limit = Some(if read > gemm { "read" } else { "gemm" });
            self.share = Some(read.max(gemm) / self.seconds);
        }
        self
    }
}

/// Measures `parts` and gives every line to `out` as it is there; `note` hears of what is left out.
///
/// # Errors
/// Options that are out of range, parts that cannot be loaded, a context too short; what `out` says.
pub fn run(
    parts: &Parts,
    options: &Options,
    out: &mut dyn FnMut(&Line) -> Result<()>,
    note: &mut dyn FnMut(&str),
) -> Result<()> {
    options.check()?;
    let (limits, lines) = Limits::measure();
    for line in &lines {
        out(line)?;
    }
    // The limits are the CPU's; an accelerator's stages have rates alone.
    let limits = Some(&limits).filter(|_| parts.device.is_cpu());
    let prefix = images::run(parts, options, limits, out, note)?;
    decoder::run(parts, options, limits, &prefix, out, note)
}

/// Median seconds of `repeats` runs of `f` after one that is not timed.
fn median(repeats: usize, device: &Device, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let mut seconds = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        device.synchronize()?;
        let start = Instant::now();
        f()?;
        device.synchronize()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    Ok(middle(seconds))
}

/// The median; of an even number of values the greater of the middle two.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_nearer_limit() {
        let limits = Limits { read: 30.0, gemm: 100.0 };
        let line = |bytes, flops| Line::new("x", 1, 2.0).with_work(Some(bytes), Some(flops), Some(&limits));
        let read = line(30_000_000_000, 50_000_000_000);
        assert_eq!(
            (read.limit, read.share, read.gb_s, read.gflop_s),
            (Some("read"), Some(0.5), Some(15.0), Some(25.0))
        );
        let gemm = line(3_000_000_000, 150_000_000_000);
        assert_eq!((gemm.limit, gemm.share), (Some("gemm"), Some(0.75)));
        let unknown = Line::new("x", 1, 2.0).with_work(None, Some(4), Some(&limits));
        assert_eq!((unknown.limit, unknown.share, unknown.gb_s), (None, None, None));
        assert_eq!(Line::new("x", 1, 2.0).with_work(Some(1), Some(4), None).share, None);
    }

    #[test]
    fn the_median_is_of_the_timed_runs() {
        assert_eq!(middle(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(middle(vec![]), 0.0);
        let mut runs = 0;
        median(4, &Device::Cpu, || {
            runs += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(runs, 5);
    }
}
