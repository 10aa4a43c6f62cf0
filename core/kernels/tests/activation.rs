//! Activations and their gradients against f64, at every instruction set.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use limber_kernels::{Activation, Level, activate, activate_in_place, activate_input_grad, with_level};
use support::{differences, noise};

/// Phi(-a) for a >= 0: a series near zero, a continued fraction in the tail.
fn lower_tail(a: f64) -> f64 {
    let density = (-0.5 * a * a).exp() / (2.0 * std::f64::consts::PI).sqrt();
    if a < 3.0 {
        // Phi(a) - 1/2 = density (a + a^3 / 3 + a^5 / 15 + ..), all terms of one sign.
        let (mut term, mut sum) = (a, a);
        for k in 1..80 {
            term *= a * a / f64::from(2 * k + 1);
            sum += term;
        }
        return 0.5 - density * sum;
    }
    let fraction = (1..200).rev().fold(a, |f, k| a + f64::from(k) / f);
    density / fraction
}

fn reference(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Gelu if x < 0.0 => x * lower_tail(-x),
        Activation::Gelu => x * (1.0 - lower_tail(x)),
        Activation::GeluNew => {
            // 1 + tanh(u) = 2 sigmoid(2 u), without its cancellation.
            x * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3)))
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Silu => x * sigmoid(x),
    }
}

#[test]
fn the_reference_is_the_normal_distribution() {
    // scipy.stats.norm.cdf.
    for (x, phi) in [(0.5, 0.308_537_538_725_986_9), (2.0, 0.022_750_131_948_179_21), (6.0, 9.865_876_450_376_946e-10)]
    {
        let error: f64 = lower_tail(x) / phi - 1.0;
        assert!(error.abs() < 1e-12, "{x}: {error}");
    }
}

#[test]
fn values_match_f64() {
    for n in [1, 7, 100, 40_000] {
        let mut x: Vec<f32> = noise(n, 1).iter().map(|v| v * 9.0).collect();
        if n > 7 {
            x[..7].copy_from_slice(&[0.0, -0.0, 1e-20, -1e-20, 30.0, -12.5, f32::MIN_POSITIVE]);
        }
        for activation in Activation::ALL {
            for level in Level::supported() {
                let mut y = vec![f32::NAN; n];
                with_level(level, || activate(activation, &x, &mut y)).unwrap();
                // Some roundings of f32; in the lower tail e^u carries the rounding of u, below 90, too. Where products are
                // fused Gelu's kernel undoes it.
                for (i, &y) in y.iter().enumerate() {
                    let expected = reference(activation, f64::from(x[i]));
                    let exact = x[i] >= 0.0 || activation == Activation::Gelu && level != Level::Portable;
                    let bound = expected.abs() * if exact { 1e-6 } else { 1e-5 };
                    let error = (f64::from(y) - expected).abs();
                    assert!(error <= bound + 1e-37, "{level:?} {activation:?}({}) = {y}, not {expected}", x[i]);
                }
                let mut z = x.clone();
                with_level(level, || activate_in_place(activation, &mut z));
                assert_eq!(y, z);
            }
        }
    }
}

#[test]
fn gradients_match_differences() {
    for n in [2, 33, 100] {
        let x: Vec<f32> = noise(n, 1).iter().map(|v| v * 6.0).collect();
        let gy = noise(n, 2);
        for activation in Activation::ALL {
            let f = |x: &[f64]| x.iter().map(|&x| reference(activation, x)).collect();
            let expected = differences(&x, &gy, f);
            for level in Level::supported() {
                let mut gx = vec![f32::NAN; n];
                with_level(level, || activate_input_grad(activation, &x, &gy, &mut gx)).unwrap();
                // The differences are good to 1e-9, the derivative to some roundings of e^u.
                support::close(&gx, &expected, 3e-6, &format!("{level:?} {activation:?}"));
            }
        }
    }
    let mut gx = [f32::NAN; 3];
    activate_input_grad(Activation::Relu, &[-1.0, 0.0, 1.0], &[5.0; 3], &mut gx).unwrap();
    assert_eq!(gx, [0.0, 0.0, 5.0]);
    activate_input_grad(Activation::Gelu, &[0.0; 3], &[5.0; 3], &mut gx).unwrap();
    assert_eq!(gx, [2.5; 3]);
}

#[test]
fn what_is_not_a_number_stays_so() {
    for activation in Activation::ALL {
        for level in Level::supported() {
            let mut x = [f32::NAN; 21];
            with_level(level, || activate_in_place(activation, &mut x));
            assert!(x.iter().all(|v| v.is_nan()), "{level:?} {activation:?}");
        }
    }
}

#[test]
fn lengths_that_differ_are_refused() {
    let error = activate(Activation::Silu, &[0.0; 3], &mut [0.0; 2]).unwrap_err();
    assert_eq!(error.to_string(), "y has 2 elements; its shape [3] needs 3");
    assert!(activate_input_grad(Activation::Silu, &[0.0; 3], &[0.0; 2], &mut [0.0; 3]).is_err());
}
