//! What this machine can do at best: streaming reads and f32 matrix products.

use crate::isa::{Isa, Kernel, Level, dispatch};
use crate::linear::linear;
use crate::parallel;
use crate::shape::elements;
use crate::weight::Weight;
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

/// Adds up `len` floats with eight independent sums.
struct Sum {
    start: *const f32,
    len: usize,
}

impl Kernel for Sum {
    type Out = f32;
    #[inline(always)]
    unsafe fn run<I: Isa>(self) -> f32 {
        // SAFETY: `start` has `len` floats.
        unsafe {
            let mut acc = [I::splat(0.0); 8];
            let mut i = 0;
            while i + 8 * I::LANES <= self.len {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = I::add(*acc, I::load(self.start.add(i + j * I::LANES)));
                }
                i += 8 * I::LANES;
            }
            acc.into_iter().map(|v| I::sum(v)).sum()
        }
    }
}

/// Streaming read bandwidth in GB/s (10^9) over all threads of the current pool.
///
/// Reads a buffer of `bytes`, which should be many times the last-level cache, and returns
/// the best of several passes at every instruction set and two piece sizes.
pub fn bandwidth_probe(bytes: usize) -> f64 {
    let buffer = vec![1f32; (bytes / 4).max(1)];
    bandwidth_of(&buffer)
}

/// As [`bandwidth_probe`], over memory that the caller holds: of a mapped file, for instance.
pub fn bandwidth_of(buffer: &[f32]) -> f64 {
    let mut best = 0f64;
    for level in Level::supported() {
        for piece in [64 << 10, 1 << 20] {
            for _ in 0..3 {
                let total = Mutex::new(0f32);
                let start = Instant::now();
                let address = buffer.as_ptr() as usize;
                parallel::for_each(buffer.len().div_ceil(piece), |i| {
                    let len = piece.min(buffer.len() - i * piece);
                    let start = (address as *const f32).wrapping_add(i * piece);
                    // SAFETY: the piece lies within `buffer`; the level is supported.
                    let sum = unsafe { dispatch(level, Sum { start, len }) };
                    *total.lock().expect("no thread panics while it holds the sum") += sum;
                });
                let seconds = start.elapsed().as_secs_f64();
                black_box(total.into_inner().ok());
                best = best.max(size_of_val(buffer) as f64 / seconds / 1e9);
            }
        }
    }
    best
}

/// f32 matrix products in GFLOP/s over all threads: the best of the `gemm` crate and of
/// [`linear`] at a size that suits both.
pub fn gemm_probe() -> f64 {
    gemm_crate_probe(1024, 2048, 2048).max(linear_probe(1024, 2048, 2048))
}

/// GFLOP/s of the `gemm` crate for `[m, k] x [n, k]^T`.
///
/// # Panics
///
/// Where one of the three matrices does not fit into memory.
pub fn gemm_crate_probe(m: usize, n: usize, k: usize) -> f64 {
    let (x, w, mut y) = operands(m, n, k);
    let threads = gemm::Parallelism::Rayon(rayon::current_num_threads());
    rate(m, n, k, || {
        // SAFETY: strides and sizes describe the three buffers.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                y.as_mut_ptr(),
                1,
                n as isize,
                false,
                x.as_ptr(),
                1,
                k as isize,
                w.as_ptr(),
                k as isize,
                1,
                0f32,
                1f32,
                false,
                false,
                false,
                threads,
            );
        }
    })
}

/// GFLOP/s of [`linear`] with f32 weights.
///
/// # Panics
///
/// As [`gemm_crate_probe`].
pub fn linear_probe(m: usize, n: usize, k: usize) -> f64 {
    let (x, w, mut y) = operands(m, n, k);
    rate(m, n, k, || {
        linear(&x, Weight::F32(&w), None, &mut y, m, k, n).expect("the shapes fit");
    })
}

fn operands(m: usize, n: usize, k: usize) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let fill = |len: usize| (0..len).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect::<Vec<f32>>();
    let len = |rows: usize, columns: usize| match elements("matrix of a probe", &[rows, columns]) {
        Ok(len) => len,
        Err(error) => panic!("{error}"),
    };
    (fill(len(m, k)), fill(len(n, k)), vec![0.0; len(m, n)])
}

fn rate(m: usize, n: usize, k: usize, mut f: impl FnMut()) -> f64 {
    f();
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * m as f64 * n as f64 * k as f64 / best / 1e9
}
