//! `Model`: all components of one config, prepared first, held against each other, then loaded.

use crate::generation::{Prompt, Segment};
use crate::language::LanguageModel;
use crate::prefix::{PrefixEncoder, Prepared};
use crate::preprocessor::Preprocessor;
use crate::vision::VisionEncoder;
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use limber_config::Config;
use limber_core::{Decoder, FeatureSpec, InputSpec, Registry, Stitch};
use limber_text::{Message, Speaker, Tokenizer};

/// How far an image goes, and so which components are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Pixels `[3, S, S]`: no weights at all, a [`Preprocessor`].
    Pixels,
    /// Features `[N, E]`: a [`VisionEncoder`].
    Features,
    /// Prefix `[K, D]`: a [`PrefixEncoder`], and the decoder's sizes.
    Prefix,
    /// Text: a [`Model`].
    Text,
}

/// Encoder, stitch and decoder of one config, complete.
pub struct Model {
    prefix: PrefixEncoder,
    language: LanguageModel,
}

impl Model {
    /// Loads a config's components. What does not fit is refused before any large weight is read. Nothing is
    /// downloaded: [`crate::needs`] says what a config lacks.
    ///
    /// # Errors
    /// An unknown kind or setting, components that do not fit each other, weights that are missing or unreadable.
    pub fn load(config: &Config, registry: &Registry) -> Result<Self> {
        let (prefix, decoder) = Prepared::new(config, registry)?.build(config)?;
        Ok(Self { prefix, language: LanguageModel::build(config, decoder)? })
    }

    /// Forbids the network to the reading of images.
    pub fn offline(&mut self, offline: bool) {
        self.prefix.offline(offline);
    }

    /// What images go through first.
    pub fn preprocessor(&self) -> &Preprocessor {
        self.prefix.preprocessor()
    }

    /// Preprocessor and encoder.
    pub fn vision(&self) -> &VisionEncoder {
        self.prefix.vision()
    }

    /// Preprocessor, encoder and stitch.
    pub fn prefix_encoder(&self) -> &PrefixEncoder {
        &self.prefix
    }

    /// Decoder and tokenizer.
    pub fn language(&self) -> &LanguageModel {
        &self.language
    }

    /// What the encoder takes: pixels, or features from a file.
    pub fn input_spec(&self) -> InputSpec {
        self.preprocessor().input_spec()
    }

    /// The features that pixels become.
    pub fn feature_spec(&self) -> FeatureSpec {
        self.preprocessor().feature_spec()
    }

    /// The device that holds the tensors.
    pub fn device(&self) -> &Device {
        self.preprocessor().device()
    }

    /// As [`Preprocessor::input`].
    ///
    /// # Errors
    /// As there.
    pub fn input(&self, path: &str) -> Result<Tensor> {
        self.preprocessor().input(path)
    }

    /// As [`VisionEncoder::features`].
    ///
    /// # Errors
    /// As there.
    pub fn features(&self, inputs: &[Tensor]) -> Result<Tensor> {
        self.vision().features(inputs)
    }

    /// As [`PrefixEncoder::prefix`].
    ///
    /// # Errors
    /// As there.
    pub fn prefix(&self, features: &Tensor) -> Result<Tensor> {
        self.prefix.prefix(features)
    }

    /// As [`PrefixEncoder::prefixes`].
    ///
    /// # Errors
    /// As there.
    pub fn prefixes(&self, inputs: &[Tensor], batch: usize) -> Result<Vec<Tensor>> {
        self.prefix.prefixes(inputs, batch)
    }

    /// The stitch.
    pub fn stitch(&self) -> &dyn Stitch {
        self.prefix.stitch()
    }

    /// The decoder.
    pub fn decoder(&self) -> &dyn Decoder {
        self.language.decoder()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.language.tokenizer()
    }

    /// The prompt of a text with `images` marks: as it stands, or under `generate.chat` as what a user says, in the
    /// tokenizer's chat template.
    ///
    /// # Errors
    /// As [`Prompt::parse`]; a tokenizer without a chat template, what the template refuses.
    pub fn prompt(&self, config: &Config, text: &str, images: usize) -> Result<Prompt> {
        let plain = Prompt::parse(text, images)?;
        if !config.generate.chat {
            return Ok(plain);
        }
        let template = self.tokenizer().chat_template().context("generate.chat")?;
        Prompt::parse(&template.render(&[Message::new(Speaker::User, text)], true)?, images)
    }

    /// As [`Self::prompt`], of a config's captions.
    ///
    /// # Errors
    /// As [`Self::prompt`].
    pub fn prompt_of_caption(&self, config: &Config) -> Result<Prompt> {
        self.prompt(config, &Prompt::caption_text(&config.prompt), 1)
    }

    /// A prompt as embeddings `[1, T, D]`; `prefixes` holds the prefix `[K, D]` of each image.
    ///
    /// # Errors
    /// A prompt of nothing, or that names an image that is not there.
    pub fn embed_prompt(&self, prompt: &Prompt, prefixes: &[Tensor]) -> Result<Tensor> {
        let mut pieces = Vec::with_capacity(prompt.segments.len());
        for segment in &prompt.segments {
            match segment {
                Segment::Image(index) => {
                    let prefix = prefixes.get(*index).with_context(|| format!("the prompt names image {index}"))?;
                    pieces.push(prefix.unsqueeze(0)?);
                }
                Segment::Text(text) => {
                    let ids = self.tokenizer().encode(text)?;
                    if !ids.is_empty() {
                        pieces.push(self.language.embed(&ids)?);
                    }
                }
            }
        }
        if pieces.is_empty() {
            bail!("the prompt holds no token and no image")
        }
        Ok(Tensor::cat(&pieces, 1)?)
    }
}
