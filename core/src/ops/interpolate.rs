//! Resizing of a table of positions laid out as a grid: PyTorch's `interpolate` with `align_corners=False`, no
//! antialiasing.
//!
//! Models trained at one image size run at another on position tables resized so.

use candle_core::{Result, Tensor};

/// How values between the grid's points are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// From the two nearest of each direction.
    Bilinear,
    /// From the four nearest of each direction, cubic convolution with a = -0.75.
    Bicubic,
}

/// grid `[h, w, C]` f32 to `[to.0, to.1, C]` f32; a grid that has the size already stays as it is, bit for bit.
///
/// # Errors
/// A tensor that is no grid, a size of zero.
pub fn interpolate(grid: &Tensor, to: (usize, usize), mode: Interpolation) -> Result<Tensor> {
    let (h, w, c) = grid.dims3()?;
    if [h, w, c, to.0, to.1].contains(&0) {
        candle_core::bail!("a grid of shape {:?} cannot be resized to {} x {}", grid.dims(), to.0, to.1)
    }
    let mut values = grid.flatten_all()?.to_vec1::<f32>()?;
    // One direction after the other: the weights are a product.
    if w != to.1 {
        values = resize_axis(&values, h, w, to.1, c, mode);
    }
    if h != to.0 {
        values = resize_axis(&values, 1, h, to.0, to.1 * c, mode);
    }
    Tensor::from_vec(values, (to.0, to.1, c), grid.device())
}

/// `[rows, from, width]` to `[rows, to, width]`.
fn resize_axis(values: &[f32], rows: usize, from: usize, to: usize, width: usize, mode: Interpolation) -> Vec<f32> {
    let taps: Vec<Vec<(usize, f32)>> = (0..to).map(|at| taps(at, from, to, mode)).collect();
    let mut out = vec![0f32; rows * to * width];
    for (row, lines) in out.chunks_mut(to * width).enumerate() {
        for (line, taps) in lines.chunks_mut(width).zip(&taps) {
            for (source, weight) in taps {
                let source = &values[(row * from + source) * width..][..width];
                line.iter_mut().zip(source).for_each(|(sum, value)| *sum += weight * value);
            }
        }
    }
    out
}

/// Which inputs weigh on output `at`, and how much; those beyond an edge are the edge's.
fn taps(at: usize, from: usize, to: usize, mode: Interpolation) -> Vec<(usize, f32)> {
    let centre = (at as f64 + 0.5) * from as f64 / to as f64 - 0.5;
    let (first, weights) = match mode {
        Interpolation::Bilinear => {
            let centre = centre.max(0.0);
            let t = centre.fract();
            (centre as i64, vec![1.0 - t, t])
        }
        Interpolation::Bicubic => {
            let t = centre - centre.floor();
            (centre.floor() as i64 - 1, [1.0 + t, t, 1.0 - t, 2.0 - t].map(cubic).to_vec())
        }
    };
    let inside = |offset: usize| (first + offset as i64).clamp(0, from as i64 - 1) as usize;
    weights.iter().enumerate().map(|(offset, weight)| (inside(offset), *weight as f32)).collect()
}

/// Keys' cubic at distance `x` from 0 to 2, with PyTorch's a.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.75;
    if x <= 1.0 { ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0 } else { ((x - 5.0) * x + 8.0) * x * A - 4.0 * A }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// `torch.nn.functional.interpolate` of the grid 0, 1, 4, 9, 16, 25 as 2 x 3.
    #[test]
    fn values_are_pytorchs() {
        let grid = Tensor::new(&[0f32, 1.0, 4.0, 9.0, 16.0, 25.0], &Device::Cpu).unwrap().reshape((2, 3, 1)).unwrap();
        let check = |to: (usize, usize), mode: Interpolation, expected: &[f32]| {
            let found = interpolate(&grid, to, mode).unwrap();
            assert_eq!(found.dims(), [to.0, to.1, 1]);
            let found = found.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            // PyTorch rounds its weights to f32, ours are f64 until they are applied.
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{mode:?} {to:?}: {found:?}");
        };
        check((2, 3), Interpolation::Bicubic, &[0.0, 1.0, 4.0, 9.0, 16.0, 25.0]);
        check(
            (3, 5),
            Interpolation::Bilinear,
            &[0.0, 0.4, 1.0, 2.8, 4.0, 4.5, 6.1, 8.5, 12.1, 14.5, 9.0, 11.800001, 16.0, 21.400002, 25.0],
        );
        check((4, 2), Interpolation::Bilinear, &[0.25, 3.25, 2.875, 8.125, 8.125, 17.875, 10.75, 22.75]);
        check(
            (3, 5),
            Interpolation::Bicubic,
            &[
                -0.82725, -0.773833, -0.302083, 1.249667, 2.415084, 4.116, 5.620002, 8.5, 12.46, 15.076001, 9.05925,
                12.013836, 17.302082, 23.670334, 27.736916,
            ],
        );
        check((1, 7), Interpolation::Bicubic, &[4.062684, 4.905256, 6.190962, 8.5, 11.438773, 13.82653, 15.155979]);
    }

    #[test]
    fn channels_stay_apart() {
        let one = Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap().reshape((3, 4, 1)).unwrap();
        let two = Tensor::cat(&[&one, &(&one * -2.0).unwrap()], 2).unwrap();
        let resized = interpolate(&two, (5, 7), Interpolation::Bicubic).unwrap();
        let first = interpolate(&one, (5, 7), Interpolation::Bicubic).unwrap();
        let apart = (resized.narrow(2, 0, 1).unwrap() - &first).unwrap().abs().unwrap().sum_all().unwrap();
        assert_eq!(apart.to_scalar::<f32>().unwrap(), 0.0);
        let apart = (resized.narrow(2, 1, 1).unwrap() + (first * 2.0).unwrap()).unwrap().abs().unwrap();
        assert!(apart.sum_all().unwrap().to_scalar::<f32>().unwrap() < 1e-4);
    }

    #[test]
    fn nothing_cannot_be_resized() {
        let grid = Tensor::zeros((2, 2, 1), candle_core::DType::F32, &Device::Cpu).unwrap();
        let message = interpolate(&grid, (0, 3), Interpolation::Bilinear).unwrap_err().to_string();
        assert!(message.contains("cannot be resized to 0 x 3"), "{message}");
    }
}
