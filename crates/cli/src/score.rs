//! `limber score --config C --image A --prompt P --text T`: log-probability of every token of T.

use super::images::Images;
use super::options::{Shared, text};
use super::output;
use anyhow::{Result, bail};
use candle_core::Tensor;
use clap::Args;
use limber_pipeline::generation::{IMAGE_MARK, Prompt};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    shared: Shared,
    /// Image file, one for each <image> placeholder of the prompt; a single image needs no placeholder and comes first
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// Text between the image and the scored text [default: the config's prompt]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Text whose tokens are scored, as it stands: behind a prompt that ends in a word, words begin with a space
    #[arg(long, value_name = "TEXT")]
    text: String,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    image: Value,
    prompt: &'a str,
    text: &'a str,
    tokens: &'a [u32],
    logprobs: &'a [f32],
    total: f64,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let config = arguments.shared.load(None)?;
    let prompt_text = arguments.prompt.as_ref().unwrap_or(&config.prompt);
    let images = arguments.image.len();
    let one = images == 1 && !prompt_text.contains(IMAGE_MARK);
    if images == 0 && prompt_text.is_empty() {
        bail!(
            "there is nothing before the text: give an image or a prompt, since the first token of a sequence has no probability"
        )
    }
    let whole = if one { Prompt::caption_text(prompt_text) } else { prompt_text.clone() };
    Prompt::parse(&whole, images)?;
    let model = arguments.shared.model(&config, Images::All(&arguments.image))?;
    let prompt = model.prompt(&config, &whole, images)?;
    let end = if config.generate.chat { "" } else { prompt_text.rsplit(IMAGE_MARK).next().unwrap_or_default() };
    if model.tokenizer().following(end, &arguments.text)? != arguments.text.as_str() {
        output::note(&format!(
            "the text {:?} is scored as it stands, without a space between it and the prompt {prompt_text:?}, so that its first \
             token goes on with the prompt's last word; a word of its own begins with a space: {:?}",
            arguments.text,
            format!(" {}", arguments.text)
        ));
    }
    let tokens = model.tokenizer().encode(&arguments.text)?;
    if tokens.is_empty() {
        bail!("the text {:?} has no token to score", arguments.text)
    }
    let names: Vec<&str> = arguments.image.iter().map(|path| text(path)).collect::<Result<_>>()?;
    let pixels: Vec<Tensor> = names.iter().map(|name| model.input(name)).collect::<Result<_>>()?;
    let before = model.embed_prompt(&prompt, &model.prefixes(&pixels, config.generate.batch)?)?;
    let logprobs = model.language().score(&before, &tokens)?;
    let total = logprobs.iter().map(|p| f64::from(*p)).sum();
    if arguments.shared.json {
        return output::json(&Line {
            image: output::images(&names),
            prompt: prompt_text,
            text: &arguments.text,
            tokens: &tokens,
            logprobs: &logprobs,
            total,
        });
    }
    for (id, logprob) in tokens.iter().zip(&logprobs) {
        output::line(&format!("{logprob:9.4}  {:?}", model.tokenizer().decode(&[*id], false)?))?;
    }
    output::line(&format!("{total:9.4}  total"))
}
