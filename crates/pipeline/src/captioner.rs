//! `Captioner`: a config's model with its prompt and its sampling, ready to caption, continue and score.

use crate::generation::{Finish, Generation, Request, Sampling, generate};
use crate::image_source::Image;
use crate::model::{Depth, Model};
use crate::run_folder::RunFolder;
use crate::{missing, needs, plugins};
use anyhow::{Result, bail};
use candle_core::Tensor;
use limber_config::{self as config, Config};
use limber_core::Registry;
use limber_hub::{self as hub, Settings};
use std::path::Path;

/// Generated text.
#[derive(Debug, Clone, PartialEq)]
pub struct Caption {
    /// The text, without white space around it.
    pub text: String,
    /// Its ids, without the end of sequence.
    pub tokens: Vec<u32>,
    /// Log-probability of each id, over the whole vocabulary at temperature 1.
    pub logprobs: Vec<f32>,
    /// Why it stopped.
    pub finish: Finish,
}

/// Log-probabilities of a given text.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The text's ids.
    pub tokens: Vec<u32>,
    /// Log-probability of each id after everything before it.
    pub logprobs: Vec<f32>,
}

impl Score {
    /// Log-probability of the whole text.
    pub fn total(&self) -> f64 {
        self.logprobs.iter().map(|p| f64::from(*p)).sum()
    }
}

/// How a [`Captioner`] is opened: a config, what lies over it, and where its components come from.
#[derive(Default)]
pub struct Open {
    config: Option<Config>,
    overrides: Vec<String>,
    registry: Option<Registry>,
    download: bool,
}

impl Open {
    /// Lays `KEY=VALUE` over the config, as the program's `--set` does. For configs that are opened by path.
    #[must_use]
    pub fn set(mut self, setting: impl Into<String>) -> Self {
        self.overrides.push(setting.into());
        self
    }

    /// Uses this config, which was loaded or made before.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Takes components from this registry alone, so that a program can bring encoders, decoders and stitches of its
    /// own; by default, from the built-in ones and the config's plugins.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Downloads what the hub's cache lacks of the weights; by default, what is missing is an error.
    #[must_use]
    pub fn download(mut self, download: bool) -> Self {
        self.download = download;
        self
    }

    /// Opens the config file `path`.
    ///
    /// # Errors
    /// Every problem of the config; components that do not fit each other; weights that are missing or unreadable.
    pub fn file(mut self, path: impl AsRef<Path>) -> Result<Captioner> {
        self.config = Some(config::load(path.as_ref(), &self.overrides)?.config);
        self.open()
    }

    /// Opens what `limber train` wrote: `DIR`, `DIR@best` or `DIR@step-N`.
    ///
    /// # Errors
    /// A folder that is no run's, a checkpoint that is not there; as [`Self::file`].
    pub fn run(mut self, run: &str) -> Result<Captioner> {
        self.config = Some(run.parse::<RunFolder>()?.load(&self.overrides)?.0.config);
        self.open()
    }

    /// Opens the demo model that is compiled in.
    ///
    /// # Errors
    /// A setting that does not fit.
    #[cfg(feature = "demo")]
    pub fn demo(mut self) -> Result<Captioner> {
        let text = limber_demo::CONFIG;
        self.config = Some(config::load_text("the demo's config", text, Path::new("."), &self.overrides)?.config);
        self.open()
    }

    /// Opens the config given by [`Self::config`].
    ///
    /// # Errors
    /// As [`Self::file`]; no config at all.
    pub fn open(self) -> Result<Captioner> {
        let Some(config) = self.config else { bail!("no config to open; expected one by config() or file()") };
        let registry = match self.registry {
            Some(registry) => registry,
            None => plugins::registry(&config)?,
        };
        if self.download {
            missing::check(&config, &registry, Depth::Text)?;
            let settings = Settings::from_environment(false)?;
            for need in needs::of_config(&config, &registry, Depth::Text)? {
                hub::ensure(&need.spec, &need.wanted, &settings, &mut |_| ())?;
            }
        }
        let model = Model::load(&config, &registry)?;
        Sampling::of(&config).check()?;
        Ok(Captioner { model, config })
    }
}

