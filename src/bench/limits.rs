//! What this machine can do at best: the two rates that every stage is held against.

use super::{Line, memory};
use limber_kernels::{bandwidth_probe, gemm_probe};
use std::time::Instant;

/// Bytes that the read rate is measured over: many times a last-level cache.
const READ_BYTES: usize = 512 << 20;
/// Operations of one of the matrix products.
const GEMM_FLOPS: u64 = 2 * 1024 * 2048 * 2048;

/// The machine's limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Streaming reads in 10^9 bytes a second.
    pub read: f64,
    /// f32 matrix products in 10^9 operations a second.
    pub gemm: f64,
}

impl Limits {
    /// Measures both with the threads of the pool, and the lines that say so. Rates are the best of several passes,
    /// `seconds` is what all passes took.
    pub fn measure() -> (Self, Vec<Line>) {
        let probe = |stage, bytes: Option<u64>, rate: &dyn Fn() -> f64| {
            memory::reset_peak();
            let start = Instant::now();
            let rate = rate();
            let line = Line::new(stage, 1, start.elapsed().as_secs_f64());
            (rate, Line { bytes, share: Some(1.0), limit: Some(stage), peak_bytes: memory::peak(), ..line })
        };
        let (read, line) = probe("read", Some(READ_BYTES as u64), &|| bandwidth_probe(READ_BYTES));
        let read_line = Line { gb_s: Some(read), ..line };
        let (gemm, line) = probe("gemm", None, &gemm_probe);
        let gemm_line = Line { gflop_s: Some(gemm), flops: Some(GEMM_FLOPS), ..line };
        (Self { read, gemm }, vec![read_line, gemm_line])
    }
}
