//! Layer norm, softmax, GELU, rotary and conversions against f64, at every instruction set.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use limber_kernels::*;
use support::{close, differences, noise, wide};

/// Runs `f` at every level.
fn levels(f: impl Fn(&str)) {
    for level in Level::supported() {
        with_level(level, || f(&format!("{level:?}")));
    }
}

fn norm(x: &[f64], w: &[f32], b: &[f32], eps: f64) -> Vec<f64> {
    let d = w.len();
    let row = |x: &[f64]| -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / d as f64;
        let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / d as f64;
        let one = |i: usize| (x[i] - mean) / (var + eps).sqrt() * f64::from(w[i]) + f64::from(b[i]);
        (0..d).map(one).collect()
    };
    x.chunks(d).flat_map(row).collect()
}

#[test]
fn layer_norm_and_its_gradient_match_f64() {
    for (rows, d) in [(1, 1), (3, 7), (2, 16), (5, 33), (4, 130)] {
        // Far from zero, where one-pass variances fail.
        let x: Vec<f32> = noise(rows * d, 1).iter().map(|v| v + 30.0).collect();
        let (w, b, gy) = (noise(d, 2), noise(d, 3), noise(rows * d, 4));
        let expected = norm(&wide(&x), &w, &b, 1e-5);
        let slope = differences(&x, &gy, |x| norm(x, &w, &b, 1e-5));
        levels(|level| {
            let mut y = vec![f32::NAN; rows * d];
            layer_norm(&x, &w, Some(&b), 1e-5, &mut y, rows, d).unwrap();
            // The mean near 30 is known to 2e-6.
            close(&y, &expected, 2e-5, level);
            let mut gx = vec![f32::NAN; rows * d];
            layer_norm_input_grad(&x, &w, 1e-5, &gy, &mut gx, rows, d).unwrap();
            if d > 1 {
                close(&gx, &slope, 1e-4, level);
            }
        });
    }
}

fn root_mean_square(x: &[f64], w: &[f32], eps: f64) -> Vec<f64> {
    let d = w.len();
    let row = |x: &[f64]| -> Vec<f64> {
        let square = x.iter().map(|v| v * v).sum::<f64>() / d as f64;
        x.iter().zip(w).map(|(x, &w)| x / (square + eps).sqrt() * f64::from(w)).collect()
    };
    x.chunks(d).flat_map(row).collect()
}

#[test]
fn rms_norm_and_its_gradient_match_f64() {
    for (rows, d) in [(1, 1), (3, 7), (2, 16), (5, 33), (4, 130)] {
        // Large values as deep layers have them, and rows so small that eps counts.
        for size in [1e-3, 1.0, 200.0] {
            let x: Vec<f32> = noise(rows * d, 1).iter().map(|v| v * size).collect();
            let (w, gy) = (noise(d, 2), noise(rows * d, 3));
            let expected = root_mean_square(&wide(&x), &w, 1e-5);
            // A step of its own scale, as 1e-5 is no small step for the smallest rows.
            let unit: Vec<f32> = x.iter().map(|v| v / size).collect();
            let eps = 1e-5 / f64::from(size).powi(2);
            let slope = differences(&unit, &gy, |x| root_mean_square(x, &w, eps));
            let slope: Vec<f64> = slope.iter().map(|g| g / f64::from(size)).collect();
            levels(|level| {
                let mut y = vec![f32::NAN; rows * d];
                rms_norm(&x, &w, 1e-5, &mut y, rows, d).unwrap();
                close(&y, &expected, 1e-6, level);
                let mut gx = vec![f32::NAN; rows * d];
                rms_norm_input_grad(&x, &w, 1e-5, &gy, &mut gx, rows, d).unwrap();
                if d > 1 {
                    close(&gx, &slope, 1e-5, level);
                }
            });
        }
    }
    assert!(rms_norm(&[0.0; 6], &[1.0; 3], 1e-5, &mut [0.0; 5], 2, 3).is_err());
    assert!(rms_norm_input_grad(&[0.0; 6], &[1.0; 2], 1e-5, &[0.0; 6], &mut [0.0; 6], 2, 3).is_err());
}

fn soft(x: &[f64], d: usize) -> Vec<f64> {
    let row = |x: &[f64]| -> Vec<f64> {
        let sum: f64 = x.iter().map(|v| v.exp()).sum();
        x.iter().map(|v| v.exp() / sum).collect()
    };
    x.chunks(d).flat_map(row).collect()
}

