//! The linear layer against f64, over awkward sizes, at every instruction set.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use limber_kernels::{
    Activation, BlockType, Epilogue, Layer, Level, ShapeError, Weight, activate_in_place, linear, linear_input_grad,
    linear_multi, with_level,
};
use support::{Stored, close, noise};

/// y = x W^T + b in f64.
fn reference(x: &[f32], w: &[f32], bias: &[f32], rows: usize, n_in: usize, n_out: usize) -> Vec<f64> {
    let mut y = vec![0f64; rows * n_out];
    for m in 0..rows {
        for n in 0..n_out {
            let dot = |k: usize| f64::from(x[m * n_in + k]) * f64::from(w[n * n_in + k]);
            y[m * n_out + n] = (0..n_in).map(dot).sum::<f64>() + f64::from(bias[n]);
        }
    }
    y
}

const ROWS: [usize; 17] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 16, 17, 32, 40, 147];

fn check_linear(kind: &str, n_in: usize, n_out: usize) {
    let stored = Stored::new(kind, &noise(n_out * n_in, 1));
    let w = stored.widened();
    let bias = noise(n_out, 2);
    for rows in ROWS {
        // One element in, so that no row begins at a vector boundary.
        let x = noise(rows * n_in + 1, 3);
        let x = &x[1..];
        let expected = reference(x, &w, &bias, rows, n_in, n_out);
        for level in Level::supported() {
            let mut y = vec![f32::NAN; rows * n_out];
            with_level(level, || {
                linear(x, stored.weight(), Some(&bias), &mut y, rows, n_in, n_out).unwrap();
            });
            // f32 sums of n_in terms near 0.3: a few roundings of the largest partial sum.
            let allowed = if coded(kind, rows) { CODED } else { 1e-5 };
            close(&y, &expected, allowed, &format!("{kind} {rows}x{n_in}x{n_out} {level:?}"));
        }
    }
}

/// Where AVX-512 is, q4_k is multiplied with up to three rows of activations as 16-bit numbers, off by up to half of
/// 1/32639 of their block's largest: some 1e-5 of what a sum is.
const CODED: f64 = 5e-5;

fn coded(kind: &str, rows: usize) -> bool {
    kind == "q4_k" && rows <= 3 && Level::supported().contains(&Level::Avx512)
}

#[test]
fn dense_weights_match_f64() {
    for kind in ["f32", "f16", "bf16"] {
        for (n_in, n_out) in [(1, 1), (3, 5), (16, 33), (31, 7), (130, 129), (515, 66), (1025, 130)] {
            check_linear(kind, n_in, n_out);
        }
    }
}

#[test]
fn quantised_weights_match_their_dequantised_values() {
    for (n_in, n_out) in [(32, 3), (96, 35), (544, 130)] {
        check_linear("q8_0", n_in, n_out);
    }
    for (n_in, n_out) in [(256, 3), (512, 35), (768, 130)] {
        check_linear("q4_k", n_in, n_out);
        check_linear("q8_0", n_in, n_out);
    }
    for format in BlockType::all() {
        let n_in = 3 * format.numbers();
        check_linear(format.name(), n_in, 35);
    }
    // Rows that end within the 256 columns of a step.
    check_linear("q4_1", 544, 11);
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let (n_in, n_out, rows) = (768, 70, 40);
    for kind in ["f32", "f16", "bf16", "q8_0", "q4_k", "q4_1", "q6_k"] {
        let stored = Stored::new(kind, &noise(n_out * n_in, 4));
        let x = noise(rows * n_in, 5);
        let mut all = vec![0f32; rows * n_out];
        linear(&x, stored.weight(), None, &mut all, rows, n_in, n_out).unwrap();
        for (m, x) in x.chunks(n_in).enumerate() {
            let mut one = vec![0f32; n_out];
            linear(x, stored.weight(), None, &mut one, 1, n_in, n_out).unwrap();
            let expected: Vec<f64> = one.iter().map(|&v| f64::from(v)).collect();
            // Only the order of the sums may differ.
            let allowed = if coded(kind, 1) { CODED } else { 2e-6 };
            close(&all[m * n_out..][..n_out], &expected, allowed, kind);
        }
    }
}

