//! `limber generate --config C --image A --image B --prompt "<image>Q: ... A: ... <image>Q: ... A:"`

use super::caption::{Line, answer, request, seconds};
use super::options::{SamplingFlags, Shared, sampling, text};
use super::output;
use crate::generation::Prompt;
use crate::model::{Depth, Model};
use crate::parts;
use anyhow::Result;
use candle_core::Tensor;
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    shared: Shared,
    #[command(flatten)]
    sampling: SamplingFlags,
    /// An image, once for every <image> mark of the prompt, in their order
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// Texts and <image> marks in any order
    #[arg(long, value_name = "TEXT")]
    prompt: String,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let config = arguments.shared.load(Some(&arguments.sampling))?;
    let prompt = Prompt::parse(&arguments.prompt, arguments.image.len())?;
    sampling(&config).check()?;
    let mut model = Model::load(&config, &parts::registry()?, Depth::Text)?;
    model.offline(arguments.shared.is_offline());
    let load_s = start.elapsed().as_secs_f64();
    let names: Vec<&str> = arguments.image.iter().map(|path| text(path)).collect::<Result<_>>()?;
    let pixels: Vec<Tensor> = names.iter().map(|name| model.input(name)).collect::<Result<_>>()?;
    let start = Instant::now();
    let prefixes = prefixes(&model, &pixels, config.generate.batch)?;
    let encode_s = start.elapsed().as_secs_f64();
    let prompts = [model.embed_prompt(&prompt, &prefixes)?];
    let (rows, timing) = answer(&model, &prompts, &request(&model, &config, 0)?, arguments.sampling.stream)?;
    for row in &rows {
        let text = model.tokenizer()?.decode(&row.tokens, true)?.trim().to_string();
        if arguments.shared.json {
            output::json(&Line {
                image: output::images(&names),
                prompt: &arguments.prompt,
                text,
                tokens: &row.tokens,
                logprobs: &row.logprobs,
                finish: row.finish,
                timing: seconds(load_s, encode_s, timing),
            })?;
        } else {
            output::line(if arguments.sampling.stream { "" } else { &text })?;
        }
    }
    Ok(())
}

/// The prefix `[K, D]` of every image, `batch` images at a time.
pub(super) fn prefixes(model: &Model, pixels: &[Tensor], batch: usize) -> Result<Vec<Tensor>> {
    let mut all = Vec::with_capacity(pixels.len());
    for group in pixels.chunks(batch) {
        let prefix = model.prefix(&model.features(group)?)?;
        for row in 0..group.len() {
            all.push(prefix.get(row)?);
        }
    }
    Ok(all)
}
