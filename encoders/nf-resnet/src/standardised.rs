//! Scaled weight standardisation, computed once at load: a plain convolution comes out.
//!
//! Source followed: timm's `ScaledStdConv2d` (`layers/std_conv.py`). For every output channel,
//! W' = gain gamma / sqrt(fan_in) (W - mean) / sqrt(var + eps), with the variance over all of its inputs (not the
//! unbiased one), eps = 1e-5 as the `nf_resnet` configs set it, and gamma the gain of a ReLU.

use candle_core::Tensor;
use limber_core::Init;
use limber_core::frozen::FrozenConv;
use limber_core::weights::{ONES, WeightError, Weights, ZEROS};
use rayon::prelude::*;

/// timm's `std_conv_eps`.
const EPS: f64 = 1e-5;
/// What keeps the variance of a ReLU's output at 1, in timm's digits.
const GAMMA: f64 = 1.713_958_859_443_664_6;

/// A convolution's sizes, and what stands before and behind it.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    n_in: usize,
    n_out: usize,
    kernel: usize,
    stride: usize,
    input: f64,
    output: f64,
    gain: Init,
}

impl Shape {
    /// `n_in` to `n_out` channels, a square kernel with a border of half its side.
    pub fn new(n_in: usize, n_out: usize, kernel: usize, stride: usize) -> Self {
        Self { n_in, n_out, kernel, stride, input: 1.0, output: 1.0, gain: ONES }
    }

    /// The input is scaled by this first.
    pub fn input(self, scale: f64) -> Self {
        Self { input: scale, ..self }
    }

    /// The output, bias and all, is scaled by this.
    pub fn output(self, scale: f64) -> Self {
        Self { output: scale, ..self }
    }

    /// Initialised with a gain of 0, as timm does at the end of a residual branch.
    pub fn closed(self) -> Self {
        Self { gain: ZEROS, ..self }
    }
}

/// `weight`, `bias` and `gain` as one frozen convolution.
///
/// # Errors
/// Weights that are missing or of another shape.
pub fn conv(w: &Weights, shape: Shape) -> Result<FrozenConv, WeightError> {
    let Shape { n_in, n_out, kernel, stride, input, output, gain } = shape;
    let fan_in = n_in * kernel * kernel;
    // Kaiming normal over the inputs for a linear layer: a deviation of 1 / sqrt(fan_in).
    let init = Init::normal(1.0 / (fan_in as f32).sqrt());
    let weight = w.tensor("weight", &[n_out, n_in, kernel, kernel], init)?;
    let bias = w.tensor("bias", &[n_out], ZEROS)?;
    let gain = w.tensor("gain", &[n_out, 1, 1, 1], gain)?;
    let fold = || -> candle_core::Result<FrozenConv> {
        let mut values = weight.flatten_all()?.to_vec1::<f32>()?;
        let gains = gain.flatten_all()?.to_vec1::<f32>()?;
        let scale = input * output * GAMMA / (fan_in as f64).sqrt();
        values.par_chunks_mut(fan_in).zip(gains).for_each(|(row, gain)| standardise(row, scale * f64::from(gain)));
        let weight = Tensor::from_vec(values, (n_out, n_in, kernel, kernel), w.device())?;
        FrozenConv::on(weight, Some((bias * output)?), stride, kernel / 2, w.backend())
    };
    fold().map_err(|e| WeightError::Read { source_label: w.source().label(), message: e.to_string() })
}

/// Mean 0, variance 1, then `scale`; in f64, for a mean over thousands of values.
fn standardise(row: &mut [f32], scale: f64) {
    let n = row.len() as f64;
    let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
    let scale = scale / (variance + EPS).sqrt();
    row.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) * scale) as f32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_get_mean_0_and_the_scale_as_deviation() {
        // Mean 2.5, variance 1.25.
        let mut row = [1.0, 2.0, 3.0, 4.0];
        standardise(&mut row, 2.0);
        let unit = 2.0 / f64::sqrt(1.25 + EPS);
        let expected = [-1.5, -0.5, 0.5, 1.5].map(|x| (x * unit) as f32);
        assert_eq!(row, expected);
        // A constant row has no direction: 0, not a division by 0.
        let mut row = [0.7; 4];
        standardise(&mut row, 2.0);
        assert_eq!(row, [0.0; 4]);
    }
}
