//! Speed of each stage beside what the machine can do at best, and what a type of weights costs in quality.
//!
//! The limits come first: streaming reads in bytes a second, f32 matrix products in operations a second. A stage that
//! reads `bytes` and does `flops` cannot take less than the longer of bytes / read rate and flops / matrix rate; its
//! `share` is that time over its own, a fraction of the roofline. Both rates are measured again around every run, see
//! [`Limits`].

mod components;
mod decoder;
mod images;
mod limits;
mod memory;
mod quality;
mod work;

pub use components::{Components, reduced};
pub use limits::Limits;
use limits::Probe;
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
    /// Fraction of the roofline, see the module.
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

    /// With what it reads and computes in each of its runs, against the limits around each.
    fn with_work(mut self, bytes: Option<u64>, flops: Option<u64>, runs: &[(f64, Limits)]) -> Self {
        (self.bytes, self.flops) = (bytes, flops);
        let rate = |n: Option<u64>| n.filter(|_| self.seconds > 0.0).map(|n| n as f64 / self.seconds / 1e9);
        (self.gb_s, self.gflop_s) = (rate(bytes), rate(flops));
        if let (Some(bytes), Some(flops), false) = (bytes, flops, runs.is_empty()) {
            let of = |(seconds, limits): &(f64, Limits)| limits.least(bytes, flops).0 / seconds;
            self.share = Some(middle(runs.iter().map(of).collect()));
            let reads = runs.iter().filter(|(_, limits)| limits.least(bytes, flops).1 == "read").count();
            self.limit = Some(if 2 * reads > runs.len() { "read" } else { "gemm" });
        }
        self
    }
}

/// Measures `components` and gives every line to `out` as it is there; `note` hears of what is left out.
///
/// # Errors
/// Options that are out of range, components that cannot be loaded, a context too short; what `out` says.
pub fn run(
    components: &Components,
    options: &Options,
    out: &mut dyn FnMut(&Line) -> Result<()>,
    note: &mut dyn FnMut(&str),
) -> Result<()> {
    options.check()?;
    // The limits are the CPU's; an accelerator's stages have rates alone.
    let mut probe = components.device.is_cpu().then(Probe::new);
    for line in probe.as_mut().map(Probe::lines).unwrap_or_default() {
        out(&line)?;
    }
    let prefix = images::run(components, options, &mut probe, out, note)?;
    decoder::run(components, options, &mut probe, &prefix, out, note)
}

/// The seconds of each of several runs, and the limits around it; without limits where there is no probe.
#[derive(Default)]
struct Runs {
    seconds: Vec<f64>,
    around: Vec<(f64, Limits)>,
}

impl Runs {
    /// One run more.
    fn add(&mut self, probe: &mut Option<Probe>, run: impl FnOnce() -> Result<f64>) -> Result<()> {
        match probe {
            None => self.seconds.push(run()?),
            Some(probe) => {
                let (seconds, limits) = probe.around(run)?;
                self.seconds.push(seconds);
                self.around.push((seconds, limits));
            }
        }
        Ok(())
    }

    /// `repeats` runs of `f` after one that is not timed.
    fn of(
        repeats: usize,
        device: &Device,
        probe: &mut Option<Probe>,
        mut f: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        f()?;
        let mut runs = Self::default();
        for _ in 0..repeats {
            runs.add(probe, || {
                device.synchronize()?;
                let start = Instant::now();
                f()?;
                device.synchronize()?;
                Ok(start.elapsed().as_secs_f64())
            })?;
        }
        Ok(runs)
    }

    /// Median seconds.
    fn median(&self) -> f64 {
        middle(self.seconds.clone())
    }
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
    fn a_share_is_the_median_of_the_runs() {
        let limits = |read, gemm| Limits { read, gemm };
        // The same work on a machine of half the speed takes twice as long and has the same share.
        let runs = [(2.0, limits(30.0, 100.0)), (4.0, limits(15.0, 50.0)), (2.5, limits(30.0, 100.0))];
        let line = Line::new("x", 1, 2.5).with_work(Some(30_000_000_000), Some(50_000_000_000), &runs);
        assert_eq!(
            (line.limit, line.share, line.gb_s, line.gflop_s),
            (Some("read"), Some(0.5), Some(12.0), Some(20.0))
        );
        let line = Line::new("x", 1, 2.0).with_work(Some(3_000_000_000), Some(150_000_000_000), &runs[..1]);
        assert_eq!((line.limit, line.share), (Some("gemm"), Some(0.75)));
        let unknown = Line::new("x", 1, 2.0).with_work(None, Some(4), &runs);
        assert_eq!((unknown.limit, unknown.share, unknown.gb_s), (None, None, None));
        assert_eq!(Line::new("x", 1, 2.0).with_work(Some(1), Some(4), &[]).share, None);
    }

    #[test]
    fn the_median_is_of_the_timed_runs() {
        assert_eq!(middle(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(middle(vec![]), 0.0);
        let mut count = 0;
        let runs = Runs::of(4, &Device::Cpu, &mut None, || {
            count += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!((count, runs.seconds.len(), runs.around.len()), (5, 4, 0));
    }
}
