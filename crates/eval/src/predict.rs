//! Captions and answers of a model, item by item, in the set's order.

use super::data::{Item, Set, Task};
use super::prompts::{Filled, Options, Prompts};
use anyhow::{Context, Result};
use candle_core::Tensor;
use limber_config::Config;
use limber_pipeline::generation::{self, Generation, Request, RequestSource};
use limber_pipeline::model::Model;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};

/// Prefixes that are kept in case the next prompts have the same images.
const KEPT: usize = 64;

/// What a model said of an item: one line of a file of predictions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    /// The item's id.
    pub id: String,
    /// The question, for questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// The caption or answer.
    pub text: String,
    /// All that the model said, where an answer is a part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
    /// Whether it ended by itself.
    pub finish: String,
}

/// What a config asks of the decoding loop for a task.
pub fn request<'a>(model: &'a Model, config: &Config, task: Task) -> Request<'a> {
    let request = Request::of(model, config);
    match task {
        Task::Caption => request,
        Task::Vqa => Request { max_tokens: config.eval.clone().unwrap_or_default().answer_tokens, ..request },
    }
}

/// Lets `model` speak about the items of `set` from index `from` on, and hands each prediction to `take`, in order.
///
/// A prediction depends on its item, the config and the options alone, not on where a run begins or what is in its batch.
///
/// # Errors
/// An image that cannot be read, what the model reports, whatever `take` does.
pub fn predict(
    model: &Model,
    config: &Config,
    set: &Set,
    examples: Option<&Set>,
    options: Options,
    from: usize,
    take: &mut dyn FnMut(Prediction) -> Result<()>,
) -> Result<()> {
    let prompts = Prompts::new(config, set, examples, options)?;
    let request = request(model, config, set.task);
    let mut work = Work {
        model,
        config,
        batch: request.batch,
        prompts: &prompts,
        items: &set.items,
        from,
        entered: from,
        handed: from,
        waiting: BTreeMap::new(),
        prefixes: Prefixes::default(),
        take,
    };
    generation::run(model.decoder(), &request, &mut work)
}

/// Items on their way through the decoder.
struct Work<'a> {
    model: &'a Model,
    config: &'a Config,
    batch: usize,
    prompts: &'a Prompts<'a>,
    items: &'a [Item],
    from: usize,
    entered: usize,
    handed: usize,
    /// Predictions that wait for those before them.
    waiting: BTreeMap<usize, Prediction>,
    prefixes: Prefixes,
    take: &'a mut dyn FnMut(Prediction) -> Result<()>,
}

impl RequestSource for Work<'_> {
    fn prompts(&mut self, n: usize) -> Result<Vec<Tensor>> {
        let end = (self.entered + n).min(self.items.len());
        let filled: Vec<Filled> = (self.entered..end).map(|at| self.prompts.fill(at)).collect::<Result<_>>()?;
        self.prefixes.bring(self.model, &filled, self.batch)?;
        let mut embedded = Vec::with_capacity(filled.len());
        for one in &filled {
            let prefixes: Vec<Tensor> =
                one.images.iter().map(|image| self.prefixes.get(image)).collect::<Result<_>>()?;
            let chat = self.config.generate.chat;
            let templated = chat.then(|| self.model.prompt(self.config, &one.text, one.images.len())).transpose()?;
            embedded.push(self.model.embed_prompt(templated.as_ref().unwrap_or(&one.prompt), &prefixes)?);
        }
        self.entered = end;
        Ok(embedded)
    }

    fn stream(&self, row: usize) -> u64 {
        (self.from + row) as u64
    }

    fn done(&mut self, row: usize, generation: Generation) -> Result<()> {
        let at = self.from + row;
        let said = generation.whole_text(self.model.tokenizer())?;
        let text = self.prompts.cut(&said).to_string();
        let whole = Some(said.trim().to_string()).filter(|whole| *whole != text);
        let Item { id, question, .. } = self.items[at].clone();
        self.waiting.insert(at, Prediction { id, question, text, whole, finish: generation.finish.name().to_string() });
        while let Some(prediction) = self.waiting.remove(&self.handed) {
            self.handed += 1;
            (self.take)(prediction)?;
        }
        Ok(())
    }
}

/// Prefixes `[K, D]` of images, the latest used kept.
#[derive(Default)]
struct Prefixes {
    kept: HashMap<PathBuf, Tensor>,
    order: VecDeque<PathBuf>,
}

impl Prefixes {
    /// Computes what is lacking for these prompts, `batch` images at a time, and lets go of what is not needed.
    fn bring(&mut self, model: &Model, filled: &[Filled], batch: usize) -> Result<()> {
        let mut lacking: Vec<&Path> = Vec::new();
        for image in filled.iter().flat_map(|one| &one.images) {
            if self.kept.contains_key(image) {
                // Used again, so it goes last.
                self.order.retain(|other| other != image);
                self.order.push_back(image.clone());
            } else if !lacking.contains(&image.as_path()) {
                lacking.push(image);
            }
        }
        for group in lacking.chunks(batch.max(1)) {
            let read = |path: &&Path| {
                let name = path.to_str().with_context(|| format!("the path {path:?} is not UTF-8"))?;
                model.input(name)
            };
            let inputs: Vec<Tensor> = group.iter().map(read).collect::<Result<_>>()?;
            let prefix = model.prefix(&model.features(&inputs)?)?;
            for (row, path) in group.iter().enumerate() {
                self.kept.insert(path.to_path_buf(), prefix.get(row)?);
                self.order.push_back(path.to_path_buf());
            }
        }
        let needed: usize = filled.iter().map(|one| one.images.len()).sum();
        while self.order.len() > KEPT.max(needed) {
            if let Some(oldest) = self.order.pop_front() {
                self.kept.remove(&oldest);
            }
        }
        Ok(())
    }

    fn get(&self, image: &Path) -> Result<Tensor> {
        self.kept.get(image).cloned().with_context(|| format!("no prefix of {}", image.display()))
    }
}
