//! Random weights with which every branch of a component counts.
//!
//! At the scale models are initialised with, attention is nearly uniform and biases are 0: a query that gets no
//! gradient or a bias that is forgotten would drown in the tolerance.

use candle_core::Device;
use limber_core::random::RandomSource;
use limber_core::weights::{FrozenData, Request, WeightError};
use limber_core::{Init, WeightSource, Weights};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Random weights that go through a function: it answers each request from the random source.
pub struct Drawn<F> {
    random: RandomSource,
    read: F,
}

impl<F: Fn(&RandomSource, &Request) -> Result<FrozenData, WeightError> + Send + Sync> Drawn<F> {
    /// The weights of `seed` as `read` gives them.
    pub fn new(seed: u64, read: F) -> Self {
        Self { random: RandomSource::new(seed), read }
    }
}

impl<F: Fn(&RandomSource, &Request) -> Result<FrozenData, WeightError> + Send + Sync> WeightSource for Drawn<F> {
    fn label(&self) -> String {
        self.random.label()
    }

    fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
        None
    }

    fn read(&self, request: &Request) -> Result<FrozenData, WeightError> {
        (self.read)(&self.random, request)
    }
}

/// The random source of a seed, with matrices of gain 1 and constants spread by 0.2.
pub(crate) fn lively(seed: u64) -> Arc<dyn WeightSource> {
    Arc::new(Drawn::new(seed, |random: &RandomSource, request: &Request| {
        let init = match (request.init, request.shape) {
            (Init::Const(value), _) => Init::Uniform { low: value - 0.2, high: value + 0.2 },
            (Init::Normal { mean, .. }, [_, columns]) => Init::Normal { mean, std: 1.0 / (*columns as f32).sqrt() },
            (Init::NormalButRow { row, .. }, [_, columns]) => {
                Init::NormalButRow { std: 1.0 / (*columns as f32).sqrt(), row }
            }
            (init, _) => init,
        };
        random.read(&Request { init, ..request.clone() })
    }))
}

/// Weights over such a source, on the CPU.
pub(crate) fn weights(seed: u64) -> Weights {
    Weights::new(lively(seed), Device::Cpu, None)
}
