//! `limber caption [--config C] IMAGE...`

use super::images::{self, Image, Images};
use super::options::Sampled;
use super::output;
use super::progress::Progress;
use anyhow::{Result, bail};
use candle_core::Tensor;
use clap::Args;
use limber_pipeline::Model;
use limber_pipeline::generation::{self, Finish, Generation, Prompt, Request, RequestSource, Sampling, Stop, Timing};
use limber_text::{StopText, TextStream};
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
    /// File with the path of an image on each line; - reads them from standard input
    #[arg(long, value_name = "FILE")]
    files_from: Option<PathBuf>,
    /// Image files (PNG, JPEG, WebP, GIF, BMP or TIFF), folders of them, quoted patterns ('photos/**/*.jpg'), addresses, or -
    /// for an image from standard input; feature files (.npy, .npz or safetensors; FILE#NAME for one array of several) for
    /// the encoder "features"
    #[arg(required_unless_present = "files_from", value_name = "IMAGE")]
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
    Prompt::caption(&config.prompt)?;
    Sampling::of(&config).check()?;
    let images = images::find(&arguments.images, arguments.files_from.as_deref(), &config)?;
    let paths: Vec<PathBuf> = images.iter().map(|image| PathBuf::from(&image.name)).collect();
    let needed = if images.iter().any(|image| image.bytes.is_some()) { Images::OfData } else { Images::Any(&paths) };
    let model = arguments.sampled.shared.model(&config, needed)?;
    let prompt = model.prompt_of_caption(&config)?;
    if config.prompt.ends_with(' ') {
        output::note(
            "the prompt ends in a space, which most tokenizers take for the beginning of the next word: leave it out",
        );
    }
    let load_s = start.elapsed().as_secs_f64();
    let mut request = Request::of(&model, &config);
    let is_streamed = arguments.sampled.sampling.stream;
    if is_streamed {
        request.batch = 1;
    }
    let mut captions = Captions {
        model: &model,
        is_json: arguments.sampled.shared.json,
        is_streamed,
        is_alone: images::is_alone(&arguments.images, &images),
        prompt: &prompt,
        text: &config.prompt,
        total: images.len(),
        left: &images,
        load_s,
        rows: Vec::new(),
        printed: 0,
        failed: 0,
        stream: Stream::new(&model, is_streamed, request.stop.as_ref()),
        progress: (images.len() > 1 && !is_streamed).then(|| Progress::new(images.len() as u64, "images")),
    };
    generation::run(model.decoder(), &request, &mut captions)?;
    let failed = captions.failed;
    captions.progress.into_iter().for_each(Progress::clear);
    if failed > 0 {
        bail!("{failed} of {} images could not be captioned", images.len())
    }
    Ok(())
}

/// Images that become prompts as the batch has room for them, and texts that are printed in the images' order.
struct Captions<'a> {
    model: &'a Model,
    is_json: bool,
    is_streamed: bool,
    /// Whether one image was named, whose caption needs no name before it.
    is_alone: bool,
    prompt: &'a Prompt,
    text: &'a str,
    total: usize,
    left: &'a [Image],
    load_s: f64,
    rows: Vec<Row<'a>>,
    printed: usize,
    failed: usize,
    stream: Stream<'a>,
    progress: Option<Progress>,
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
            let Some((image, later)) = self.left.split_first() else { break };
            self.left = later;
            // One unreadable image does not cost the others their captions.
            match image.input(self.model) {
                Ok(input) => {
                    names.push(image.name.as_str());
                    inputs.push(input);
                }
                Err(error) if self.total == 1 => return Err(error),
                Err(error) => {
                    self.say(|| output::error(&error));
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
            if self.is_streamed {
                self.stream.end()?;
                continue;
            }
            let text = generation.text(self.model.tokenizer())?;
            if self.is_json {
                self.say(|| {
                    output::json(&Line {
                        image: name,
                        prompt: self.text,
                        text,
                        tokens: &generation.tokens,
                        logprobs: &generation.logprobs,
                        finish: generation.finish,
                        timing: seconds(self.load_s, *encode_s, generation.timing),
                    })
                })?;
            } else if self.is_alone {
                output::line(&output::on_one_line(&text))?;
            } else {
                self.say(|| output::line(&format!("{name}: {}", output::on_one_line(&text))))?;
            }
            let done = (self.printed + self.failed) as u64;
            if let Some(progress) = &mut self.progress {
                progress.at(done);
            }
        }
        Ok(())
    }
}

impl Captions<'_> {
    /// Says something above the bar.
    fn say<T>(&self, speak: impl FnOnce() -> T) -> T {
        match &self.progress {
            Some(progress) => progress.say(speak),
            None => speak(),
        }
    }
}

/// Text that is shown as it comes, up to a stop string; nothing where it is off.
pub(super) struct Stream<'a> {
    model: &'a Model,
    on: bool,
    stops: &'a [String],
    pieces: Option<(TextStream<'a>, StopText<'a>)>,
    started: bool,
}

impl<'a> Stream<'a> {
    /// A stream of the model's tokens.
    pub fn new(model: &'a Model, on: bool, stop: Option<&'a Stop<'a>>) -> Self {
        Self { model, on, stops: stop.map(Stop::strings).unwrap_or_default(), pieces: None, started: false }
    }

    /// Shows the text of a new id.
    pub fn token(&mut self, id: u32) -> Result<()> {
        if !self.on {
            return Ok(());
        }
        let (pieces, text) =
            self.pieces.get_or_insert_with(|| (self.model.tokenizer().stream(true), StopText::new(self.stops)));
        let piece = text.push(&pieces.push(id)?);
        self.show(&piece)
    }

    /// Ends the line.
    pub fn end(&mut self) -> Result<()> {
        if let Some((pieces, mut text)) = self.pieces.take() {
            let rest = text.push(&pieces.finish()?) + &text.finish();
            self.show(&rest)?;
        }
        self.started = false;
        output::line("")
    }

    /// The space in front of the first word is no part of the answer.
    fn show(&mut self, piece: &str) -> Result<()> {
        let piece = if self.started { piece } else { piece.trim_start() };
        self.started |= !piece.is_empty();
        output::piece(piece)
    }
}

pub(super) fn seconds(load_s: f64, encode_s: f64, timing: Timing) -> Seconds {
    Seconds { load_s, encode_s, prefill_s: timing.prefill_s, decode_s: timing.decode_s }
}
