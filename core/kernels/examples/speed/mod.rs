//! What the programs that measure kernels share: numbers without a pattern, the best of several runs, a matrix in every
//! type.
#![allow(dead_code, reason = "each program uses a part")]

use limber_kernels::{Weight, bf16, f16, quantize_q4_k, quantize_q8_0};
use std::time::Instant;

/// `n` numbers from -1 to 1.
pub fn noise(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// Seconds of the fastest of several runs, after one that is not counted.
pub fn best(repeats: usize, mut f: impl FnMut()) -> f64 {
    f();
    let mut best = f64::INFINITY;
    for _ in 0..repeats {
        let start = Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

/// How many repeats the command line asks for.
pub fn repeats(default: usize) -> usize {
    std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// One matrix in the types that speak for all: the floats, eight bits, four bits.
pub struct Matrix {
    values: Vec<f32>,
    half: Vec<f16>,
    brain: Vec<bf16>,
    q8: Vec<u8>,
    q4: Vec<u8>,
}

impl Matrix {
    /// A matrix of `n` elements, a multiple of 256.
    pub fn new(n: usize) -> Self {
        let values = noise(n);
        let half = values.iter().map(|v| f16::from_f32(*v)).collect();
        let brain = values.iter().map(|v| bf16::from_f32(*v)).collect();
        let q8 = quantize_q8_0(&values).expect("whole blocks");
        let q4 = quantize_q4_k(&values).expect("whole blocks");
        Self { values, half, brain, q8, q4 }
    }

    /// The matrix in each type, with the type's name.
    pub fn weights(&self) -> [(&'static str, Weight<'_>); 5] {
        [
            ("f32", Weight::F32(&self.values)),
            ("f16", Weight::F16(&self.half)),
            ("bf16", Weight::Bf16(&self.brain)),
            ("q8_0", Weight::Q8_0(&self.q8)),
            ("q4_k", Weight::Q4K(&self.q4)),
        ]
    }

    /// The matrix in bf16.
    pub fn bf16(&self) -> Weight<'_> {
        Weight::Bf16(&self.brain)
    }
}
