//! Pools and transposition against plain loops, at every instruction set.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use limber_kernels::{Level, PoolShape, average_pool, max_pool, transpose, with_level};
use support::{close, noise, wide};

/// Mean and largest of every window's pixels inside the image.
fn reference(x: &[f32], [batch, h, w, c]: [usize; 4], s: PoolShape) -> [Vec<f64>; 2] {
    let (out_h, out_w) = s.outputs(h, w).unwrap();
    let (mut means, mut tops) = (Vec::new(), Vec::new());
    for (b, oy, ox) in (0..batch).flat_map(|b| (0..out_h).flat_map(move |oy| (0..out_w).map(move |ox| (b, oy, ox)))) {
        for channel in 0..c {
            let mut window = Vec::new();
            for (ky, kx) in (0..s.kernel).flat_map(|ky| (0..s.kernel).map(move |kx| (ky, kx))) {
                let y = (oy * s.stride + ky).wrapping_sub(s.padding);
                let x_ = (ox * s.stride + kx).wrapping_sub(s.padding);
                if y < h && x_ < w {
                    window.push(f64::from(x[((b * h + y) * w + x_) * c + channel]));
                }
            }
            means.push(window.iter().sum::<f64>() / window.len() as f64);
            tops.push(window.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
    }
    [means, tops]
}

#[test]
fn pools_match_plain_loops() {
    let half = PoolShape { kernel: 2, stride: 2, padding: 0, ceil: false };
    let stem = PoolShape { kernel: 3, stride: 2, padding: 1, ceil: false };
    for (shape, h, w) in [
        (half, 6, 8),
        (half, 7, 5),
        (PoolShape { ceil: true, ..half }, 7, 5),
        (PoolShape { ceil: true, ..half }, 1, 4),
        (stem, 8, 7),
        (stem, 1, 2),
        (PoolShape { kernel: 7, stride: 7, padding: 0, ceil: false }, 7, 7),
    ] {
        for c in [1, 5, 16, 67] {
            let size = [2, h, w, c];
            let x: Vec<f32> = noise(2 * h * w * c, 1).iter().map(|v| v - 2.0).collect();
            let [mean, top] = reference(&x, size, shape);
            for level in Level::supported() {
                let name = format!("{level:?} {shape:?} {size:?}");
                let (a, m) = with_level(level, || (average_pool(&x, size, shape), max_pool(&x, size, shape)));
                // Roundings of sums of up to 49 terms.
                close(&a.unwrap(), &mean, 1e-6, &name);
                close(&m.unwrap(), &top, 0.0, &name);
            }
        }
    }
}

#[test]
fn windows_are_pytorchs() {
    // torch.nn.functional.max_pool2d(torch.zeros(1, 1, n, n), 3, 2, 1, ceil_mode=ceil).shape and so on.
    for (kernel, stride, padding, ceil, size, expected) in [
        (3, 2, 1, false, 192, Some(96)),
        (3, 2, 1, true, 192, Some(97)),
        (2, 2, 0, true, 7, Some(4)),
        (2, 2, 0, false, 7, Some(3)),
        (2, 3, 1, true, 5, Some(2)),
        (3, 2, 1, false, 1, Some(1)),
        (2, 2, 0, false, 1, None),
        (3, 2, 2, false, 9, None),
    ] {
        let shape = PoolShape { kernel, stride, padding, ceil };
        assert_eq!(shape.outputs(size, size).map(|s| s.0), expected, "{shape:?} of {size}");
    }
    let error = average_pool(&[0.0; 2], [1, 1, 2, 1], PoolShape { kernel: 2, stride: 2, padding: 0, ceil: false });
    assert_eq!(
        error.unwrap_err().to_string(),
        "side of a pool's input is 1; it must be at least the window's side, padding of at most half of it included"
    );
}

#[test]
fn transposition_moves_every_element() {
    for (batch, rows, columns) in [(1, 1, 1), (2, 3, 500), (1, 16, 16), (2, 33, 70), (1, 300, 3), (0, 4, 4), (1, 0, 4)]
    {
        let x = noise(batch * rows * columns, 1);
        let mut expected = vec![0.0; x.len()];
        for (i, &v) in x.iter().enumerate() {
            let (b, r, c) = (i / (rows * columns), i / columns % rows, i % columns);
            expected[(b * columns + c) * rows + r] = v;
        }
        for level in Level::supported() {
            let y = with_level(level, || transpose(&x, [batch, rows, columns])).unwrap();
            close(&y, &wide(&expected), 0.0, &format!("{level:?} {batch} {rows} {columns}"));
        }
    }
    assert!(transpose(&[0.0; 3], [1, 2, 2]).is_err());
}
