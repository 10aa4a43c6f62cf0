//! What a generation run asks for, made of a model and its config.

use super::sampler::Sampling;
use crate::model::Model;
use limber_config::Config;
use limber_core::CacheType;

/// What a run asks for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Maximum number of tokens to generate a sequence.
    pub max_tokens: usize,
    /// How ids are chosen.
    pub sampling: Sampling,
    /// Seed of the random numbers; row r of the run draws from stream r, whatever the batches.
    pub seed: u64,
    /// Ids from here on are never chosen.
    pub limit: usize,
    /// Ids that end a row.
    pub eos: Vec<u32>,
    /// Rows that go through the decoder together.
    pub batch: usize,
    /// The type that keys and values are kept in.
    pub cache: CacheType,
}

impl Request {
    /// Up to `max_tokens` greedy tokens a sequence, ended by the model's ends of sequence.
    pub fn greedy(model: &Model, max_tokens: usize) -> Self {
        Self {
            max_tokens,
            sampling: Sampling::default(),
            seed: 0,
            limit: model.language().limit(),
            eos: model.language().eos().to_vec(),
            batch: 16,
            cache: CacheType::default(),
        }
    }

    /// What a config's section `generate` asks for.
    pub fn of(model: &Model, config: &Config) -> Self {
        let generate = &config.generate;
        Self {
            sampling: Sampling::of(config),
            seed: generate.seed,
            batch: generate.batch,
            cache: generate.cache,
            ..Self::greedy(model, generate.max_tokens)
        }
    }
}
