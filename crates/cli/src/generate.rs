//! `limber generate --config C --image A --image B --prompt "<image>Q: ... A: ... <image>Q: ... A:"`

use super::caption::{Line, Stream, seconds};
use super::images::Images;
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
    arguments.prompt.iter().try_for_each(|prompt| Prompt::parse(prompt, images).map(|_| ()))?;
    Sampling::of(&config).check()?;
    let model = arguments.sampled.shared.model(&config, Images::All(&arguments.image))?;
    let prompts: Vec<Prompt> =
        arguments.prompt.iter().map(|prompt| model.prompt(&config, prompt, images)).collect::<Result<_>>()?;
    let load_s = start.elapsed().as_secs_f64();
    let names: Vec<&str> = arguments.image.iter().map(|path| text(path)).collect::<Result<_>>()?;
    let pixels: Vec<Tensor> = names.iter().map(|name| model.input(name)).collect::<Result<_>>()?;
    let start = Instant::now();
    let prefixes = model.prefixes(&pixels, config.generate.batch)?;
    let encode_s = start.elapsed().as_secs_f64();
    let embedded: Vec<Tensor> = prompts.iter().map(|p| model.embed_prompt(p, &prefixes)).collect::<Result<_>>()?;
    let mut request = Request::of(&model, &config);
    if arguments.sampled.sampling.stream {
        request.batch = 1;
    }
    let mut stream = Stream::new(&model, arguments.sampled.sampling.stream, request.stop.as_ref());
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
        let text = row.text(model.tokenizer())?;
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
        } else if rows.len() == 1 {
            output::line(&text)?;
        } else {
            output::line(&output::on_one_line(&text))?;
        }
    }
    Ok(())
}
