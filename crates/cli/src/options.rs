//! Flags that several subcommands share, and how they lie over the config.

use super::images::Images;
use super::progress::Downloads;
use super::{output, threads};
use anyhow::{Context, Result};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use limber_config::{self as config, Config, MAX_THREADS, Plugin};
use limber_core::Registry;
use limber_core::registry::Role;
use limber_hub::{self as hub, Settings};
use limber_pipeline::needs::{self, Need};
use limber_pipeline::{Depth, Model, PrefixEncoder, Preprocessor, RunFolder, VisionEncoder};
use limber_pipeline::{missing, plugins};
use limber_plugin_host::Library;
use limber_weights::WeightSpec;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A flag whose values are the names of a table, each with its explanation in the help.
pub fn one_of<T: Copy + Send + Sync + 'static>(
    table: &'static [(&'static str, T, &'static str)],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(table.iter().map(|(name, _, help)| PossibleValue::new(*name).help(*help))).map(|given| {
        let entry = table.iter().find(|(name, _, _)| *name == given);
        entry.expect("clap passes names of the table alone").1
    })
}

/// The roles of components.
pub const ROLES: [(&str, Role, &str); 3] = [
    ("encoder", Role::Encoder, "Images to features"),
    ("stitch", Role::Stitch, "Features to a prefix for the language model"),
    ("decoder", Role::Decoder, "The language model"),
];

/// Where the model comes from and what it runs on.
#[derive(Debug, Clone, Args)]
pub struct Shared {
    /// Config file in YAML or TOML, or the name of a shipped one (see `config list`) [default: the embedded demo model]
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder of a `train` run in place of a config: its last stitch, the best by validation loss with @best, a checkpoint's
    /// with @step-N
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub run: Option<String>,
    /// Override a key of the config, e.g. --set encoder.weights=random:1; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Load a plugin (a dynamic library with additional components); may be repeated
    #[arg(long, value_name = "FILE")]
    pub plugin: Vec<PathBuf>,
    /// Device to run on: cpu, cuda:N or metal [default: the config's]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Type of the decoder's frozen weights: f32, f16, bf16, q8_0 or q4_k [default: the config's, or as stored]
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<String>,
    /// Number of threads [default: the config's, or one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS as i64))]
    pub threads: Option<u16>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub network: Network,
}

/// Whether the network may be used.
#[derive(Debug, Clone, Args)]
pub struct Network {
    /// Do not use the network: weights come from the Hugging Face cache as it is
    #[arg(long)]
    pub offline: bool,
}

/// A config, and how text is sampled with it.
#[derive(Debug, Args)]
pub struct Sampled {
    #[command(flatten)]
    pub shared: Shared,
    #[command(flatten)]
    pub sampling: SamplingFlags,
}

impl Sampled {
    /// The config with the flags over it.
    ///
    /// # Errors
    /// As [`Shared::load`].
    pub fn load(&self) -> Result<Config> {
        self.shared.load(Some(&self.sampling))
    }
}

/// How text is sampled; each lies over the config's section `generate`.
#[derive(Debug, Clone, Args)]
pub struct SamplingFlags {
    /// Maximum number of tokens to generate [default: the config's]
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// Sampling temperature; 0 is greedy decoding [default: the config's]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// Nucleus sampling: keep the smallest set of tokens whose probability reaches P [default: the config's]
    #[arg(long, value_name = "P")]
    pub top_p: Option<f64>,
    /// Keep the K most probable tokens; 0 keeps all [default: the config's]
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Keep tokens of at least this share of the most probable one's probability; 0 keeps all [default: the config's]
    #[arg(long, value_name = "P")]
    pub min_p: Option<f64>,
    /// Penalty of tokens that were generated before, as in transformers; 1 is none [default: the config's]
    #[arg(long, value_name = "R")]
    pub repetition_penalty: Option<f64>,
    /// Text before which generated text ends; may be repeated [default: the config's]
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub stop: Vec<String>,
    /// Put the prompt into the tokenizer's chat template, for instruction-tuned models [default: the config's]
    #[arg(long)]
    pub chat: bool,
    /// Seed for sampling [default: the config's]
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Print text as it is generated, one image at a time
    #[arg(long, conflicts_with = "json")]
    pub stream: bool,
    /// Batch size [default: the config's]
    #[arg(long, value_name = "B")]
    pub batch: Option<usize>,
}

