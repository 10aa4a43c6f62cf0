//! What a run says of the held-out scenes: one caption each, and one answer after every number of few-shot examples.

use super::fit::Run;
use super::scenes::{Seen, World};
use anyhow::{Context, Result};
use candle_core::Tensor;
use limber_core::Registry;
use limber_pipeline::generation::{Prompt, Request, Segment, generate};
use limber_pipeline::model::Model;
use limber_weights as weights;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Scenes whose prefixes are computed together, and rows that are decoded together.
const BATCH: usize = 32;
/// Most tokens of a caption and of an answer.
const CAPTION: usize = 48;
const ANSWER: usize = 16;

/// The texts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The caption of each held-out scene.
    pub captions: Vec<String>,
    /// The answer to each scene's question, by the number of few-shot examples.
    pub answers: BTreeMap<usize, Vec<String>>,
    /// The same without any image in the prompt; asked in the no-image control alone, since no stitch is involved.
    pub blind_answers: BTreeMap<usize, Vec<String>>,
}

/// `Q: ... A:`, how the language model's own texts ask.
fn ask(seen: &Seen) -> String {
    format!("Q: {} A:", seen.question.question)
}

/// Asks what was not asked before.
///
/// # Errors
/// What the model or the disk reports.
pub fn held_out(run: &Run, registry: &Registry, world: &World) -> Result<Said> {
    let path = run.folder.join("said.json");
    if path.exists() {
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        return serde_json::from_slice(&text).with_context(|| format!("{}", path.display()));
    }
    let model = run.model(registry)?;
    let files =
        |split: &str, indices: &[usize]| -> Vec<_> { indices.iter().map(|at| run.set.file(split, *at)).collect() };
    let every: Vec<usize> = (0..world.held.len()).collect();
    let held = prefixes(&model, &files("val", &every))?;
    let captions = {
        let prompt = Prompt::caption(&run.config.prompt)?;
        let prompts: Vec<Tensor> =
            held.iter().map(|p| model.embed_prompt(&prompt, std::slice::from_ref(p))).collect::<Result<_>>()?;
        say(&model, run, &prompts, CAPTION)?
    };
    let mut said = Said { captions, ..Said::default() };
    for shots in &run.plan.shots {
        let mut prompts = Vec::with_capacity(held.len());
        let mut blind = Vec::with_capacity(held.len());
        for (index, seen) in world.held.iter().enumerate() {
            let indices = world.examples(index, *shots, run.seed);
            let mut images = prefixes(&model, &files("train", &indices))?;
            images.push(held[index].clone());
            let mut texts: Vec<String> = indices
                .iter()
                .map(|at| &world.train[*at])
                .map(|s| format!("{} {}\n", ask(s), s.question.answer))
                .collect();
            texts.push(ask(seen));
            let with_images = texts.iter().enumerate();
            let segments = with_images.flat_map(|(at, text)| [Segment::Image(at), Segment::Text(text.clone())]);
            prompts.push(model.embed_prompt(&Prompt { segments: segments.collect() }, &images)?);
            if run.set.is_blind() {
                let alone = Prompt { segments: texts.into_iter().map(Segment::Text).collect() };
                blind.push(model.embed_prompt(&alone, &[])?);
            }
        }
        said.answers.insert(*shots, say(&model, run, &prompts, ANSWER)?);
        if run.set.is_blind() {
            said.blind_answers.insert(*shots, say(&model, run, &blind, ANSWER)?);
        }
    }
    weights::replace(&path, &serde_json::to_vec(&said)?)?;
    Ok(said)
}

/// The prefix `[K, D]` of each file of features.
fn prefixes(model: &Model, files: &[impl AsRef<Path>]) -> Result<Vec<Tensor>> {
    let mut all = Vec::with_capacity(files.len());
    for part in files.chunks(BATCH) {
        let input = |path: &dyn AsRef<Path>| model.input(path.as_ref().to_str().context("a path that is not UTF-8")?);
        let inputs: Vec<Tensor> = part.iter().map(|path| input(path)).collect::<Result<_>>()?;
        let prefix = model.prefix(&model.features(&inputs)?)?;
        for row in 0..part.len() {
            all.push(prefix.get(row)?);
        }
    }
    Ok(all)
}

/// The most likely continuation of each prompt, its first line.
fn say(model: &Model, run: &Run, prompts: &[Tensor], max_tokens: usize) -> Result<Vec<String>> {
    let cache = run.config.generate.cache;
    let request = Request { batch: BATCH, cache, ..Request::greedy(model, max_tokens) };
    let said = generate(model.decoder(), prompts, &request, &mut |_, _| Ok(()))?;
    let text = |tokens: &[u32]| -> Result<String> {
        let text = model.tokenizer().decode(tokens, true)?;
        Ok(text.trim().lines().next().unwrap_or_default().trim().to_string())
    };
    said.iter().map(|generation| text(&generation.tokens)).collect()
}
