//! Convolution against a plain loop in f64, over awkward sizes, at every instruction set.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use limber_kernels::{Activation, Conv, ConvShape, Level, with_level};
use support::{close, noise};

/// y = conv(x) + bias in f64, x `[batch, h, w, n_in]`, weight `[n_out, n_in, kh, kw]`.
fn reference(s: &ConvShape, x: &[f32], [batch, h, w]: [usize; 3], weight: &[f32], bias: &[f32]) -> Vec<f64> {
    let (out_h, out_w) = s.output(h, w).unwrap();
    let mut y = Vec::new();
    for b in 0..batch {
        for (oy, ox) in (0..out_h).flat_map(|oy| (0..out_w).map(move |ox| (oy, ox))) {
            for (o, &bias) in bias.iter().enumerate() {
                let mut sum = f64::from(bias);
                for (ky, kx) in (0..s.kernel[0]).flat_map(|ky| (0..s.kernel[1]).map(move |kx| (ky, kx))) {
                    let iy = (oy * s.stride[0] + ky).wrapping_sub(s.padding[0]);
                    let ix = (ox * s.stride[1] + kx).wrapping_sub(s.padding[1]);
                    if iy >= h || ix >= w {
                        continue;
                    }
                    for i in 0..s.n_in {
                        let at = ((o * s.n_in + i) * s.kernel[0] + ky) * s.kernel[1] + kx;
                        sum += f64::from(x[((b * h + iy) * w + ix) * s.n_in + i]) * f64::from(weight[at]);
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

fn check(s: ConvShape, size: [usize; 3]) {
    let [batch, h, w] = size;
    // One element in, so that no row begins at a vector boundary.
    let x = noise(batch * h * w * s.n_in + 1, 1);
    let x = &x[1..];
    let weight = noise(s.n_out * s.n_in * s.kernel[0] * s.kernel[1], 2);
    let bias = noise(s.n_out, 3);
    let plain = reference(&s, x, size, &weight, &bias);
    let residual: Vec<f32> = noise(plain.len(), 4).iter().map(|v| v * 3.0).collect();
    let finished: Vec<f64> = plain.iter().zip(&residual).map(|(y, &r)| (y + f64::from(r)).max(0.0)).collect();
    let bare: Vec<f64> = plain.iter().enumerate().map(|(i, y)| y - f64::from(bias[i % s.n_out])).collect();
    for level in Level::supported() {
        with_level(level, || {
            for make in [Conv::new, Conv::direct] {
                let conv = make(s, &weight, Some(&bias)).unwrap();
                let name = format!("{conv:?} {size:?}");
                // f32 sums of up to some thousand terms, beside the largest; Winograd's are of transformed terms.
                close(&conv.run(x, size, None, None).unwrap(), &plain, 3e-6, &name);
                let y = conv.run(x, size, Some(&residual), Some(Activation::Relu)).unwrap();
                close(&y, &finished, 3e-6, &format!("{name} with residual and relu"));
                let conv = make(s, &weight, None).unwrap();
                close(&conv.run(x, size, None, None).unwrap(), &bare, 3e-6, &format!("{name} without bias"));
            }
        });
    }
}

#[test]
fn one_by_one_is_a_product_over_channels() {
    for (n_in, n_out) in [(1, 1), (5, 3), (16, 33), (130, 70), (515, 40)] {
        check(ConvShape::square(n_in, n_out, 1, 1, 0), [2, 5, 7]);
    }
    check(ConvShape::square(40, 70, 1, 1, 0), [1, 19, 23]);
    check(ConvShape::square(7, 9, 1, 2, 0), [2, 7, 4]);
}

#[test]
fn kernels_strides_and_paddings() {
    check(ConvShape::square(3, 20, 7, 2, 3), [2, 13, 18]);
    check(ConvShape::square(3, 16, 3, 2, 1), [1, 11, 11]);
    check(ConvShape::square(3, 40, 4, 4, 0), [1, 9, 12]);
    check(ConvShape::square(70, 33, 3, 2, 1), [1, 8, 9]);
    check(ConvShape::square(5, 6, 5, 1, 2), [2, 3, 2]);
    // TensorFlow's SAME for an even size at stride 2 pads at the end alone.
    check(ConvShape { padding: [0, 0, 1, 1], ..ConvShape::square(4, 18, 3, 2, 0) }, [1, 8, 6]);
    let uneven = ConvShape { n_in: 6, n_out: 10, kernel: [2, 3], stride: [2, 1], padding: [0, 2, 1, 0] };
    check(uneven, [2, 7, 5]);
}

#[test]
fn three_by_three_at_stride_one() {
    for (n_in, n_out, h, w) in [(16, 16, 1, 1), (16, 33, 4, 4), (19, 17, 5, 3), (48, 64, 7, 9), (270, 40, 6, 5)] {
        check(ConvShape::square(n_in, n_out, 3, 1, 1), [2, h, w]);
    }
    check(ConvShape::square(32, 300, 3, 1, 1), [1, 20, 21]);
    check(ConvShape::square(16, 16, 3, 1, 0), [1, 6, 5]);
    check(ConvShape { padding: [2, 0, 1, 2], ..ConvShape::square(20, 16, 3, 1, 0) }, [1, 4, 6]);
}

#[test]
fn a_scale_multiplies_the_outputs_weights() {
    for kernel in [1, 3] {
        let shape = ConvShape::square(20, 35, kernel, 1, kernel / 2);
        let (weight, scale, x) = (noise(35 * 20 * kernel * kernel, 1), noise(35, 2), noise(6 * 6 * 20, 3));
        let scaled: Vec<f32> = weight.iter().enumerate().map(|(i, w)| w * scale[i / (20 * kernel * kernel)]).collect();
        let run = |conv: Conv| conv.run(&x, [1, 6, 6], None, None).unwrap();
        assert_eq!(
            run(Conv::scaled(shape, &weight, &scale, None).unwrap()),
            run(Conv::new(shape, &scaled, None).unwrap())
        );
        assert!(Conv::scaled(shape, &weight, &scale[1..], None).is_err());
    }
}

#[test]
fn a_call_may_have_no_images() {
    let conv = Conv::new(ConvShape::square(16, 16, 3, 1, 1), &noise(16 * 16 * 9, 1), None).unwrap();
    assert!(conv.run(&[], [0, 4, 4], None, None).unwrap().is_empty());
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let shape = ConvShape::square(2, 3, 3, 1, 0);
    let error = Conv::new(shape, &[0.0; 5], None).unwrap_err();
    assert_eq!(error.to_string(), "convolution weight has 5 elements; its shape [3, 2, 3, 3] needs 54");
    assert!(Conv::new(shape, &[0.0; 54], Some(&[0.0; 2])).is_err());
    let error = Conv::new(ConvShape { stride: [1, 0], ..shape }, &[0.0; 54], None).unwrap_err();
    assert_eq!(error.to_string(), "stride of a convolution is 0; it must be at least 1");
    let conv = Conv::new(shape, &[0.0; 54], None).unwrap();
    assert!(conv.run(&[0.0; 17], [1, 3, 3], None, None).is_err());
    assert!(conv.run(&[0.0; 18], [1, 3, 3], Some(&[0.0; 2]), None).is_err());
    let error = conv.run(&[0.0; 12], [1, 2, 3], None, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "side of a convolution's input is 2; it must be at least the kernel's side, padding included"
    );
}
