//! `random:SEED`: a source that draws any tensor, the same on every machine and with any number of threads.
//!
//! Element i of a tensor is drawn from xoshiro256++, seeded by SHA-256 of (seed, name, i / 65536); normal numbers are
//! `rand_distr`'s ziggurat over `libm`, so no platform's mathematics library takes part.

use crate::weights::{FrozenData, Init, Request, WeightError, WeightSource, WeightType};
use half::{bf16, f16};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Elements of one stream.
const BLOCK: usize = 1 << 16;

/// Draws every tensor that is asked of it.
#[derive(Debug, Clone, Copy)]
pub struct RandomSource {
    seed: u64,
}

impl RandomSource {
    /// The source of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }
}

impl WeightSource for RandomSource {
    fn label(&self) -> String {
        format!("random:{}", self.seed)
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        None
    }

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        let n: usize = request.shape.iter().product();
        let shape = request.shape;
        Ok(match request.dtype {
            WeightType::F32 => FrozenData::from_f32(self.draw(request, n, 0f32, |x| x), shape),
            WeightType::F16 => FrozenData::from_f16(self.draw(request, n, f16::ZERO, f16::from_f32), shape),
            WeightType::Bf16 => FrozenData::from_bf16(self.draw(request, n, bf16::ZERO, bf16::from_f32), shape),
            WeightType::Q8_0 | WeightType::Q4K | WeightType::Blocks(_) => {
                FrozenData::from_f32(self.draw(request, n, 0f32, |x| x), shape).convert(request.dtype)
            }
        })
    }
}

impl RandomSource {
    fn draw<T: Copy + Send + Sync>(
        &self,
        request: &Request,
        n: usize,
        zero: T,
        round: impl Fn(f32) -> T + Sync,
    ) -> Vec<T> {
        if let Init::Const(value) = request.init {
            return vec![round(value); n];
        }
        let mut key = Sha256::new();
        key.update(self.seed.to_le_bytes());
        key.update(request.name.as_bytes());
        let mut out = vec![zero; n];
        out.par_chunks_mut(BLOCK).enumerate().for_each(|(block, values)| {
            let block = key.clone().chain_update((block as u64).to_le_bytes()).finalize();
            let mut rng = Xoshiro256PlusPlus::from_seed(block.into());
            for value in values {
                *value = round(element(&mut rng, request.init));
            }
        });
        if let (Init::NormalButRow { row, .. }, [rows, width]) = (request.init, request.shape)
            && row < *rows
        {
            out[row * width..(row + 1) * width].fill(zero);
        }
        out
    }
}

fn element(rng: &mut Xoshiro256PlusPlus, init: Init) -> f32 {
    match init {
        Init::Const(value) => value,
        Init::Normal { mean, std } => {
            let z: f32 = StandardNormal.sample(rng);
            mean + std * z
        }
        Init::NormalButRow { std, .. } => element(rng, Init::normal(std)),
        Init::TruncatedNormal { std, low, high } => loop {
            let z: f32 = StandardNormal.sample(rng);
            let x = std * z;
            if (low..=high).contains(&x) {
                break x;
            }
        },
        Init::Uniform { low, high } => {
            // 24 bits give every multiple of 2^-24 in 0..1 exactly.
            let unit = (rng.next_u64() >> 40) as f32 * (1.0 / (1u32 << 24) as f32);
            low + (high - low) * unit
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: u64, name: &str, init: Init, dtype: WeightType, n: usize) -> Vec<f32> {
        let request = Request { name, shape: &[n], init, dtype };
        RandomSource::new(seed).read(&request).unwrap().to_f32(0..n)
    }

    #[test]
    fn the_same_everywhere() {
        let a = values(1, "a.weight", Init::normal(1.0), WeightType::F32, 3);
        let b = values(1, "a.weight", Init::normal(1.0), WeightType::F32, 200_000);
        assert_eq!(a, b[..3]);
        // Drawn once and kept: a change of crates that moves what a seed means must fail here.
        assert_eq!(a, [0.2509194, 0.3666615, -0.8594481]);
        assert_ne!(a, values(2, "a.weight", Init::normal(1.0), WeightType::F32, 3));
        assert_ne!(a, values(1, "b.weight", Init::normal(1.0), WeightType::F32, 3));
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let c = one.install(|| values(1, "a.weight", Init::normal(1.0), WeightType::F32, 200_000));
        assert_eq!(b, c);
    }

    #[test]
    fn distributions_have_their_moments() {
        let n = 1_000_000;
        let moments = |v: &[f32]| {
            let mean = v.iter().map(|x| f64::from(*x)).sum::<f64>() / v.len() as f64;
            let var = v.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / v.len() as f64;
            (mean, var.sqrt())
        };
        // Five standard errors of the mean and of the deviation at n = 1e6.
        let (mean, std) = moments(&values(7, "n", Init::Normal { mean: 0.5, std: 2.0 }, WeightType::F32, n));
        assert!((mean - 0.5).abs() < 0.01 && (std - 2.0).abs() < 0.008, "{mean} {std}");
        let uniform = values(7, "u", Init::Uniform { low: -1.0, high: 3.0 }, WeightType::F32, n);
        let (mean, std) = moments(&uniform);
        assert!((mean - 1.0).abs() < 0.006 && (std - 4.0 / 12f64.sqrt()).abs() < 0.004, "{mean} {std}");
        assert!(uniform.iter().all(|x| (-1.0..3.0).contains(x)));
        // A normal cut at two deviations has 0.8796 of its deviation left.
        let cut = values(7, "t", Init::TruncatedNormal { std: 0.5, low: -1.0, high: 1.0 }, WeightType::F32, n);
        let (mean, std) = moments(&cut);
        assert!(mean.abs() < 0.0025 && (std - 0.4398).abs() < 0.0015, "{mean} {std}");
        assert!(cut.iter().all(|x| x.abs() <= 1.0));
    }

    #[test]
    fn a_padding_row_is_zero_and_the_others_are_as_without_it() {
        let draw = |init| {
            let request = Request { name: "table", shape: &[5, 300], init, dtype: WeightType::F32 };
            RandomSource::new(9).read(&request).unwrap().to_f32(0..1500)
        };
        let (padded, plain) = (draw(Init::NormalButRow { std: 0.5, row: 1 }), draw(Init::normal(0.5)));
        assert!(padded[300..600].iter().all(|x| *x == 0.0) && plain[300..600].iter().all(|x| *x != 0.0));
        assert_eq!((&padded[..300], &padded[600..]), (&plain[..300], &plain[600..]));
        assert_eq!(draw(Init::NormalButRow { std: 0.5, row: 5 }), plain);
    }

    #[test]
    fn other_types_round_the_same_draw() {
        let f = values(3, "w", Init::normal(0.02), WeightType::F32, 1000);
        let b = values(3, "w", Init::normal(0.02), WeightType::Bf16, 1000);
        assert!(f.iter().zip(&b).all(|(f, b)| bf16::from_f32(*f).to_f32() == *b));
    }
}