#[test]
fn softmax_and_its_gradient_match_f64() {
    for (rows, d) in [(1, 1), (3, 7), (2, 16), (5, 33), (4, 1030)] {
        let x: Vec<f32> = noise(rows * d, 1).iter().map(|v| v * 20.0).collect();
        let expected = soft(&wide(&x), d);
        levels(|level| {
            let mut y = vec![f32::NAN; rows * d];
            softmax(&x, &mut y, rows, d).unwrap();
            close(&y, &expected, 1e-6, level);
        });
        if d < 100 {
            let x = noise(rows * d, 2);
            let y: Vec<f32> = soft(&wide(&x), d).iter().map(|&v| v as f32).collect();
            let gy = noise(rows * d, 3);
            let slope = differences(&x, &gy, |x| soft(x, d));
            levels(|level| {
                let mut gx = vec![f32::NAN; rows * d];
                softmax_input_grad(&y, &gy, &mut gx, rows, d).unwrap();
                if d > 1 {
                    close(&gx, &slope, 1e-5, level);
                }
            });
        }
    }
    let mut y = [1f32; 3];
    softmax(&[f32::NEG_INFINITY; 3], &mut y, 1, 3).unwrap();
    assert_eq!(y, [0.0; 3]);
    softmax(&[f32::NEG_INFINITY, 0.0, -200.0], &mut y, 1, 3).unwrap();
    assert_eq!(y, [0.0, 1.0, 0.0]);
}

#[test]
fn rotary_turns_pairs_and_back() {
    let (positions, heads, head_dim, rotary) = (vec![3, 0, 5], 2, 22, 12);
    let half = rotary / 2;
    let angle = |p: usize, i: usize| p as f32 / 10f32.powf(i as f32 / half as f32);
    let table =
        |f: fn(f32) -> f32| -> Vec<f32> { (0..6).flat_map(|p| (0..half).map(move |i| f(angle(p, i)))).collect() };
    let (cos, sin) = (table(f32::cos), table(f32::sin));
    let x = noise(positions.len() * heads * head_dim, 1);
    for style in [RotaryStyle::Interleaved, RotaryStyle::Half] {
        let mut expected = wide(&x);
        for (token, &p) in positions.iter().enumerate() {
            for head in 0..heads {
                let at = (token * heads + head) * head_dim;
                for i in 0..half {
                    let (a, b) = match style {
                        RotaryStyle::Interleaved => (at + 2 * i, at + 2 * i + 1),
                        RotaryStyle::Half => (at + i, at + half + i),
                    };
                    let (s, c) = f64::from(angle(p, i)).sin_cos();
                    let (u, v) = (f64::from(x[a]), f64::from(x[b]));
                    (expected[a], expected[b]) = (u * c - v * s, v * c + u * s);
                }
            }
        }
        let rotary = Rotary { style, rotary, cos: &cos, sin: &sin };
        levels(|level| {
            let mut y = x.clone();
            rotary.apply(&mut y, &positions, heads, head_dim).unwrap();
            close(&y, &expected, 1e-6, level);
            rotary.invert(&mut y, &positions, heads, head_dim).unwrap();
            close(&y, &wide(&x), 1e-6, level);
        });
        let mut y = x.clone();
        assert!(rotary.apply(&mut y, &[3, 0, 6], heads, head_dim).is_err());
        assert!(rotary.apply(&mut y, &[3, 0], heads, head_dim).is_err());
    }
}

#[test]
fn conversions_round_to_nearest_even() {
    let mut x = noise(100_003, 1);
    let special = [
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        65519.9,
        65520.0,
        1e-7,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::from_bits(0x3f80_8000),
        f32::from_bits(0x3f81_8000),
        f32::from_bits(0x7f80_0001),
        f32::from_bits(0xffff_ffff),
    ];
    x[3..3 + special.len()].copy_from_slice(&special);
    levels(|level| {
        let (mut b, mut h) = (vec![bf16::ZERO; x.len()], vec![f16::ZERO; x.len()]);
        f32_to_bf16(&x, &mut b).unwrap();
        f32_to_f16(&x, &mut h).unwrap();
        for (i, &v) in x.iter().enumerate() {
            let (eb, eh) = (bf16::from_f32(v), f16::from_f32(v));
            let same_b = b[i].to_bits() == eb.to_bits() || b[i].is_nan() && eb.is_nan();
            let same_h = h[i].to_bits() == eh.to_bits() || h[i].is_nan() && eh.is_nan();
            assert!(same_b && same_h, "{level}: {v} ({:#x}) became {} and {}", v.to_bits(), b[i], h[i]);
        }
        let mut y = vec![0f32; x.len()];
        bf16_to_f32(&b, &mut y).unwrap();
        assert!(y.iter().zip(&b).all(|(y, b)| y.to_bits() == b.to_f32().to_bits() || y.is_nan()));
        f16_to_f32(&h, &mut y).unwrap();
        assert!(y.iter().zip(&h).all(|(y, h)| y.to_bits() == h.to_f32().to_bits() || y.is_nan()));
    });
    assert!(f32_to_bf16(&x, &mut [bf16::ZERO; 3]).is_err());
}
