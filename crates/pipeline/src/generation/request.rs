//! What a generation run asks for, made of a model and its config.

use super::sampler::Sampling;
use super::stop::Stop;
use crate::model::Model;
use limber_config::Config;
use limber_core::CacheType;

/// What a run asks for.
#[derive(Debug, Clone)]
pub struct Request<'a> {
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
    /// Strings that a text ends before.
    pub stop: Option<Stop<'a>>,
    /// Rows that go through the decoder together.
    pub batch: usize,
    /// The type that keys and values are kept in.
    pub cache: CacheType,
}

impl<'a> Request<'a> {
    /// Up to `max_tokens` greedy tokens a sequence, ended by the model's ends of sequence.
    pub fn greedy(model: &'a Model, max_tokens: usize) -> Self {
        Self {
            max_tokens,
            sampling: Sampling::default(),
            seed: 0,
            limit: model.language().limit(),
            eos: model.language().eos().to_vec(),
            stop: None,
            batch: 16,
            cache: CacheType::default(),
        }
    }

    /// What a config's section `generate` asks for.
    pub fn of(model: &'a Model, config: &Config) -> Self {
        let generate = &config.generate;
        let mut eos = model.language().eos().to_vec();
        // Instruction-tuned models end a turn with what their tokenizer names, whatever the base model's settings say.
        if let Some(own) = model.tokenizer().eos().filter(|own| generate.chat && !eos.contains(own)) {
            eos.push(own);
        }
        Self {
            eos,
            stop: Stop::new(model.tokenizer(), &generate.stop),
            sampling: Sampling::of(config),
            seed: generate.seed,
            batch: generate.batch,
            cache: generate.cache,
            ..Self::greedy(model, generate.max_tokens)
        }
    }
}
