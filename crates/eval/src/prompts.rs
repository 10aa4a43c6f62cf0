//! Prompts of items: templates filled in, examples from the training split, the controls without the right image.

use super::data::{Item, Set, Task};
use anyhow::{Context, Result, bail, ensure};
use limber_config::{Config, Eval};
use limber_core::hash;
use limber_pipeline::generation::{IMAGE_MARK, Prompt};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// What is changed for a control, and how examples are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Options {
    /// Examples before each prompt.
    pub shots: usize,
    /// The same examples before every prompt, which then share the work; else each prompt has its own.
    pub same_examples: bool,
    /// The seed of examples and of shuffled images.
    pub seed: u64,
    /// No image at all, in examples neither.
    pub blind: bool,
    /// Each prompt has the image of another item; examples keep their own.
    pub shuffle_images: bool,
}

/// A prompt and the images of its marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// Text with its marks, as it is written down.
    pub text: String,
    /// Text and images in their order.
    pub prompt: Prompt,
    /// The file of each mark.
    pub images: Vec<PathBuf>,
}

/// Makes the prompts of a set.
pub struct Prompts<'a> {
    set: &'a Set,
    examples: Option<&'a Set>,
    template: Template,
    eval: Eval,
    options: Options,
}

/// A template in three pieces.
struct Template {
    /// Up to what the model is to say.
    before: String,
    /// Behind it.
    after: String,
}

impl<'a> Prompts<'a> {
    /// Prompts of `set`, with examples of `examples` where `options` asks for any.
    ///
    /// # Errors
    /// Examples of another task, too few of them, or none with an answer; a set too small to exchange images.
    pub fn new(config: &Config, set: &'a Set, examples: Option<&'a Set>, options: Options) -> Result<Self> {
        let eval = config.eval.clone().unwrap_or_default();
        let whole = match set.task {
            Task::Vqa => eval.question.clone(),
            Task::Caption => match &eval.caption {
                Some(template) => template.clone(),
                None if config.prompt.contains(IMAGE_MARK) => format!("{} {{caption}}", config.prompt),
                None => format!("{IMAGE_MARK}{} {{caption}}", config.prompt),
            },
        };
        let blank = if set.task == Task::Vqa { "{answer}" } else { "{caption}" };
        let (before, after) =
            whole.split_once(blank).with_context(|| format!("the template {whole:?} lacks {blank}"))?;
        if options.shots > 0 {
            let Some(examples) = examples else {
                bail!("{} examples are asked for, and no training split is given to draw them from", options.shots)
            };
            ensure!(examples.task == set.task, "the training split is of another task");
            ensure!(examples.references.is_some(), "the training split tells no answers, so it holds no examples");
            ensure!(
                examples.items.len() > options.shots,
                "{} examples are asked for, the training split holds {} items, more than that are needed",
                options.shots,
                examples.items.len()
            );
        }
        if options.shuffle_images {
            ensure!(!options.blind, "the no-image and the shuffled-image control exclude each other");
            let first = &set.items[0].image;
            ensure!(
                set.items.iter().any(|item| item.image != *first),
                "all items have the same image, so the shuffled-image control has no other"
            );
        }
        let template = Template { before: before.to_string(), after: after.to_string() };
        Ok(Self { set, examples, template, eval, options })
    }

    /// The prompt of item `index`.
    ///
    /// # Errors
    /// An example without an answer, a prompt of nothing.
    pub fn fill(&self, index: usize) -> Result<Filled> {
        let item = &self.set.items[index];
        let mut images = Vec::new();
        let mut text = String::new();
        if let Some(examples) = self.examples.filter(|_| self.options.shots > 0) {
            let purpose = if self.options.same_examples { "" } else { item.id.as_str() };
            for index in self.draw(purpose, item, examples) {
                let example = &examples.items[index];
                let said = examples.said(index).with_context(|| format!("example {:?} has no answer", example.id))?;
                text.push_str(&self.question(&self.template.before, example));
                text.push_str(&unmarked(said));
                text.push_str(&self.template.after);
                text.push_str(&self.eval.separator);
                images.push(example.image.clone());
            }
        }
        // Spaces before a word belong to its token.
        text.push_str(self.question(&self.template.before, item).trim_end());
        images.push(if self.options.shuffle_images { self.shuffled_image(index) } else { item.image.clone() });
        if self.options.blind {
            text = text.replace(IMAGE_MARK, "");
        }
        if !text.contains(IMAGE_MARK) {
            images.clear();
        }
        let prompt = Prompt::parse(&text, images.len()).with_context(|| format!("item {:?}", item.id))?;
        Ok(Filled { text, prompt, images })
    }

    /// What the model said as an answer: up to the first stop.
    pub fn cut<'t>(&self, text: &'t str) -> &'t str {
        let text = text.trim_start();
        let end = self.eval.stop.iter().filter_map(|stop| text.find(stop.as_str())).min().unwrap_or(text.len());
        text[..end].trim()
    }

    fn question(&self, template: &str, item: &Item) -> String {
        template.replace("{question}", &unmarked(item.question.as_deref().unwrap_or_default()))
    }

    /// Examples for an item, none of them about its own image.
    fn draw(&self, purpose: &str, item: &Item, examples: &Set) -> Vec<usize> {
        let n = examples.items.len() as u64;
        let mut seen = BTreeSet::new();
        let mut drawn = Vec::new();
        let mut round = 0;
        // So many draws find what there is to find; a split that is all one image gives what it has.
        while drawn.len() < self.options.shots && round < 64 * (n + self.options.shots as u64) {
            let index = (hash(self.options.seed, purpose, round) % n) as usize;
            round += 1;
            let own = !self.options.same_examples && examples.items[index].image == item.image;
            if !own && seen.insert(index) {
                drawn.push(index);
            }
        }
        drawn
    }

    /// The image of another item, a function of the seed and the item alone.
    fn shuffled_image(&self, index: usize) -> PathBuf {
        let items = &self.set.items;
        let own = &items[index].image;
        let start = hash(self.options.seed, &items[index].id, u64::MAX) % items.len() as u64;
        let others = (0..items.len()).map(|step| &items[(start as usize + step) % items.len()].image);
        others.into_iter().find(|image| *image != own).unwrap_or(own).clone()
    }
}

/// Data cannot bring marks of their own.
fn unmarked(text: &str) -> String {
    text.replace(IMAGE_MARK, "")
}

fn hash(seed: u64, purpose: &str, round: u64) -> u64 {
    hash::number(&[&seed.to_le_bytes(), &round.to_le_bytes(), purpose.as_bytes()])
}
