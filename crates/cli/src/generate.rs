//! `limber generate --config C --image A --image B --prompt "<image>Q: ... A: ... <image>Q: ... A:"`

use super::caption::{Line, Stream, seconds};
use super::options::{Sampled, text};
use super::output;
use anyhow::Result;
use candle_core::Tensor;
use clap::Args;
use limber_pipeline::generation::{Prompt, Request, Sampling, generate};
use std::path::PathBuf;
use std::time::Instant;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    sampled: Sampled,
    /// Image file, one for each <image> placeholder of the prompt, in their order; may be repeated
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// Prompt: text and <image> placeholders in any order; may be repeated, and a common prefix is computed once
    #[arg(long, value_name = "TEXT", required = true)]
    prompt: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let config = arguments.sampled.load()?;
    let images = arguments.image.len();
    let prompts: Vec<Prompt> = arguments.prompt.iter().map(|p| Prompt::parse(p, images)).collect::<Result<_>>()?;
    Sampling::of(&config).check()?;
    let model = arguments.sampled.shared.model(&config)?;
    let load_s = start.elapsed().as_secs_f64();
    let names: Vec<&str> = arguments.image.iter().map(|path| text(path)).collect::<Result<_>>()?;
    let pixels: Vec<Tensor> = names.iter().map(|name| model.input(name)).collect::<Result<_>>()?;
    let start = Instant::now();
    let prefixes = model.prefixes(&pixels, config.generate.batch)?;
    let encode_s = start.elapsed().as_secs_f64();
    let embedded: Vec<Tensor> = prompts.iter().map(|p| model.embed_prompt(p, &prefixes)).collect::<Result<_>>()?;
    let mut request = Request::of(&model, &config);
    let mut stream = Stream::new(&model, arguments.sampled.sampling.stream)?;
    if arguments.sampled.sampling.stream {
        request.batch = 1;
    }
    let mut shown = 0;
    let rows = generate(model.decoder(), &embedded, &request, &mut |row, id| {
        // Rows come one after the other here: a new number is a new line.
        if row != shown {
            stream.end()?;
            shown = row;
        }
        stream.token(id)
    })?;
    if arguments.sampled.sampling.stream {
        return stream.end();
    }
    for (row, prompt) in rows.iter().zip(&arguments.prompt) {
        let text = model.tokenizer().decode(&row.tokens, true)?.trim().to_string();
        if arguments.sampled.shared.json {
            output::json(&Line {
                image: output::images(&names),
                prompt,
                text,
                tokens: &row.tokens,
                logprobs: &row.logprobs,
                finish: row.finish,
                timing: seconds(load_s, encode_s, row.timing),
            })?;
        } else {
            output::line(&text)?;
        }
    }
    Ok(())
}
