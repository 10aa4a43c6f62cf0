//! Standardised features: z = (x - mean) / deviation of each of the E numbers, measured on items of the data.
//!
//! The stitch is trained on z and saved for x: W (x - m) / s + b = (W / s) x + b - (W / s) m, folded in f64.

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device, Tensor, Var};
use limber_core::weights::FrozenData;
use std::collections::BTreeMap;

/// A deviation below this share of the largest one is that of a number that does not vary.
const STILL: f64 = 1e-6;

/// Mean and deviation of features.
#[derive(Debug, Clone)]
pub struct Standard {
    mean: Vec<f32>,
    deviation: Vec<f32>,
    /// Both on the device, `[E]`.
    tensors: (Tensor, Tensor),
}

/// Sums from which a [`Standard`] is made.
pub struct Measured {
    count: f64,
    /// Of each number: the first value, from which the sums count, the sum and the sum of squares.
    sums: Vec<[f64; 3]>,
}

impl Measured {
    /// No features yet, of width `e`.
    pub fn new(e: usize) -> Self {
        Self { count: 0.0, sums: vec![[0.0; 3]; e] }
    }

    /// Adds the features `[B, N, E]`.
    ///
    /// # Errors
    /// Features of another width.
    pub fn add(&mut self, features: &Tensor) -> Result<()> {
        let values = features.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
        for row in values.chunks_exact(self.sums.len()) {
            for (sum, value) in self.sums.iter_mut().zip(row) {
                let value = f64::from(*value);
                if self.count == 0.0 {
                    sum[0] = value;
                }
                let away = value - sum[0];
                sum[1] += away;
                sum[2] += away * away;
            }
            self.count += 1.0;
        }
        Ok(())
    }

    /// Mean and deviation of each number; 1 for the deviation of one that does not vary.
    pub fn finish(self) -> (Vec<f32>, Vec<f32>) {
        let n = self.count.max(1.0);
        let spread = |[_, sum, squares]: [f64; 3]| (squares / n - (sum / n).powi(2)).max(0.0).sqrt();
        let largest = self.sums.iter().map(|sums| spread(*sums)).fold(0.0, f64::max);
        let mean = self.sums.iter().map(|[first, sum, _]| (first + sum / n) as f32).collect();
        let varies = |s: f64| s.is_finite() && s > STILL * largest;
        let deviation = self.sums.iter().map(|sums| Some(spread(*sums)).filter(|s| varies(*s)).unwrap_or(1.0) as f32);
        (mean, deviation.collect())
    }
}

