//! Dropout whose mask is a function of a seed, so that a step can be run again bit for bit.

use crate::random::RandomSource;
use crate::weights::{Init, Request, WeightSource, WeightType};
use candle_core::{Result, Tensor};

/// Zeroes each element of x with probability `p` and scales the rest by 1 / (1 - p); the graph is kept.
///
/// # Errors
/// A probability outside 0..1.
pub fn dropout(x: &Tensor, p: f32, seed: u64) -> Result<Tensor> {
    if !(0.0..1.0).contains(&p) {
        candle_core::bail!("dropout {p} is not allowed, it lies in 0..1")
    }
    if p == 0.0 {
        return Ok(x.clone());
    }
    let request = Request {
        name: "dropout",
        shape: x.dims(),
        init: Init::Uniform { low: 0.0, high: 1.0 },
        dtype: WeightType::F32,
    };
    let draw = RandomSource::new(seed).read(&request).map_err(candle_core::Error::wrap)?;
    let scale = 1.0 / (1.0 - p);
    let mask: Vec<f32> = draw.to_f32(0..draw.elements()).into_iter().map(|u| if u < p { 0.0 } else { scale }).collect();
    x.mul(&Tensor::from_vec(mask, x.dims(), x.device())?)
}
