//! Repeatable noise, stored weights and comparisons for the tests of this crate.
#![allow(dead_code, reason = "each test binary uses a part")]

use limber_kernels::{BlockType, Weight, bf16, dequantize, f16, quantize_q4_k, quantize_q8_0};

/// `n` numbers in -1 ..= 1 from a linear congruential generator.
pub fn noise(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32) - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// A weight that owns its bytes.
pub enum Stored {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    Q8_0(Vec<u8>),
    Q4K(Vec<u8>),
    Blocks(BlockType, Vec<u8>),
}

impl Stored {
    pub fn new(kind: &str, values: &[f32]) -> Stored {
        match kind {
            "f32" => Stored::F32(values.to_vec()),
            "f16" => Stored::F16(values.iter().map(|&v| f16::from_f32(v)).collect()),
            "bf16" => Stored::Bf16(values.iter().map(|&v| bf16::from_f32(v)).collect()),
            "q8_0" => Stored::Q8_0(quantize_q8_0(values).unwrap()),
            "q4_k" => Stored::Q4K(quantize_q4_k(values).unwrap()),
            // Nothing writes these: any bytes are codes, and an f16 of a few bits is a scale.
            other => {
                let format = BlockType::named(other).unwrap_or_else(|| panic!("kind {kind:?}"));
                let mut bytes = vec![0u8; values.len() / format.numbers() * format.bytes()];
                for (i, byte) in bytes.iter_mut().enumerate() {
                    *byte = values[i % values.len()].to_bits().wrapping_mul(0x9e37_79b9).to_be_bytes()[0];
                }
                for block in bytes.chunks_exact_mut(format.bytes()) {
                    for at in Self::scales(format) {
                        block[at..at + 2].copy_from_slice(&f16::from_f32(0.01).to_le_bytes());
                    }
                    if format == BlockType::MXFP4 {
                        block[0] = 118 + block[0] % 8;
                    }
                    if format == BlockType::IQ1_M {
                        // Four bits of the scale lie above each of the last four pairs of bytes.
                        let bits = f16::from_f32(0.01).to_bits();
                        (0..4).for_each(|i| {
                            block[49 + 2 * i] = block[49 + 2 * i] & 15 | ((bits >> (4 * i) & 15) as u8) << 4
                        });
                    }
                }
                Stored::Blocks(format, bytes)
            }
        }
    }

    /// Where a block has its f16 scales; others are any bytes.
    fn scales(format: BlockType) -> Vec<usize> {
        match format {
            BlockType::Q4_1 | BlockType::Q5_1 | BlockType::Q5_K => vec![0, 2],
            BlockType::Q2_K => vec![80, 82],
            BlockType::Q3_K | BlockType::Q6_K | BlockType::TQ1_0 | BlockType::TQ2_0 => vec![format.bytes() - 2],
            BlockType::IQ1_M | BlockType::MXFP4 => vec![],
            _ => vec![0],
        }
    }

    pub fn weight(&self) -> Weight<'_> {
        match self {
            Stored::F32(w) => Weight::F32(w),
            Stored::F16(w) => Weight::F16(w),
            Stored::Bf16(w) => Weight::Bf16(w),
            Stored::Q8_0(w) => Weight::Q8_0(w),
            Stored::Q4K(w) => Weight::Q4K(w),
            Stored::Blocks(format, w) => Weight::Blocks(*format, w),
        }
    }

    pub fn widened(&self) -> Vec<f32> {
        let n = match self {
            Stored::F32(w) => w.len(),
            Stored::F16(w) => w.len(),
            Stored::Bf16(w) => w.len(),
            Stored::Q8_0(w) => w.len() / 34 * 32,
            Stored::Q4K(w) => w.len() / 144 * 256,
            Stored::Blocks(format, w) => w.len() / format.bytes() * format.numbers(),
        };
        let mut out = vec![0f32; n];
        dequantize(self.weight(), &mut out).unwrap();
        out
    }
}

/// Asserts `|found - expected| <= tolerance * max(largest |expected|, 1e-30)` everywhere.
pub fn close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths differ");
    let largest = expected.iter().fold(1e-30f64, |a, v| a.max(v.abs()));
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(f) - e).abs() / largest;
        assert!(error <= tolerance, "{what}: [{i}] is {f}, expected {e}: off by {error:.1e}");
    }
}

/// The same numbers in f64.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// Central differences of `sum(f(x) g)` in f64.
pub fn differences(x: &[f32], g: &[f32], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let x = wide(x);
    let loss = |x: &[f64]| f(x).iter().zip(g).map(|(y, &g)| y * f64::from(g)).sum::<f64>();
    let at = |i: usize, step: f64| {
        let mut x = x.clone();
        x[i] += step;
        loss(&x)
    };
    (0..x.len()).map(|i| (at(i, 1e-5) - at(i, -1e-5)) / 2e-5).collect()
}
