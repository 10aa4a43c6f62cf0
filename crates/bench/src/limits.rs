//! What this machine can do at best: the two rates that every stage is held against.
//!
//! Machines that are shared run at half their speed from one second to the next. So the rates are measured again between
//! the runs of a stage, each run is held against the two measurements around it, and the median share counts.

use super::{Line, memory};
use limber_kernels::{bandwidth_of, gemm_crate_probe, linear_probe};
use std::time::{Duration, Instant};

/// Bytes that the read rate is measured over: many times a last-level cache.
const READ_BYTES: usize = 256 << 20;
/// Sizes of the matrix product: rows, columns, depth.
const GEMM: (usize, usize, usize) = (512, 1024, 1024);
/// How long a measurement is good for.
const FRESH: Duration = Duration::from_millis(250);

/// Peak rates of the machine: the roofline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Streaming reads in 10^9 bytes a second.
    pub read: f64,
    /// f32 matrix products in 10^9 operations a second.
    pub gemm: f64,
}

impl Limits {
    /// The least seconds that reading `bytes` and computing `flops` take, and which of the two it is.
    pub(super) fn least(&self, bytes: u64, flops: u64) -> (f64, &'static str) {
        let (read, gemm) = (bytes as f64 / self.read / 1e9, flops as f64 / self.gemm / 1e9);
        if read > gemm { (read, "read") } else { (gemm, "gemm") }
    }

    /// Between the two.
    fn between(self, other: Self) -> Self {
        Self { read: (self.read + other.read) / 2.0, gemm: (self.gemm + other.gemm) / 2.0 }
    }
}

/// Measures the peak rates, again and again.
pub(super) struct Probe {
    buffer: Vec<f32>,
    last: Option<(Instant, Limits)>,
}

impl Probe {
    /// Holds the memory that is read.
    pub(super) fn new() -> Self {
        Self { buffer: vec![1f32; READ_BYTES / 4], last: None }
    }

    /// The limits now, with the threads of the pool: each the best of several passes, and the better of the `gemm`
    /// crate's and our own matrix product.
    fn now(&mut self) -> Limits {
        let (m, n, k) = GEMM;
        let read = bandwidth_of(&self.buffer);
        let gemm = gemm_crate_probe(m, n, k).max(linear_probe(m, n, k));
        let limits = Limits { read, gemm };
        self.last = Some((Instant::now(), limits));
        limits
    }

    /// The limits, measured again where that was longer ago than they are good for.
    fn fresh(&mut self) -> Limits {
        match self.last {
            Some((at, limits)) if at.elapsed() < FRESH => limits,
            _ => self.now(),
        }
    }

    /// The limits before and after `run`, which gives its seconds.
    pub(super) fn around<E>(&mut self, run: impl FnOnce() -> Result<f64, E>) -> Result<(f64, Limits), E> {
        let before = self.fresh();
        let seconds = run()?;
        Ok((seconds, before.between(self.fresh())))
    }

    /// Two lines with the peak rates.
    pub(super) fn lines(&mut self) -> Vec<Line> {
        memory::reset_peak();
        let start = Instant::now();
        let limits = self.now();
        let seconds = start.elapsed().as_secs_f64();
        let line = |stage| Line {
            share: Some(1.0),
            limit: Some(stage),
            peak_bytes: memory::peak(),
            ..Line::new(stage, 1, seconds)
        };
        let (m, n, k) = GEMM;
        let flops = (2 * m * n * k) as u64;
        vec![
            Line { bytes: Some(READ_BYTES as u64), gb_s: Some(limits.read), ..line("read") },
            Line { flops: Some(flops), gflop_s: Some(limits.gemm), ..line("gemm") },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_limit_counts() {
        let limits = Limits { read: 30.0, gemm: 100.0 };
        assert_eq!(limits.least(30_000_000_000, 50_000_000_000), (1.0, "read"));
        assert_eq!(limits.least(3_000_000_000, 150_000_000_000), (1.5, "gemm"));
        let other = Limits { read: 50.0, gemm: 300.0 };
        assert_eq!(limits.between(other), Limits { read: 40.0, gemm: 200.0 });
    }

    #[test]
    fn a_run_is_between_two_measurements() {
        let mut probe = Probe { buffer: vec![1.0; 1 << 16], last: None };
        let (seconds, limits) = probe.around(|| Ok::<_, ()>(2.5)).unwrap();
        assert!(seconds == 2.5 && limits.read > 0.0 && limits.gemm > 0.0);
        assert!(probe.last.is_some());
        assert_eq!(probe.around(|| Err::<f64, _>("no")).unwrap_err(), "no");
    }
}
