//! Flags that several subcommands share, and how they lie over the config.

use super::progress::Downloads;
use super::{output, threads};
use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use limber_config::{self as config, Config, MAX_THREADS, Plugin};
use limber_core::Registry;
use limber_pipeline::needs::{self, Need};
use limber_pipeline::{Depth, Model, PrefixEncoder, Preprocessor, RunFolder, VisionEncoder};
use limber_pipeline::{missing, plugins};
use limber_plugin_host::Library;
use limber_weights::WeightSpec;
use limber_weights::hub::{self, Settings};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A flag whose values are the names of a table.
pub fn one_of<T: Copy + Send + Sync + 'static>(
    table: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(table.iter().map(|(name, _)| *name)).map(|given| {
        let entry = table.iter().find(|(name, _)| *name == given);
        entry.expect("clap passes names of the table alone").1
    })
}

/// Where the model comes from and what it runs on.
#[derive(Debug, Clone, Args)]
pub struct Shared {
    /// Config file (YAML or TOML), or the name of a shipped one (`limber config list`); without one, the embedded demo model
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder of a `limber train` run in place of a config: its last stitch, DIR@best the one of the lowest validation
    /// loss, DIR@step-N a checkpoint's
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub run: Option<String>,
    /// Overrides one key of the config, e.g. --set encoder.weights=random:1; may be given several times
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Loads a dynamic library with further components; may be given several times
    #[arg(long, value_name = "FILE")]
    pub plugin: Vec<PathBuf>,
    /// Device: cpu, cuda:N or metal
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Type of the decoder's frozen weights: f32, f16 or bf16; as in the file where nothing is said
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<String>,
    /// Threads; one a core where nothing is said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_THREADS as i64))]
    pub threads: Option<u16>,
    /// Prints one JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub network: Network,
}

/// Whether the network may be used.
#[derive(Debug, Clone, Args)]
pub struct Network {
    /// Forbids the network: weights come from the Hugging Face cache as it is
    #[arg(long)]
    pub offline: bool,
}

/// How text is sampled; each lies over the config's section `generate`.
#[derive(Debug, Clone, Args)]
pub struct SamplingFlags {
    /// Most new tokens of a text
    #[arg(long, value_name = "N")]
    pub max_tokens: Option<usize>,
    /// Temperature; 0 is greedy
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// Keeps the smallest set of tokens whose probability reaches P
    #[arg(long, value_name = "P")]
    pub top_p: Option<f64>,
    /// Keeps the K most probable tokens; 0 keeps all
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Seed of the sampling
    #[arg(long, value_name = "SEED")]
    pub seed: Option<u64>,
    /// Prints text as it comes, one image at a time
    #[arg(long, conflicts_with = "json")]
    pub stream: bool,
    /// Images that go through the model together
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
    /// Config file, whose plugins are loaded
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Loads a dynamic library with further components; may be given several times
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
    /// An environment that names no place for the cache, or an endpoint or token that are none.
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

    /// The registry of a config, after what the cache lacks of its weights was downloaded as far as `depth` needs it.
    ///
    /// # Errors
    /// As [`Self::bring`].
    fn registry(&self, config: &Config, depth: Depth) -> Result<Registry> {
        let registry = plugins::registry(config)?;
        self.bring(config, &registry, depth)?;
        Ok(registry)
    }

    /// A config's whole model.
    ///
    /// # Errors
    /// As [`Model::load`], and weights that cannot be had; so for the other depths.
    pub fn model(&self, config: &Config) -> Result<Model> {
        let mut model = Model::load(config, &self.registry(config, Depth::Text)?)?;
        if let Some(spec @ WeightSpec::Random(_)) = &config.stitch.weights {
            output::note(&format!(
                "the stitch is random ({spec}), so that the text says nothing of the image; `limber train` trains one, \
                 `limber fit` solves one"
            ));
        }
        model.offline(self.is_offline());
        Ok(model)
    }

    /// A config's encoder and stitch.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub fn prefix_encoder(&self, config: &Config) -> Result<PrefixEncoder> {
        let mut prefix = PrefixEncoder::load(config, &self.registry(config, Depth::Prefix)?)?;
        prefix.offline(self.is_offline());
        Ok(prefix)
    }

    /// A config's encoder.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub fn vision(&self, config: &Config) -> Result<VisionEncoder> {
        let mut vision = VisionEncoder::load(config, &self.registry(config, Depth::Features)?)?;
        vision.offline(self.is_offline());
        Ok(vision)
    }

    /// A config's preparation of images.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub fn preprocessor(&self, config: &Config) -> Result<Preprocessor> {
        let mut preprocessor = Preprocessor::load(config, &self.registry(config, Depth::Pixels)?)?;
        preprocessor.offline(self.is_offline());
        Ok(preprocessor)
    }

    fn is_offline(&self) -> bool {
        self.network.offline || hub::is_offline()
    }
}

/// Whether something is at the path of an image, or what it names is an address; `FILE#NAME` is an array of a file.
pub fn is_there(path: &Path) -> bool {
    let Some(text) = path.to_str() else { return path.exists() };
    let file = text.rsplit_once('#').map_or(text, |(file, _)| file);
    text.contains("://") || path.exists() || Path::new(file).exists()
}

/// Refuses images none of which is there, before anything large is downloaded or read.
///
/// # Errors
/// Names the first.
pub fn some_are_there(images: &[PathBuf]) -> Result<()> {
    match images.first() {
        Some(first) if !images.iter().any(|path| is_there(path)) => {
            let others =
                if images.len() > 1 { format!(", nor any of the {} others", images.len() - 1) } else { String::new() };
            bail!("there is no image {}{others}", first.display())
        }
        _ => Ok(()),
    }
}

/// Refuses an image that is not there, before anything large is downloaded or read.
///
/// # Errors
/// Names it.
pub fn all_are_there(images: &[PathBuf]) -> Result<()> {
    match images.iter().find(|path| !is_there(path)) {
        Some(path) => bail!("there is no image {}", path.display()),
        None => Ok(()),
    }
}

/// `path` as text, for places that name images.
///
/// # Errors
/// A path that is not UTF-8.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("the path {path:?} is not UTF-8"))
}
