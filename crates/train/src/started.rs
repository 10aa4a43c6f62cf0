//! What a run is, told when all is ready for its first step.

use super::learner::Learner;
use super::memory::{self, Sizes};
use super::start::{Ground, Norms};
use anyhow::Result;
use limber_config::{Config, Schedule};
use limber_pipeline::overview::grouped;
use std::fmt;

/// Tokens that a caption is taken to have where no item tells.
const CAPTION: u64 = 16;

/// A run before its first step.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// Items of the data.
    pub items: usize,
    /// Steps done before.
    pub done: usize,
    /// Steps in all.
    pub steps: usize,
    /// Samples of one step, of all processes.
    pub samples: usize,
    /// Numbers that are trained.
    pub parameters: usize,
    /// Bytes of memory that one process is expected to take.
    pub memory: u64,
    /// How long prefixes and words are; None where the first items cannot be read.
    pub norms: Option<Norms>,
    /// What a user should know.
    pub notes: Vec<String>,
}

impl Started {
    pub(super) fn new(ground: &Ground, learner: &Learner, done: usize) -> Result<Self> {
        let (settings, model) = (ground.settings, ground.model);
        let parameters = model.stitch().variables().values().map(|var| var.elem_count()).sum();
        // What is wrong with an item is told where it is trained on.
        let norms = ground.norms(learner).ok();
        let prefix =
            model.stitch().prefix_spec(model.feature_spec().tokens).tokens + ground.reading.texts().prompt_tokens();
        let sizes = Sizes {
            weights: model.vision().bytes() + model.language().bytes(),
            parameters: parameters as u64,
            positions: prefix as u64 + CAPTION,
            targets: CAPTION,
        };
        Ok(Self {
            items: ground.set.len(),
            done,
            steps: settings.steps,
            samples: settings.batch * settings.accumulate * ground.ranks.size(),
            parameters,
            memory: memory::expected(settings, &model.decoder().spec(), sizes),
            norms,
            notes: notes(ground.config),
        })
    }

    /// How often each item is seen.
    pub fn epochs(&self) -> f64 {
        self.steps as f64 * self.samples as f64 / self.items.max(1) as f64
    }
}

impl fmt::Display for Started {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { steps, samples, .. } = self;
        write!(f, "{} items, {steps} steps of {samples} samples ({:.1} epochs)", grouped(self.items), self.epochs())?;
        if self.done > 0 {
            write!(f, ", {} of them done", self.done)?;
        }
        write!(f, "; {} parameters trained", grouped(self.parameters))?;
        write!(f, "; about {:.1} GB of memory", self.memory as f64 / 1e9)?;
        match self.norms {
            Some(Norms { prefix, word }) => write!(f, "; prefix norm {prefix:.2}, word norm {word:.2}"),
            None => Ok(()),
        }
    }
}

/// What is likely not meant.
fn notes(config: &Config) -> Vec<String> {
    let Some(train) = &config.train else { return Vec::new() };
    let mut notes = Vec::new();
    if train.schedule != Schedule::Constant && train.warmup >= train.steps {
        notes.push(format!(
            "the warm-up of {} steps (train.warmup) is not shorter than the run of {} steps (train.steps), so that the \
             learning rate does not reach lr, which is {}",
            train.warmup, train.steps, train.lr
        ));
    }
    if let Some(prompt) = train.prompt.as_ref().filter(|prompt| **prompt != config.prompt) {
        notes.push(format!(
            "the stitch learns captions after {prompt:?} (train.prompt) and is asked for them after {:?} (prompt)",
            config.prompt
        ));
    }
    if train.chat != config.generate.chat {
        notes.push(format!(
            "the stitch learns with train.chat {} and is asked with generate.chat {}",
            train.chat, config.generate.chat
        ));
    }
    if train.prompt.as_ref().is_some_and(|prompt| prompt.ends_with(' ')) {
        notes.push(
            "train.prompt ends in a space, which most tokenizers take for the beginning of the next word: without it, captions \
             get a space of their own"
                .to_string(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_in_one_line() {
        let mut started = Started {
            items: 2402,
            done: 0,
            steps: 600,
            samples: 32,
            parameters: 221_760,
            memory: 870_000_000,
            norms: Some(Norms { prefix: 30.0, word: 3.2 }),
            notes: Vec::new(),
        };
        let line = "2,402 items, 600 steps of 32 samples (8.0 epochs); 221,760 parameters trained; about 0.9 GB of memory; \
                    prefix norm 30.00, word norm 3.20";
        assert_eq!(started.to_string(), line);
        (started.done, started.norms, started.items) = (5, None, 19_200);
        let line = "19,200 items, 600 steps of 32 samples (1.0 epochs), 5 of them done; 221,760 parameters trained; about \
                    0.9 GB of memory";
        assert_eq!(started.to_string(), line);
    }
}
