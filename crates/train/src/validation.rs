//! Held-out data while a run is under way: their loss, and captions of the first few.
//!
//! The loss is that of training without dropout, over all target tokens; a run is never changed by being watched.

use super::learner::Learner;
use super::log::{Said, Validated};
use super::ranks::Ranks;
use super::step::{Normalise, loss_of};
use anyhow::{Context, Result};
use limber_config::{Config, Validate};
use limber_core::Mode;
use limber_data::{self as data, Dataset, Loader, Order, Sample};
use limber_pipeline::generation::{Request, generate};
use limber_pipeline::model::Model;
use limber_pipeline::{Reader, Thumbnail};
use std::cell::Cell;
use std::time::Instant;

/// Most pixels of a side of an image that is shown.
const SIDE: u32 = 256;

/// The held-out data of a run.
pub struct Validation<'a> {
    settings: &'a Validate,
    set: Box<dyn Dataset>,
    order: Order,
    items: usize,
    /// Whether the images were handed on; they stay the same.
    shown: Cell<bool>,
}

impl<'a> Validation<'a> {
    /// Opens the data that `train.validate` names; None where there is no such key.
    ///
    /// # Errors
    /// As [`data::open`].
    pub fn open(config: &'a Config) -> Result<Option<Self>> {
        let Some(train) = &config.train else { return Ok(None) };
        let Some(settings) = &train.validate else { return Ok(None) };
        let set = data::open(&settings.data, &config.folder).context("section \"train.validate.data\"")?;
        let order = Order::new(set.len(), train.seed, settings.data.shuffle);
        let items = settings.items.min(set.len());
        Ok(Some(Self { settings, set, order, items, shown: Cell::new(false) }))
    }

    /// Whether it is time after `step` steps of `steps`.
    pub fn is_due(&self, step: usize, steps: usize) -> bool {
        step.is_multiple_of(self.settings.every) || step == steps
    }

    /// Loss and captions after `step` steps; each process takes its share, rank 0 captions.
    ///
    /// # Errors
    /// A loss that is not finite, data that cannot be read, what the components report.
    pub fn run(&self, config: &Config, learner: &Learner, ranks: &dyn Ranks, step: usize) -> Result<Validated> {
        let model = learner.model;
        let start = Instant::now();
        let batch = config.train.as_ref().map_or(1, |t| t.batch).max(1);
        let share = |rank: usize| (self.items * rank / ranks.size()) as u64;
        let positions = (share(ranks.rank()), share(ranks.rank() + 1));
        let mut sums = [0.0, 0.0];
        let mut first = Vec::new();
        let reading = Reader::new(model, config, &self.settings.data, self.set.len())?.fixed();
        self.read(&reading, positions, batch, &mut |samples| {
            let (loss, targets) = loss_of(learner, &samples, Mode::Inference, Normalise::Step)?;
            sums[0] += loss;
            sums[1] += targets as f64;
            if ranks.rank() == 0 {
                let room = self.settings.captions.saturating_sub(first.len());
                first.extend(samples.into_iter().take(room));
            }
            Ok(())
        })?;
        ranks.sum_exact(&mut sums)?;
        let captions = self.captions(config, learner, &first).context("captions of held-out images")?;
        let [loss, tokens] = sums;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Validated { step, loss: loss / tokens, tokens: tokens as usize, items: self.items, captions, seconds })
    }

    /// Hands the samples at `positions` to `each`, `batch` at a time, while other threads read ahead.
    fn read(
        &self,
        reading: &Reader,
        positions: (u64, u64),
        batch: usize,
        each: &mut dyn FnMut(Vec<Sample>) -> Result<()>,
    ) -> Result<()> {
        let workers = self.settings.data.workers;
        let loader = Loader::new(self.set.as_ref(), self.order, reading, positions, (batch, workers));
        loader.run(|| {
            let mut left = (positions.1 - positions.0) as usize;
            while left > 0 {
                let now = left.min(batch);
                each((0..now).map(|_| loader.next()).collect::<Result<_>>()?)?;
                left -= now;
            }
            Ok(())
        })
    }

    /// What the model says of the samples' images, as `limber caption` would.
    fn captions(&self, config: &Config, learner: &Learner, samples: &[Sample]) -> Result<Vec<Said>> {
        let model = learner.model;
        if samples.is_empty() {
            return Ok(Vec::new());
        }
        let inputs: Vec<_> = samples.iter().map(|sample| sample.input.clone()).collect();
        let prefixes = learner.prefix(&inputs, Mode::Inference)?.detach();
        let prompt = model.prompt_of_caption(config)?;
        let prompts = (0..samples.len()).map(|row| model.embed_prompt(&prompt, &[prefixes.get(row)?]));
        let prompts = prompts.collect::<Result<Vec<_>>>()?;
        let longest = prompts.iter().map(|p| p.dim(1)).collect::<candle_core::Result<Vec<_>>>()?;
        let room = model.decoder().spec().context.saturating_sub(longest.into_iter().max().unwrap_or(0));
        let request = Request { max_tokens: config.generate.max_tokens.min(room), ..Request::of(model, config) };
        let tokenizer = model.tokenizer();
        let told = generate(model.decoder(), &prompts, &request, &mut |_, _| Ok(()))?;
        let is_first = !self.shown.replace(true);
        let said = samples.iter().zip(told).enumerate().map(|(at, (sample, generation))| {
            Ok(Said {
                item: sample.name.clone(),
                caption: tokenizer.decode(&sample.tokens.learned_ids(), true)?.trim().to_string(),
                text: generation.text(tokenizer)?,
                image: is_first.then(|| self.image(model, at as u64, &sample.name)).flatten(),
            })
        });
        said.collect()
    }

    /// The image of the sample at a position, None where another item stands in for it, or where there is none but features.
    fn image(&self, model: &Model, at: u64, name: &str) -> Option<Thumbnail> {
        let item = self.set.item(self.order.at(at).0).ok().filter(|item| item.name == name)?;
        model.preprocessor().thumbnail(&item.image, SIDE).ok()
    }
}
