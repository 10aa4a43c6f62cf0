//! The GGUF block formats: bytes by hand, error bounds, round trips.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use limber_kernels::*;
use support::noise;

fn widened(weight: Weight, n: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; n];
    dequantize(weight, &mut out).unwrap();
    out
}

#[test]
fn q8_0_errs_by_half_a_step_at_most() {
    let x: Vec<f32> = noise(32 * 700, 1).iter().enumerate().map(|(i, v)| v * (1 + i / 32) as f32).collect();
    let bytes = quantize_q8_0(&x).unwrap();
    assert_eq!(bytes.len(), 700 * Q8_0_BYTES);
    for level in Level::supported() {
        let y = with_level(level, || widened(Weight::Q8_0(&bytes), x.len()));
        for (x, y) in x.chunks(32).zip(y.chunks(32)) {
            let step = x.iter().fold(0f32, |a, v| a.max(v.abs())) / 127.0;
            for (x, y) in x.iter().zip(y) {
                // Half a step, and the scale's own rounding to f16 (2^-11) on up to 127 steps.
                assert!((x - y).abs() <= step * (0.5 + 127.0 / 2048.0 + 1e-3), "{x} became {y}");
            }
        }
    }
}

#[test]
fn q4_k_unpacks_blocks_written_by_hand() {
    let mut block = vec![0u8; Q4K_BYTES];
    block[..2].copy_from_slice(&f16::from_f32(0.5).to_le_bytes());
    block[2..4].copy_from_slice(&f16::from_f32(0.25).to_le_bytes());
    let scales: [u8; 8] = [1, 17, 33, 63, 5, 20, 40, 62];
    let minima: [u8; 8] = [0, 16, 35, 63, 9, 31, 47, 60];
    for j in 0..4 {
        block[4 + j] = scales[j] | (scales[j + 4] >> 4) << 6;
        block[8 + j] = minima[j] | (minima[j + 4] >> 4) << 6;
        block[12 + j] = (scales[j + 4] & 15) | (minima[j + 4] & 15) << 4;
    }
    for i in 0..128 {
        block[16 + i] = (i * 37 % 256) as u8;
    }
    for level in Level::supported() {
        let y = with_level(level, || widened(Weight::Q4K(&block), 256));
        for (i, &y) in y.iter().enumerate() {
            let (j, byte) = (i / 32, block[16 + i / 64 * 32 + i % 32]);
            let q = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
            let expected = 0.5 * f32::from(scales[j]) * f32::from(q) - 0.25 * f32::from(minima[j]);
            assert_eq!(y, expected, "{i} at {level:?}");
        }
    }
}

#[test]
fn q4_k_is_near_and_a_second_pass_changes_little() {
    let x = noise(256 * 40, 3);
    let bytes = quantize_q4_k(&x).unwrap();
    let y = widened(Weight::Q4K(&bytes), x.len());
    for (x, y) in x.chunks(32).zip(y.chunks(32)) {
        let (min, max) = x.iter().fold((0f32, 0f32), |(a, b), &v| (a.min(v), b.max(v)));
        for (x, y) in x.iter().zip(y) {
            // Steps of a fifteenth of the range; 6-bit scales and minima add about as much.
            assert!((x - y).abs() <= (max - min) / 15.0 * 1.5, "{x} became {y}");
        }
    }
    let rms =
        |a: &[f32], b: &[f32]| (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>() / a.len() as f32).sqrt();
    // Uniform numbers in -1 .. 1 with steps of 2 / 15: 2 / 15 / sqrt(12) = 0.038.
    assert!(rms(&x, &y) < 0.042, "{}", rms(&x, &y));
    let again = quantize_q4_k(&y).unwrap();
    let z = widened(Weight::Q4K(&again), x.len());
    assert!(rms(&y, &z) < 0.01, "{}", rms(&y, &z));
}

#[test]
fn every_level_codes_alike() {
    // Numbers of many sizes, flat runs and zeros among them.
    let mut x: Vec<f32> = noise(256 * 60, 5).iter().enumerate().map(|(i, v)| v * (1 + i / 32) as f32).collect();
    x[256..300].fill(-0.75);
    x[640..700].fill(0.0);
    let all = |code: &dyn Fn() -> Vec<u8>| {
        Level::supported().into_iter().map(|level| with_level(level, code)).collect::<Vec<_>>()
    };
    for coded in [all(&|| quantize_q8_0(&x).unwrap()), all(&|| quantize_q4_k(&x).unwrap())] {
        assert!(coded.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

#[test]
fn zeros_constants_and_wrong_lengths() {
    for value in [0.0, 3.0, -2.5] {
        let x = vec![value; 512];
        for y in [
            widened(Weight::Q8_0(&quantize_q8_0(&x).unwrap()), 512),
            widened(Weight::Q4K(&quantize_q4_k(&x).unwrap()), 512),
        ] {
            assert!(y.iter().all(|y| (y - value).abs() <= value.abs() * 2e-3), "{value}: {}", y[0]);
        }
    }
    assert!(quantize_q8_0(&[0.0; 33]).is_err());
    assert!(quantize_q4_k(&[0.0; 32]).is_err());
    assert!(dequantize(Weight::F32(&[0.0; 3]), &mut [0.0; 2]).is_err());
    assert!(dequantize(Weight::Q8_0(&[0; 35]), &mut [0.0; 32]).is_err());
}
