//! The second half of an MLP and the gradient of a whole one against f64, at every instruction set.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use limber_kernels::{Activation, Level, Mlp, ShapeError, Weight, activate_in_place, activate_input_grad, with_level};
use support::{Stored, close, noise};

/// The products of `a [rows, depth]` with the columns of `b [depth, n]`, in f64.
fn product(a: &[f32], b: impl Fn(usize, usize) -> f32, rows: usize, depth: usize, n: usize) -> Vec<f64> {
    let one = |i: usize| (0..depth).map(|k| f64::from(a[i / n * depth + k]) * f64::from(b(k, i % n))).sum();
    (0..rows * n).map(one).collect()
}

fn check(kind: &str, n_in: usize, inner: usize, n_out: usize, activation: Activation) {
    let (first, second) = (Stored::new(kind, &noise(inner * n_in, 1)), Stored::new(kind, &noise(n_out * inner, 2)));
    let (v, w) = (first.widened(), second.widened());
    let bias = noise(n_out, 3);
    for rows in [0, 1, 5, 40] {
        let (h, residual, gy) = (noise(rows * inner, 4), noise(rows * n_out, 5), noise(rows * n_out, 6));
        let mut active = h.clone();
        activate_in_place(activation, &mut active);
        let plain = product(&active, |k, n| w[n * inner + k], rows, inner, n_out);
        let whole: Vec<f64> =
            plain.iter().enumerate().map(|(i, y)| y + f64::from(bias[i % n_out]) + f64::from(residual[i])).collect();
        let gh: Vec<f32> =
            product(&gy, |k, n| w[k * inner + n], rows, n_out, inner).into_iter().map(|x| x as f32).collect();
        let mut slopes = vec![0f32; gh.len()];
        activate_input_grad(activation, &h, &gh, &mut slopes).unwrap();
        let expected = product(&slopes, |k, n| v[k * n_in + n], rows, inner, n_in);
        for level in Level::supported() {
            let what = format!("{kind} {rows} rows of {n_in}, {inner}, {n_out} {level:?}");
            let mlp = Mlp { first: first.weight(), second: second.weight(), activation, n_in, inner, n_out };
            with_level(level, || {
                let mut y = vec![f32::NAN; rows * n_out];
                mlp.second_half(&h, None, None, &mut y, rows).unwrap();
                // f32 sums of up to 4400 terms of order 1.
                close(&y, &plain, 2e-5, &what);
                mlp.second_half(&h, Some(&bias), Some(&residual), &mut y, rows).unwrap();
                close(&y, &whole, 2e-5, &what);
                let mut gx = vec![f32::NAN; rows * n_in];
                mlp.input_grad(&h, &gy, &mut gx, rows).unwrap();
                close(&gx, &expected, 2e-5, &what);
            });
        }
    }
}

#[test]
fn both_match_f64() {
    for activation in Activation::ALL {
        check("f32", 5, 33, 7, activation);
    }
    // Beyond one block of hidden columns, and not by whole blocks of a product.
    check("bf16", 9, 4400, 34, Activation::GeluNew);
    check("f16", 9, 8192, 3, Activation::Gelu);
    check("q8_0", 64, 4128, 40, Activation::Silu);
    check("q4_k", 256, 4608, 33, Activation::GeluNew);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let w = [0f32; 12];
    let mlp = Mlp {
        first: Weight::F32(&w),
        second: Weight::F32(&w[..8]),
        activation: Activation::Relu,
        n_in: 3,
        inner: 4,
        n_out: 2,
    };
    let (h, gy) = ([0f32; 4], [0f32; 2]);
    mlp.second_half(&h, None, None, &mut [0.0; 2], 1).unwrap();
    mlp.input_grad(&h, &gy, &mut [0.0; 3], 1).unwrap();
    let bad = |found: Result<(), ShapeError>, expected: &str| {
        let message = found.unwrap_err().to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    bad(mlp.second_half(&h[1..], None, None, &mut [0.0; 2], 1), "h has 3 elements; its shape [1, 4] needs 4");
    bad(mlp.second_half(&h, None, None, &mut [0.0; 3], 1), "y has 3 elements");
    bad(mlp.second_half(&h, Some(&[0.0]), None, &mut [0.0; 2], 1), "bias has 1 elements");
    bad(mlp.second_half(&h, None, Some(&[0.0]), &mut [0.0; 2], 1), "residual has 1 elements");
    bad(mlp.input_grad(&h, &gy[1..], &mut [0.0; 3], 1), "gy has 1 elements");
    bad(mlp.input_grad(&h, &gy, &mut [0.0; 2], 1), "gx has 2 elements");
    bad(Mlp { second: Weight::F32(&w), ..mlp }.input_grad(&h, &gy, &mut [0.0; 3], 1), "f32 weight has 12 elements");
    bad(
        Mlp { inner: 0, ..mlp }.input_grad(&h, &gy, &mut [0.0; 3], 1),
        "width of the hidden layer is 0; it must be 1 or above",
    );
}