#[test]
fn one_number_that_is_not_finite_shows_in_every_output() {
    let (n_in, n_out) = (512, 9);
    for kind in ["f32", "bf16", "q8_0", "q4_k", "q4_1", "q6_k"] {
        let stored = Stored::new(kind, &noise(n_out * n_in, 4));
        for (at, bad) in [(0, f32::NAN), (300, f32::INFINITY), (511, f32::NEG_INFINITY)] {
            let (mut x, mut y) = (noise(n_in, 5), vec![0f32; n_out]);
            x[at] = bad;
            linear(&x, stored.weight(), None, &mut y, 1, n_in, n_out).unwrap();
            assert!(y.iter().all(|y| !y.is_finite()), "{kind} {bad}: {y:?}");
        }
    }
}

#[test]
fn activations_of_any_size_keep_their_precision() {
    let (n_in, n_out) = (512, 9);
    for kind in ["q8_0", "q4_k"] {
        let stored = Stored::new(kind, &noise(n_out * n_in, 4));
        for scale in [0.0, 1e-30, 1e-6, 1e6, 1e30] {
            let x: Vec<f32> = noise(n_in, 5).iter().map(|v| v * scale).collect();
            let mut y = vec![f32::NAN; n_out];
            linear(&x, stored.weight(), None, &mut y, 1, n_in, n_out).unwrap();
            let expected = reference(&x, &stored.widened(), &[0.0; 9], 1, n_in, n_out);
            close(&y, &expected, CODED, &format!("{kind} {scale}"));
        }
    }
}

#[test]
fn several_layers_in_one_pass_equal_each_alone() {
    let n_in = 256;
    let x = noise(20 * n_in, 6);
    let q = Stored::new("bf16", &noise(96 * n_in, 7));
    let k = Stored::new("q4_k", &noise(33 * n_in, 8));
    let bias = noise(33, 9);
    for rows in [1, 20] {
        let x = &x[..rows * n_in];
        let (mut a, mut b) = (vec![0f32; rows * 96], vec![0f32; rows * 33]);
        let mut layers = [
            Layer { weight: q.weight(), bias: None, y: &mut a, n_out: 96, epilogue: Epilogue::default() },
            Layer { weight: k.weight(), bias: Some(&bias), y: &mut b, n_out: 33, epilogue: Epilogue::default() },
        ];
        linear_multi(x, &mut layers, rows, n_in).unwrap();
        let (mut a1, mut b1) = (vec![0f32; rows * 96], vec![0f32; rows * 33]);
        linear(x, q.weight(), None, &mut a1, rows, n_in, 96).unwrap();
        linear(x, k.weight(), Some(&bias), &mut b1, rows, n_in, 33).unwrap();
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        close(&a, &wide(&a1), 2e-6, "first layer");
        close(&b, &wide(&b1), 2e-6, "second layer");
    }
}

