//! `limber caption [--config C] IMAGE...`

use super::options::{SamplingFlags, Shared, sampling, text};
use super::output;
use crate::config::Config;
use crate::generation::{Finish, Generation, Prompt, Request, Timing, generate};
use crate::model::{Depth, Model};
use crate::parts;
use anyhow::{Result, bail};
use candle_core::Tensor;
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    shared: Shared,
    #[command(flatten)]
    sampling: SamplingFlags,
    /// Text after the image; the config's where nothing is said
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Image files: PNG, JPEG, WebP, GIF, BMP or TIFF
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

/// One line of `--json`; the seconds are those of the batch that the image went through.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a, I: Serialize> {
    pub image: I,
    pub prompt: &'a str,
    pub text: String,
    pub tokens: &'a [u32],
    pub logprobs: &'a [f32],
    pub finish: Finish,
    pub timing: Seconds,
}

/// Seconds of each stage.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Seconds {
    pub load_s: f64,
    pub encode_s: f64,
    pub prefill_s: f64,
    pub decode_s: f64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let mut config = arguments.shared.load(Some(&arguments.sampling))?;
    if let Some(prompt) = &arguments.prompt {
        config.prompt = prompt.clone();
    }
    let prompt = Prompt::caption(&config.prompt)?;
    sampling(&config).check()?;
    let mut model = Model::load(&config, &parts::registry()?, Depth::Text)?;
    model.offline(arguments.shared.is_offline());
    let load_s = start.elapsed().as_secs_f64();
    let batch = if arguments.sampling.stream { 1 } else { config.generate.batch };
    let mut failed = 0;
    let mut first_row = 0;
    for paths in arguments.images.chunks(batch) {
        let mut names = Vec::new();
        let mut pixels = Vec::new();
        for path in paths {
            // One unreadable image does not cost the others their captions.
            let read = text(path).and_then(|name| Ok((name, model.input(name)?)));
            match read {
                Ok((name, image)) => {
                    names.push(name);
                    pixels.push(image);
                }
                Err(error) if arguments.images.len() == 1 => return Err(error),
                Err(error) => {
                    output::error(&error);
                    failed += 1;
                }
            }
        }
        if names.is_empty() {
            continue;
        }
        let start = Instant::now();
        let prefixes = model.prefix(&model.features(&pixels)?)?;
        let encode_s = start.elapsed().as_secs_f64();
        let prompts: Vec<Tensor> =
            (0..names.len()).map(|row| model.embed_prompt(&prompt, &[prefixes.get(row)?])).collect::<Result<_>>()?;
        let request = request(&model, &config, first_row)?;
        first_row += names.len() as u64;
        let (rows, timing) = answer(&model, &prompts, &request, arguments.sampling.stream)?;
        for (name, row) in names.iter().zip(&rows) {
            let text = model.tokenizer()?.decode(&row.tokens, true)?.trim().to_string();
            if arguments.shared.json {
                output::json(&Line {
                    image: name,
                    prompt: &config.prompt,
                    text,
                    tokens: &row.tokens,
                    logprobs: &row.logprobs,
                    finish: row.finish,
                    timing: seconds(load_s, encode_s, timing),
                })?;
            } else if arguments.sampling.stream {
                output::line("")?;
            } else if arguments.images.len() == 1 {
                output::line(&text)?;
            } else {
                output::line(&format!("{name}: {text}"))?;
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} images could not be captioned", arguments.images.len())
    }
    Ok(())
}

/// What a config asks of the decoding loop.
pub(super) fn request(model: &Model, config: &Config, first_row: u64) -> Result<Request> {
    Ok(Request {
        max_tokens: config.generate.max_tokens,
        sampling: sampling(config),
        seed: config.generate.seed,
        first_row,
        limit: model.limit()?,
        eos: model.eos()?,
    })
}

/// Runs the loop, printing text as it comes where `stream` is set (one row alone).
pub(super) fn answer(
    model: &Model,
    prompts: &[Tensor],
    request: &Request,
    stream: bool,
) -> Result<(Vec<Generation>, Timing)> {
    if !stream {
        return generate(model.decoder()?, prompts, request, &mut |_, _| Ok(()));
    }
    let mut pieces = model.tokenizer()?.stream(true);
    let mut started = false;
    let result = generate(model.decoder()?, prompts, request, &mut |_, id| {
        let piece = pieces.push(id)?;
        // The space in front of the first word is no part of the answer.
        let piece = if started { piece.as_str() } else { piece.trim_start() };
        started |= !piece.is_empty();
        output::piece(piece)
    })?;
    output::piece(&pieces.finish()?)?;
    Ok(result)
}

pub(super) fn seconds(load_s: f64, encode_s: f64, timing: Timing) -> Seconds {
    Seconds { load_s, encode_s, prefill_s: timing.prefill_s, decode_s: timing.decode_s }
}