impl Shared {
    /// The config with all flags laid over it; notes go to stderr, the thread pool is set up.
    ///
    /// # Errors
    /// Every problem of the config.
    pub fn load(&self, flags: Option<&SamplingFlags>) -> Result<Config> {
        let mut sets = self.set.clone();
        let mut set = |key: &str, value: Value| sets.push(format!("{key}={value}"));
        if let Some(device) = &self.device {
            set("device", json!(device));
        }
        if let Some(dtype) = &self.dtype {
            set("decoder.dtype", json!(dtype));
        }
        if let Some(threads) = self.threads {
            set("threads", json!(threads));
        }
        if let Some(flags) = flags {
            let numbers = [
                ("generate.max_tokens", flags.max_tokens.map(|v| json!(v))),
                ("generate.temperature", flags.temperature.map(number)),
                ("generate.top_p", flags.top_p.map(number)),
                ("generate.top_k", flags.top_k.map(|v| json!(v))),
                ("generate.min_p", flags.min_p.map(number)),
                ("generate.repetition_penalty", flags.repetition_penalty.map(number)),
                ("generate.stop", (!flags.stop.is_empty()).then(|| json!(flags.stop))),
                ("generate.chat", flags.chat.then(|| json!(true))),
                ("generate.seed", flags.seed.map(|v| json!(v))),
                ("generate.batch", flags.batch.map(|v| json!(v))),
            ];
            for (key, value) in numbers {
                if let Some(value) = value {
                    set(key, value);
                }
            }
        }
        let mut loaded = match (&self.config, &self.run) {
            (Some(path), _) => config::load(path, &sets)?,
            (None, Some(run)) => {
                let (loaded, note) = run.parse::<RunFolder>()?.load(&sets)?;
                note.iter().for_each(|note| output::note(note));
                loaded
            }
            (None, None) => demo(&sets)?,
        };
        loaded.config.plugins.extend(named(&self.plugin)?);
        for note in &loaded.notes {
            output::note(&note.to_string());
        }
        threads::start(loaded.config.threads)?;
        Ok(loaded.config)
    }
}

/// A number for `--set`. JSON has none that is not finite and would say null, which means the default: as text it is refused.
fn number(value: f64) -> Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}

#[cfg(feature = "demo")]
fn demo(sets: &[String]) -> Result<config::Loaded> {
    Ok(config::load_text("the demo's config", limber_demo::CONFIG, Path::new("."), sets)?)
}

#[cfg(not(feature = "demo"))]
fn demo(_sets: &[String]) -> Result<config::Loaded> {
    anyhow::bail!("no --config is given, and this program was built without the demo model (feature \"demo\")")
}

/// Whose components are listed beside those that are linked in.
#[derive(Debug, Clone, Args)]
pub struct Plugins {
    /// Config file whose plugins are loaded
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Load a plugin (a dynamic library with additional components); may be repeated
    #[arg(long, value_name = "FILE")]
    pub plugin: Vec<PathBuf>,
}

impl Plugins {
    /// The libraries of the config, the flags and the environment.
    ///
    /// # Errors
    /// A config with problems, a library that cannot be loaded.
    pub fn libraries(&self) -> Result<Vec<Library>> {
        let (mut named_by_config, mut folder) = (Vec::new(), PathBuf::new());
        if let Some(path) = &self.config {
            let config = config::load(path, &[])?.config;
            (named_by_config, folder) = (config.plugins, config.folder);
        }
        named_by_config.extend(named(&self.plugin)?);
        plugins::libraries(&named_by_config, &folder)
    }

    /// All components.
    ///
    /// # Errors
    /// As [`Self::libraries`]; a kind that is there twice.
    pub fn registry(&self) -> Result<Registry> {
        plugins::registry_with(&self.libraries()?)
    }
}