#[test]
fn what_comes_after_a_product_is_that_of_separate_steps() {
    let (n_in, n_out) = (256, 70);
    for kind in ["f32", "bf16", "q8_0", "q4_k", "q4_1", "q6_k"] {
        let stored = Stored::new(kind, &noise(n_out * n_in, 12));
        let (bias, scale) = (noise(n_out, 13), noise(n_out, 14));
        for rows in [1, 3, 40] {
            let (x, residual) = (noise(rows * n_in, 15), noise(rows * n_out, 16));
            let mut plain = vec![0f32; rows * n_out];
            linear(&x, stored.weight(), Some(&bias), &mut plain, rows, n_in, n_out).unwrap();
            for (scaled, added, activation) in [
                (true, true, None),
                (false, true, Some(Activation::Relu)),
                (true, false, Some(Activation::Gelu)),
                (false, false, Some(Activation::GeluNew)),
            ] {
                let mut expected: Vec<f32> = (0..rows * n_out)
                    .map(|i| {
                        let y = if scaled { plain[i] * scale[i % n_out] } else { plain[i] };
                        if added { y + residual[i] } else { y }
                    })
                    .collect();
                if let Some(activation) = activation {
                    activate_in_place(activation, &mut expected);
                }
                let expected: Vec<f64> = expected.iter().map(|&v| f64::from(v)).collect();
                for level in Level::supported() {
                    let mut y = vec![f32::NAN; rows * n_out];
                    let epilogue = Epilogue {
                        scale: scaled.then_some(scale.as_slice()),
                        residual: added.then_some(residual.as_slice()),
                        activation,
                    };
                    let layer = Layer { weight: stored.weight(), bias: Some(&bias), y: &mut y, n_out, epilogue };
                    with_level(level, || linear_multi(&x, &mut [layer], rows, n_in).unwrap());
                    // 4-bit weights times few rows are integer products at one level and as floats at others.
                    let tolerance = if kind == "q4_k" { 1e-3 } else { 1e-5 };
                    close(&y, &expected, tolerance, &format!("{kind} {rows} {level:?} {activation:?}"));
                }
            }
        }
    }
    let mut y = vec![0f32; 4];
    let epilogue = Epilogue { residual: Some(&[0.0; 3]), ..Epilogue::default() };
    let layer = Layer { weight: Weight::F32(&[0.0; 8]), bias: None, y: &mut y, n_out: 4, epilogue };
    let message = linear_multi(&[0.0; 2], &mut [layer], 1, 2).unwrap_err().to_string();
    assert_eq!(message, "residual has 3 elements; its shape [1, 4] needs 4");
}

#[test]
fn the_input_gradient_matches_f64() {
    let sizes = [("f32", 33, 7), ("bf16", 130, 515), ("f16", 257, 66), ("q8_0", 96, 35)];
    for (kind, n_in, n_out) in sizes.into_iter().chain([("q4_k", 768, 130), ("bf16", 1, 1)]) {
        let stored = Stored::new(kind, &noise(n_out * n_in, 10));
        let w = stored.widened();
        for rows in ROWS {
            let gy = noise(rows * n_out, 11);
            let mut expected = vec![0f64; rows * n_in];
            for m in 0..rows {
                for n in 0..n_out {
                    for k in 0..n_in {
                        expected[m * n_in + k] += f64::from(gy[m * n_out + n]) * f64::from(w[n * n_in + k]);
                    }
                }
            }
            for level in Level::supported() {
                let mut gx = vec![f32::NAN; rows * n_in];
                with_level(level, || {
                    linear_input_grad(&gy, stored.weight(), &mut gx, rows, n_in, n_out).unwrap();
                });
                close(&gx, &expected, 1e-5, &format!("{kind} {rows} {level:?}"));
            }
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let w = vec![0f32; 12];
    let mut y = vec![0f32; 3];
    let error = linear(&[0.0; 4], Weight::F32(&w), None, &mut y[..2], 1, 4, 3).unwrap_err();
    assert_eq!(error.to_string(), "y has 2 elements; its shape [1, 3] needs 3");
    let error = linear(&[0.0; 33], Weight::Q8_0(&[0; 34]), None, &mut y[..1], 1, 33, 1).unwrap_err();
    assert!(matches!(error, ShapeError::Size { found: 33, .. }), "{error}");
    assert!(linear(&[0.0; 4], Weight::F32(&w), Some(&[0.0]), &mut y, 1, 4, 3).is_err());
    assert!(linear_input_grad(&[0.0; 3], Weight::F32(&w[1..]), &mut [0.0; 4], 1, 4, 3).is_err());
}
