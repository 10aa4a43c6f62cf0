//! `limber caption [--config C] IMAGE...`

use super::options::{Sampled, text};
use super::output;
use anyhow::{Result, bail};
use candle_core::Tensor;
use clap::Args;
use limber_pipeline::Model;
use limber_pipeline::generation::{self, Finish, Generation, Prompt, Request, RequestSource, Sampling, Timing};
use limber_text::TextStream;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    sampled: Sampled,
    /// Text after the image [default: the config's]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Image files (PNG, JPEG, WebP, GIF, BMP or TIFF), or feature files (.npy, .npz or safetensors; FILE#NAME for one
    /// array of several) for the encoder "features"
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

/// One line of `--json`; an image's seconds are its own, spent with the images beside it in the batch.
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
    let mut config = arguments.sampled.load()?;
    if let Some(prompt) = &arguments.prompt {
        config.prompt = prompt.clone();
    }
    let prompt = Prompt::caption(&config.prompt)?;
    Sampling::of(&config).check()?;
    let model = arguments.sampled.shared.model(&config)?;
    let load_s = start.elapsed().as_secs_f64();
    let mut request = Request::of(&model, &config);
    if arguments.sampled.sampling.stream {
        request.batch = 1;
    }
    let mut captions = Captions {
        model: &model,
        arguments,
        prompt: &prompt,
        text: &config.prompt,
        left: &arguments.images,
        load_s,
        rows: Vec::new(),
        printed: 0,
        failed: 0,
        stream: Stream::new(&model, arguments.sampled.sampling.stream)?,
    };
    generation::run(model.decoder(), &request, &mut captions)?;
    if captions.failed > 0 {
        bail!("{} of {} images could not be captioned", captions.failed, arguments.images.len())
    }
    Ok(())
}

/// Images that become prompts as the batch has room for them, and texts that are printed in the images' order.
struct Captions<'a> {
    model: &'a Model,
    arguments: &'a Arguments,
    prompt: &'a Prompt,
    text: &'a str,
    left: &'a [PathBuf],
    load_s: f64,
    rows: Vec<Row<'a>>,
    printed: usize,
    failed: usize,
    stream: Stream<'a>,
}

/// One image on its way.
struct Row<'a> {
    name: &'a str,
    encode_s: f64,
    generation: Option<Generation>,
}

impl RequestSource for Captions<'_> {
    fn prompts(&mut self, n: usize) -> Result<Vec<Tensor>> {
        let (mut names, mut inputs) = (Vec::new(), Vec::new());
        while names.len() < n {
            let Some((path, later)) = self.left.split_first() else { break };
            self.left = later;
            // One unreadable image does not cost the others their captions.
            match text(path).and_then(|name| Ok((name, self.model.input(name)?))) {
                Ok((name, input)) => {
                    names.push(name);
                    inputs.push(input);
                }
                Err(error) if self.arguments.images.len() == 1 => return Err(error),
                Err(error) => {
                    output::error(&error);
                    self.failed += 1;
                }
            }
        }
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let start = Instant::now();
        let prefixes = self.model.prefix(&self.model.features(&inputs)?)?;
        let encode_s = start.elapsed().as_secs_f64();
        self.rows.extend(names.iter().map(|name| Row { name, encode_s, generation: None }));
        (0..names.len()).map(|row| self.model.embed_prompt(self.prompt, &[prefixes.get(row)?])).collect()
    }

    fn token(&mut self, _row: usize, id: u32) -> Result<()> {
        self.stream.token(id)
    }

    fn done(&mut self, row: usize, generation: Generation) -> Result<()> {
        self.rows[row].generation = Some(generation);
        while let Some(Row { name, encode_s, generation: Some(generation) }) = self.rows.get(self.printed) {
            self.printed += 1;
            if self.arguments.sampled.sampling.stream {
                self.stream.end()?;
                continue;
            }
            let text = self.model.tokenizer().decode(&generation.tokens, true)?.trim().to_string();
            if self.arguments.sampled.shared.json {
                output::json(&Line {
                    image: name,
                    prompt: self.text,
                    text,
                    tokens: &generation.tokens,
                    logprobs: &generation.logprobs,
                    finish: generation.finish,
                    timing: seconds(self.load_s, *encode_s, generation.timing),
                })?;
            } else if self.arguments.images.len() == 1 {
                output::line(&text)?;
            } else {
                output::line(&format!("{name}: {text}"))?;
            }
        }
        Ok(())
    }
}

/// Text that is shown as it comes; nothing where it is off.
pub(super) struct Stream<'a> {
    model: &'a Model,
    on: bool,
    pieces: Option<TextStream<'a>>,
    started: bool,
}

impl<'a> Stream<'a> {
    /// A stream of the model's tokens.
    pub fn new(model: &'a Model, on: bool) -> Result<Self> {
        Ok(Self { model, on, pieces: None, started: false })
    }

    /// Shows the text of a new id.
    pub fn token(&mut self, id: u32) -> Result<()> {
        if !self.on {
            return Ok(());
        }
        let pieces = match &mut self.pieces {
            Some(pieces) => pieces,
            None => self.pieces.insert(self.model.tokenizer().stream(true)),
        };
        let piece = pieces.push(id)?;
        // The space in front of the first word is no part of the answer.
        let piece = if self.started { piece.as_str() } else { piece.trim_start() };
        self.started |= !piece.is_empty();
        output::piece(piece)
    }

    /// Ends the line.
    pub fn end(&mut self) -> Result<()> {
        if let Some(pieces) = self.pieces.take() {
            output::piece(&pieces.finish()?)?;
        }
        self.started = false;
        output::line("")
    }
}

pub(super) fn seconds(load_s: f64, encode_s: f64, timing: Timing) -> Seconds {
    Seconds { load_s, encode_s, prefill_s: timing.prefill_s, decode_s: timing.decode_s }
}