impl Standard {
    /// The standardisation by `mean` and `deviation`, E numbers each.
    ///
    /// # Errors
    /// Values that are not finite, deviations that are not positive.
    pub fn new(mean: Vec<f32>, deviation: Vec<f32>, device: &Device) -> Result<Self> {
        if mean.iter().any(|m| !m.is_finite()) || deviation.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            bail!("the features have no finite mean and deviation to standardise them by")
        }
        let on = |values: &[f32]| Tensor::new(values, device);
        let tensors = (on(&mean)?, on(&deviation)?);
        Ok(Self { mean, deviation, tensors })
    }

    /// Mean and deviation.
    pub fn values(&self) -> [(&'static str, &[f32]); 2] {
        [("mean", &self.mean), ("deviation", &self.deviation)]
    }

    /// Features `[B, N, E]` standardised.
    ///
    /// # Errors
    /// Features of another width.
    pub fn apply(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        features.broadcast_sub(&self.tensors.0)?.broadcast_div(&self.tensors.1)
    }

    /// A stitch that takes z, as one that takes x.
    ///
    /// # Errors
    /// A stitch without a first linear layer.
    pub fn fold(&self, mut tensors: BTreeMap<String, FrozenData>) -> Result<BTreeMap<String, FrozenData>> {
        let (weight, bias) = first_layer(tensors.keys())?;
        let all = |name: &str| tensors.get(name).map(|data| data.to_f32(0..data.elements())).unwrap_or_default();
        let (mut w, mut b) = (all(&weight), all(&bias));
        for (row, bias) in w.chunks_exact_mut(self.mean.len()).zip(&mut b) {
            let mut shift = 0.0;
            for ((value, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                let folded = f64::from(*value) / f64::from(*deviation);
                shift += folded * f64::from(*mean);
                *value = folded as f32;
            }
            *bias = (f64::from(*bias) - shift) as f32;
        }
        let rows = b.len();
        tensors.insert(weight, FrozenData::from_f32(w, &[rows, self.mean.len()]));
        tensors.insert(bias, FrozenData::from_f32(b, &[rows]));
        Ok(tensors)
    }

    /// Makes of variables that take x ones that take z: what [`Self::fold`] undoes.
    ///
    /// # Errors
    /// As [`Self::fold`].
    pub fn unfold(&self, variables: &BTreeMap<String, Var>) -> Result<()> {
        let (weight, bias) = first_layer(variables.keys())?;
        let of = |name: &str| variables.get(name).context("a variable that was there before");
        let (weight, bias) = (of(&weight)?, of(&bias)?);
        let (mut w, mut b) = (weight.flatten_all()?.to_vec1::<f32>()?, bias.to_vec1::<f32>()?);
        for (row, bias) in w.chunks_exact_mut(self.mean.len()).zip(&mut b) {
            let mut shift = 0.0;
            for ((value, mean), deviation) in row.iter_mut().zip(&self.mean).zip(&self.deviation) {
                shift += f64::from(*value) * f64::from(*mean);
                *value = (f64::from(*value) * f64::from(*deviation)) as f32;
            }
            *bias = (f64::from(*bias) + shift) as f32;
        }
        weight.set(&Tensor::from_vec(w, weight.shape(), weight.device())?)?;
        Ok(bias.set(&Tensor::from_vec(b, bias.shape(), bias.device())?)?)
    }
}

/// The names of the layer that takes the features.
///
/// # Errors
/// A stitch without one.
pub fn first_layer<'a>(names: impl Iterator<Item = &'a String> + Clone) -> Result<(String, String)> {
    for prefix in ["", "0."] {
        let pair = (format!("{prefix}weight"), format!("{prefix}bias"));
        if names.clone().any(|name| *name == pair.0) && names.clone().any(|name| *name == pair.1) {
            return Ok(pair);
        }
    }
    let names: Vec<&str> = names.map(String::as_str).collect();
    bail!(
        "train.standardise folds mean and deviation into the stitch's first linear layer, but the stitch has {}; expected \
         the kind \"linear\" or \"mlp\"",
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folded_stitch_takes_the_features_themselves() {
        let x = Tensor::new(&[[[1.0f32, 100.0, 7.0], [3.0, 300.0, 7.0], [5.0, 200.0, 7.0]]], &Device::Cpu).unwrap();
        let mut measured = Measured::new(3);
        measured.add(&x).unwrap();
        let (mean, deviation) = measured.finish();
        assert_eq!(mean, [3.0, 200.0, 7.0]);
        let expected = [(8f32 / 3.0).sqrt(), (20000f32 / 3.0).sqrt(), 1.0];
        assert!(deviation.iter().zip(expected).all(|(a, b)| (a / b - 1.0).abs() < 1e-6), "{deviation:?}");
        let standard = Standard::new(mean, deviation, &Device::Cpu).unwrap();
        let var = |values: &[f32], shape: &[usize]| Var::from_slice(values, shape, &Device::Cpu).unwrap();
        let variables = BTreeMap::from([
            ("bias".to_string(), var(&[0.5, -0.5], &[2])),
            ("weight".to_string(), var(&[1.0, 2.0, 3.0, -1.0, 0.0, 4.0], &[2, 3])),
        ]);
        let project = |w: &Tensor, b: &Tensor, x: &Tensor| {
            let y = x.squeeze(0).unwrap().matmul(&w.t().unwrap()).unwrap().broadcast_add(b).unwrap();
            y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let on_z = project(&variables["weight"], &variables["bias"], &standard.apply(&x).unwrap());
        let folded = standard.fold(super::super::checkpoint::tensors(&variables).unwrap()).unwrap();
        let tensor = |name: &str| {
            let data = &folded[name];
            Tensor::from_vec(data.to_f32(0..data.elements()), data.shape(), &Device::Cpu).unwrap()
        };
        let on_x = project(&tensor("weight"), &tensor("bias"), &x);
        // f32 sums around 7.
        assert!(on_z.iter().zip(&on_x).all(|(a, b)| (a - b).abs() < 1e-5), "{on_z:?} {on_x:?}");
        let back: BTreeMap<String, Var> =
            ["weight", "bias"].map(|name| (name.to_string(), Var::from_tensor(&tensor(name)).unwrap())).into();
        standard.unfold(&back).unwrap();
        let again = project(&back["weight"], &back["bias"], &standard.apply(&x).unwrap());
        assert!(on_z.iter().zip(&again).all(|(a, b)| (a - b).abs() < 1e-5), "{on_z:?} {again:?}");
        let message = first_layer(["queries".to_string()].iter()).unwrap_err().to_string();
        assert!(message.contains("the stitch has queries; expected the kind \"linear\" or \"mlp\""), "{message}");
        assert!(Standard::new(vec![f32::NAN], vec![1.0], &Device::Cpu).is_err());
    }
}