/// The libraries of `--plugin`, whose paths count from the working folder as a user types them.
fn named(paths: &[PathBuf]) -> Result<Vec<Plugin>> {
    let absolute = |path: &PathBuf| -> Result<Plugin> {
        let path = std::path::absolute(path).with_context(|| format!("--plugin {}", path.display()))?;
        Ok(Plugin { path: text(&path)?.to_string(), sha256: None })
    };
    paths.iter().map(absolute).collect()
}

impl Network {
    /// How the hub is spoken to.
    ///
    /// # Errors
    /// An environment that names no folder for the cache, or an endpoint or token that are none.
    pub fn settings(&self) -> Result<Settings> {
        Settings::from_environment(self.offline)
    }

    /// Brings into the cache what it lacks of `needs`.
    ///
    /// # Errors
    /// What the cache lacks and cannot get.
    pub fn ensure(&self, needs: &[Need]) -> Result<()> {
        if needs.is_empty() {
            return Ok(());
        }
        let settings = self.settings()?;
        let mut downloads = Downloads::new();
        for need in needs {
            let done = hub::ensure(&need.spec, &need.wanted, &settings, &mut |event| downloads.hear(event));
            match need.role {
                Some(role) => done.with_context(|| format!("section \"{role}\""))?,
                None => done?,
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Downloads what the cache lacks of a config's weights, as far as `depth` needs them; first it looks whether all is
    /// there that should be on this machine.
    ///
    /// # Errors
    /// An unknown kind, files that are not there, weights that cannot be had.
    pub fn bring(&self, config: &Config, registry: &Registry, depth: Depth) -> Result<()> {
        missing::check(config, registry, depth)?;
        self.network.ensure(&needs::of_config(config, registry, depth)?)
    }

    /// As [`Self::bring`], for training: the data sets are looked for as well.
    ///
    /// # Errors
    /// As [`Self::bring`].
    pub fn bring_for_training(&self, config: &Config, registry: &Registry) -> Result<()> {
        missing::check_training(config, registry)?;
        self.bring(config, registry, Depth::Text)
    }

    /// What `load` makes of a config, after what the cache lacks of its weights was downloaded as far as `depth` needs
    /// it; `offline` forbids it the network where that is wanted.
    fn loaded<T>(
        &self,
        config: &Config,
        depth: Depth,
        load: fn(&Config, &Registry) -> Result<T>,
        offline: fn(&mut T, bool),
    ) -> Result<T> {
        let registry = plugins::registry(config)?;
        self.bring(config, &registry, depth)?;
        let mut loaded = load(config, &registry)?;
        offline(&mut loaded, self.is_offline());
        Ok(loaded)
    }

    /// A config's whole model.
    ///
    /// # Errors
    /// As [`Model::load`], and weights that cannot be had; so for the other depths.
    pub fn model(&self, config: &Config, images: Images) -> Result<Model> {
        let is_remote = |role| config.section(role).weights.as_ref().is_some_and(WeightSpec::is_remote);
        if Role::ALL.into_iter().any(is_remote) {
            images.check()?;
        }
        if let Some(spec @ WeightSpec::Random(_)) = &config.stitch.weights {
            output::note(&format!(
                "the stitch is random ({spec}), so that the text says nothing of the image; `limber train` trains one, \
                 `limber fit` solves one"
            ));
        }
        self.loaded(config, Depth::Text, Model::load, Model::offline)
    }

    /// A config's encoder and stitch.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub fn prefix_encoder(&self, config: &Config) -> Result<PrefixEncoder> {
        self.loaded(config, Depth::Prefix, PrefixEncoder::load, PrefixEncoder::offline)
    }

    /// A config's encoder.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub fn vision(&self, config: &Config) -> Result<VisionEncoder> {
        self.loaded(config, Depth::Features, VisionEncoder::load, VisionEncoder::offline)
    }

    /// A config's preparation of images.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub fn preprocessor(&self, config: &Config) -> Result<Preprocessor> {
        self.loaded(config, Depth::Pixels, Preprocessor::load, Preprocessor::offline)
    }

    fn is_offline(&self) -> bool {
        self.network.offline || hub::is_offline()
    }
}

/// `path` as text, for what names images.
///
/// # Errors
/// A path that is not UTF-8.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("the path {path:?} is not UTF-8"))
}