/// A model with its prompt and its sampling.
///
/// Its methods take `&self`, and several threads may share one.
pub struct Captioner {
    model: Model,
    config: Config,
}

impl Captioner {
    /// Opens the config file `path`; nothing is downloaded.
    ///
    /// # Errors
    /// As [`Open::file`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Open::default().file(path)
    }

    /// Opens the demo model that is compiled in.
    ///
    /// # Errors
    /// None in a program that was built whole.
    #[cfg(feature = "demo")]
    pub fn demo() -> Result<Self> {
        Open::default().demo()
    }

    /// Opens a config with settings, components or downloads of the caller's.
    pub fn options() -> Open {
        Open::default()
    }

    /// The components.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The caption of one image, under the config's prompt.
    ///
    /// # Errors
    /// An image that cannot be read; a prompt that does not fit the decoder's context length.
    pub fn caption(&self, image: impl Into<Image>) -> Result<Caption> {
        let mut captions = self.captions([image])?;
        captions.pop().ok_or_else(|| anyhow::anyhow!("one image gave no caption"))
    }

    /// The captions of several images, in their order; `generate.batch` of the config is the batch size.
    ///
    /// # Errors
    /// As [`Self::caption`].
    pub fn captions<I: Into<Image>>(&self, images: impl IntoIterator<Item = I>) -> Result<Vec<Caption>> {
        let prompt = self.model.prompt_of_caption(&self.config)?;
        let prefixes = self.prefixes(images)?;
        let prompts: Vec<Tensor> = prefixes
            .iter()
            .map(|prefix| self.model.embed_prompt(&prompt, std::slice::from_ref(prefix)))
            .collect::<Result<_>>()?;
        self.continuations(&prompts)
    }

    /// Continues `prompt`, whose i-th `<image>` mark stands for the i-th image.
    ///
    /// # Errors
    /// Another number of marks than images; otherwise as [`Self::caption`].
    pub fn generate<I: Into<Image>>(&self, prompt: &str, images: impl IntoIterator<Item = I>) -> Result<Caption> {
        let prefixes = self.prefixes(images)?;
        let prompt = self.model.prompt(&self.config, prompt, prefixes.len())?;
        let mut all = self.continuations(&[self.model.embed_prompt(&prompt, &prefixes)?])?;
        all.pop().ok_or_else(|| anyhow::anyhow!("one prompt gave no text"))
    }

    /// Log-probability of every token of `text` after the image and the config's prompt. The text is tokenised as it stands:
    /// behind a prompt that ends in a word, words begin with a space.
    ///
    /// # Errors
    /// A text without tokens; otherwise as [`Self::caption`].
    pub fn score(&self, image: impl Into<Image>, text: &str) -> Result<Score> {
        let prompt = self.model.prompt_of_caption(&self.config)?;
        let before = self.model.embed_prompt(&prompt, &self.prefixes([image])?)?;
        let tokens = self.model.tokenizer().encode(text)?;
        if tokens.is_empty() {
            bail!("the text {text:?} has no token to score")
        }
        let logprobs = self.model.language().score(&before, &tokens)?;
        Ok(Score { tokens, logprobs })
    }

    /// The prefix `[K, D]` f32 of each image.
    ///
    /// # Errors
    /// As [`Self::caption`].
    pub fn prefixes<I: Into<Image>>(&self, images: impl IntoIterator<Item = I>) -> Result<Vec<Tensor>> {
        let preprocessor = self.model.preprocessor();
        let inputs: Vec<Tensor> =
            images.into_iter().map(|image| image.into().input(preprocessor)).collect::<Result<_>>()?;
        self.model.prefixes(&inputs, self.config.generate.batch)
    }

    /// Texts after prompts, each `[1, T, D]`.
    fn continuations(&self, prompts: &[Tensor]) -> Result<Vec<Caption>> {
        let request = Request::of(&self.model, &self.config);
        let rows = generate(self.model.decoder(), prompts, &request, &mut |_, _| Ok(()))?;
        rows.into_iter()
            .map(|row| {
                let text = row.text(self.model.tokenizer())?;
                let Generation { tokens, logprobs, finish, .. } = row;
                Ok(Caption { text, tokens, logprobs, finish })
            })
            .collect()
    }
}
