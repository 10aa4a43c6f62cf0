//! The registry: every component that a config can name, linked in or loaded, through one and the same `insert`.
//!
//! A component is prepared first (settings and specs, no weights), then built (weights), so that what does not fit is
//! refused before any large weight is read.

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::settings::{self, did_you_mean, or};
use crate::spec::{DecoderSpec, FeatureSpec, InputSpec};
use crate::stitch::{PrefixSpec, Stitch};
use crate::weights::{WeightSource, Weights};
use anyhow::{Result, anyhow, bail};
use schemars::JsonSchema;
use serde::de::value::Error as ValueError;
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What Hugging Face's `save_pretrained` calls its weights, whole or sharded.
pub const DEFAULT_FILES: &[&str] =
    &["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// What a component is to a model, and the name of its section in a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Images to features `[B, N, E]`.
    Encoder,
    /// Features to a prefix `[B, K, D]`.
    Stitch,
    /// The language model.
    Decoder,
}

impl Role {
    /// Every role, in the order in which an image passes them.
    pub const ALL: [Role; 3] = [Role::Encoder, Role::Stitch, Role::Decoder];

    /// The name in configs.
    pub fn name(self) -> &'static str {
        match self {
            Role::Encoder => "encoder",
            Role::Stitch => "stitch",
            Role::Decoder => "decoder",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Role {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let named = Self::deserialize(text.into_deserializer());
        named.map_err(|_: ValueError| anyhow!("role {text:?} is unknown, expected {}", or(&Self::ALL.map(Role::name))))
    }
}

impl TryFrom<&str> for Role {
    type Error = anyhow::Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
    }
}

/// What every component has: a kind, settings, a tiny preset.
pub trait Component: Sized + Send + Sync + 'static {
    /// The settings, strict (`deny_unknown_fields`).
    type Config: Serialize + DeserializeOwned + JsonSchema + Clone + Send + Sync;
    /// The kind that configs name, in kebab case.
    const KIND: &'static str;
    /// One line for `limber components`.
    const ABOUT: &'static str;

    /// File names that are looked for in a weights folder, the first that is there is read.
    const FILES: &'static [&'static str] = DEFAULT_FILES;

    /// Whether it reads any weights; a component without them takes no `weights` line.
    const NEEDS_WEIGHTS: bool = true;

    /// Settings of a model small enough for the conformance suite.
    fn tiny() -> Self::Config;

    /// Whether what lies beside the weights (`config.json`) says that they are this component's: the kind `auto`.
    ///
    /// # Errors
    /// A document that cannot be read.
    fn recognises(_source: &dyn WeightSource) -> Result<bool> {
        Ok(false)
    }

    /// Fills the settings from what lies beside the weights (`config.json`) and checks them.
    ///
    /// # Errors
    /// A setting that is out of range or not supported, by name.
    fn resolve(config: Self::Config, _source: &dyn WeightSource) -> Result<Self::Config> {
        Ok(config)
    }
}

/// A component that is an encoder.
pub trait EncoderComponent: Component + Encoder {
    /// Image and feature specs of resolved settings, before any weight is read.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    fn specs(config: &Self::Config) -> Result<EncoderSpecs>;

    /// The encoder of resolved settings.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    fn new(config: &Self::Config, weights: &Weights) -> Result<Self>;
}

/// A component that is a decoder.
pub trait DecoderComponent: Component + Decoder {
    /// The sizes of resolved settings, before any weight is read.
    ///
    /// # Errors
    /// Sizes that do not fit each other.
    fn specs(config: &Self::Config) -> Result<DecoderSpec>;

    /// The decoder of resolved settings.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    fn new(config: &Self::Config, weights: &Weights) -> Result<Self>;
}

/// A component that is a stitch.
pub trait StitchComponent: Component + Stitch {
    /// The prefix that resolved settings give between these two sides. A checkpoint in `context.source` that does
    /// not fit is refused here, naming both sides.
    ///
    /// # Errors
    /// Widths of the checkpoint that are not those of the encoder and decoder.
    fn specs(config: &Self::Config, context: &StitchContext) -> Result<PrefixSpec>;

    /// The stitch of resolved settings.
    ///
    /// # Errors
    /// Weights that are missing or of another shape.
    fn new(config: &Self::Config, context: &StitchContext, weights: &Weights) -> Result<Self>;
}

/// The two sides a stitch stands between, and the weights it will read.
#[derive(Clone, Copy)]
pub struct StitchContext<'a> {
    /// The encoder's features.
    pub features: FeatureSpec,
    /// The kind of the encoder, for messages.
    pub encoder: &'a str,
    /// LM width D.
    pub width: usize,
    /// The kind of the decoder, for messages.
    pub decoder: &'a str,
    /// The weights, whose names and shapes may be read.
    pub source: &'a dyn WeightSource,
}

/// The two specs of an encoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderSpecs {
    /// Pixels in, or features from a file.
    pub input: InputSpec,
    /// Features out.
    pub features: FeatureSpec,
}

/// Where an entry comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "origin")]
pub enum Origin {
    /// Compiled in.
    BuiltIn {
        /// The package.
        package: String,
        /// Its version.
        version: String,
    },
    /// A dynamic library.
    Library {
        /// The file.
        path: String,
        /// The name that its author gave it.
        name: String,
        /// Its version.
        version: String,
        /// The version of the ABI that it asks for.
        abi: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Origin::BuiltIn { package, version } => write!(f, "built in ({package} {version})"),
            Origin::Library { path, name, version, abi } => write!(f, "library {path} ({name} {version}, ABI {abi})"),
        }
    }
}

/// A component whose settings and sizes are known and whose weights are not yet read.
pub struct Prepared<S, T: ?Sized> {
    /// The kind.
    pub kind: String,
    /// The resolved settings.
    pub settings: Value,
    /// The sizes.
    pub spec: S,
    build: BuildFn<T>,
}

type BuildFn<T> = Box<dyn FnOnce(&Weights) -> Result<Box<T>> + Send>;

impl<S, T: ?Sized> Prepared<S, T> {
    /// What a host of external components makes of one.
    pub fn new(
        kind: impl Into<String>,
        settings: Value,
        spec: S,
        build: impl FnOnce(&Weights) -> Result<Box<T>> + Send + 'static,
    ) -> Self {
        Self { kind: kind.into(), settings, spec, build: Box::new(build) }
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// Weights that are missing, unreadable or of another shape.
    pub fn build(self, weights: &Weights) -> Result<Box<T>> {
        (self.build)(weights)
    }
}

/// An encoder ready to be built.
pub type PreparedEncoder = Prepared<EncoderSpecs, dyn Encoder>;
/// A decoder ready to be built.
pub type PreparedDecoder = Prepared<DecoderSpec, dyn Decoder>;
/// A stitch ready to be built.
pub type PreparedStitch = Prepared<PrefixSpec, dyn Stitch>;

/// Prepares an encoder or decoder from settings and the source of its weights.
pub type PrepareFn<S, T> = Arc<dyn Fn(Value, &dyn WeightSource) -> Result<Prepared<S, T>> + Send + Sync>;
/// Prepares a stitch from settings and the two sides.
pub type PrepareStitchFn = Arc<dyn Fn(Value, &StitchContext) -> Result<PreparedStitch> + Send + Sync>;

/// Whether weights are those of a component, by what lies beside them.
pub type RecogniseFn = Arc<dyn Fn(&dyn WeightSource) -> Result<bool> + Send + Sync>;

/// How an entry makes its component.
#[derive(Clone)]
pub enum Maker {
    /// Of an encoder.
    Encoder(PrepareFn<EncoderSpecs, dyn Encoder>),
    /// Of a decoder.
    Decoder(PrepareFn<DecoderSpec, dyn Decoder>),
    /// Of a stitch.
    Stitch(PrepareStitchFn),
}

impl Maker {
    /// What it makes.
    pub fn role(&self) -> Role {
        match self {
            Maker::Encoder(_) => Role::Encoder,
            Maker::Decoder(_) => Role::Decoder,
            Maker::Stitch(_) => Role::Stitch,
        }
    }
}

/// One registered component.
#[derive(Clone)]
pub struct Entry {
    /// The kind that configs name.
    pub kind: String,
    /// One line of what it is.
    pub about: String,
    /// Where it comes from.
    pub origin: Origin,
    /// File names that are looked for in a weights folder, in this order.
    pub files: Vec<String>,
    /// Whether it reads any weights.
    pub needs_weights: bool,
    /// The JSON Schema of its settings.
    pub schema: Value,
    /// Settings small enough for the conformance suite.
    pub tiny: Value,
    /// Whether weights are this component's, by what lies beside them.
    pub recognises: RecogniseFn,
    /// How it is made.
    pub maker: Maker,
}

/// What `register!` hands to `inventory`.
pub struct Registration {
    /// Inserts the component into a registry.
    pub insert: fn(&mut Registry) -> Result<()>,
}

inventory::collect!(Registration);

/// All components, sorted by role and kind.
#[derive(Clone, Default)]
pub struct Registry {
    entries: BTreeMap<(&'static str, String), Entry>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The components that are linked into this program.
    ///
    /// # Errors
    /// Two components of one kind.
    pub fn from_inventory() -> Result<Self> {
        let mut registry = Self::new();
        for registration in inventory::iter::<Registration> {
            (registration.insert)(&mut registry)?;
        }
        Ok(registry)
    }

    /// The one way in, for built-in and loaded components alike.
    ///
    /// # Errors
    /// A kind that is there already, naming both origins.
    pub fn insert(&mut self, entry: Entry) -> Result<()> {
        let key = (entry.maker.role().name(), entry.kind.clone());
        if let Some(there) = self.entries.get(&key) {
            bail!("{} kind {:?} is registered twice: {} and {}", key.0, key.1, there.origin, entry.origin)
        }
        self.entries.insert(key, entry);
        Ok(())
    }

    /// Every entry, by role and kind.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// One entry.
    ///
    /// # Errors
    /// An unknown kind; the message lists the known ones.
    pub fn get(&self, role: impl TryInto<Role, Error: Into<anyhow::Error>>, kind: &str) -> Result<&Entry> {
        let role = role.try_into().map_err(Into::into)?;
        if let Some(entry) = self.of(role).find(|entry| entry.kind == kind) {
            return Ok(entry);
        }
        let known: Vec<&str> = self.of(role).map(|entry| entry.kind.as_str()).collect();
        bail!("unknown {role} kind {kind:?}{}; known kinds: {}", did_you_mean(kind, &known), known.join(", "))
    }

    /// The entries of one role, by kind.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &Entry> {
        self.entries().filter(move |entry| entry.maker.role() == role)
    }

    /// The entry of `role` that recognises `source`: the kind `auto`.
    ///
    /// # Errors
    /// None that does, or several; the message names the known kinds.
    pub fn detect(
        &self,
        role: impl TryInto<Role, Error: Into<anyhow::Error>>,
        source: &dyn WeightSource,
    ) -> Result<&Entry> {
        let role = role.try_into().map_err(Into::into)?;
        let mut found = Vec::new();
        let mut known = Vec::new();
        for entry in self.of(role) {
            known.push(entry.kind.as_str());
            if (entry.recognises)(source)? {
                found.push(entry);
            }
        }
        match found.as_slice() {
            [entry] => Ok(entry),
            [] => bail!(
                "{}: nothing beside the weights tells the {role}'s kind; set kind to one of {}",
                source.label(),
                known.join(", ")
            ),
            several => {
                let kinds: Vec<&str> = several.iter().map(|e| e.kind.as_str()).collect();
                bail!("{}: the weights could be those of {}; set the {role}'s kind", source.label(), kinds.join(" or "))
            }
        }
    }

    /// Prepares an encoder.
    ///
    /// # Errors
    /// An unknown kind, or settings that do not fit.
    pub fn encoder(&self, kind: &str, settings: Value, source: &dyn WeightSource) -> Result<PreparedEncoder> {
        match &self.get(Role::Encoder, kind)?.maker {
            Maker::Encoder(prepare) => prepare(settings, source),
            _ => bail!("{kind:?} is not an encoder"),
        }
    }

    /// Prepares a decoder.
    ///
    /// # Errors
    /// An unknown kind, or settings that do not fit.
    pub fn decoder(&self, kind: &str, settings: Value, source: &dyn WeightSource) -> Result<PreparedDecoder> {
        match &self.get(Role::Decoder, kind)?.maker {
            Maker::Decoder(prepare) => prepare(settings, source),
            _ => bail!("{kind:?} is not a decoder"),
        }
    }

    /// Prepares a stitch between two sides.
    ///
    /// # Errors
    /// An unknown kind, settings or a checkpoint that do not fit.
    pub fn stitch(&self, kind: &str, settings: Value, context: &StitchContext) -> Result<PreparedStitch> {
        match &self.get(Role::Stitch, kind)?.maker {
            Maker::Stitch(prepare) => prepare(settings, context),
            _ => bail!("{kind:?} is not a stitch"),
        }
    }

    /// Inserts encoder `P`.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn insert_encoder<P: EncoderComponent>(&mut self, origin: Origin) -> Result<()> {
        let maker = Maker::Encoder(Arc::new(|settings, source| {
            let config = P::resolve(settings::parse("encoder", settings)?, source)?;
            let spec = P::specs(&config)?;
            Ok(Prepared::new(P::KIND, settings::to_value(&config)?, spec, move |weights| {
                Ok(Box::new(P::new(&config, weights)?) as Box<dyn Encoder>)
            }))
        }));
        self.insert(entry::<P>(origin, maker)?)
    }

    /// Inserts decoder `P`.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn insert_decoder<P: DecoderComponent>(&mut self, origin: Origin) -> Result<()> {
        let maker = Maker::Decoder(Arc::new(|settings, source| {
            let config = P::resolve(settings::parse("decoder", settings)?, source)?;
            let spec = P::specs(&config)?;
            Ok(Prepared::new(P::KIND, settings::to_value(&config)?, spec, move |weights| {
                Ok(Box::new(P::new(&config, weights)?) as Box<dyn Decoder>)
            }))
        }));
        self.insert(entry::<P>(origin, maker)?)
    }

    /// Inserts stitch `P`.
    ///
    /// # Errors
    /// As [`Self::insert`].
    pub fn insert_stitch<P: StitchComponent>(&mut self, origin: Origin) -> Result<()> {
        let maker = Maker::Stitch(Arc::new(|settings, context| {
            let config = P::resolve(settings::parse("stitch", settings)?, context.source)?;
            let spec = P::specs(&config, context)?;
            let (features, width) = (context.features, context.width);
            let (encoder, decoder) = (context.encoder.to_string(), context.decoder.to_string());
            Ok(Prepared::new(P::KIND, settings::to_value(&config)?, spec, move |weights| {
                let context = StitchContext {
                    features,
                    encoder: &encoder,
                    width,
                    decoder: &decoder,
                    source: weights.source().as_ref(),
                };
                Ok(Box::new(P::new(&config, &context, weights)?) as Box<dyn Stitch>)
            }))
        }));
        self.insert(entry::<P>(origin, maker)?)
    }
}

fn entry<P: Component>(origin: Origin, maker: Maker) -> Result<Entry> {
    Ok(Entry {
        kind: P::KIND.to_string(),
        about: P::ABOUT.to_string(),
        origin,
        files: P::FILES.iter().map(|f| f.to_string()).collect(),
        needs_weights: P::NEEDS_WEIGHTS,
        schema: settings::schema::<P::Config>(),
        tiny: settings::to_value(&P::tiny())?,
        recognises: Arc::new(P::recognises),
        maker,
    })
}

/// Registers a component with every program that links this crate: `register!(encoder, ClipResnet);`.
#[macro_export]
macro_rules! register {
    (encoder, $component:ty) => {
        $crate::register!(@ insert_encoder, $component);
    };
    (decoder, $component:ty) => {
        $crate::register!(@ insert_decoder, $component);
    };
    (stitch, $component:ty) => {
        $crate::register!(@ insert_stitch, $component);
    };
    (@ $insert:ident, $component:ty) => {
        $crate::exports::inventory::submit! {
            $crate::registry::Registration {
                insert: |registry| registry.$insert::<$component>($crate::registry::Origin::BuiltIn {
                    package: env!("CARGO_PKG_NAME").to_string(),
                    version: env!("CARGO_PKG_VERSION").to_string(),
                }),
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toy(kind: &str, version: &str) -> Entry {
        Entry {
            kind: kind.to_string(),
            about: String::new(),
            origin: Origin::Library {
                path: "libtoy.so".into(),
                name: "toy".into(),
                version: version.into(),
                abi: "1.0".into(),
            },
            files: Vec::new(),
            needs_weights: true,
            schema: Value::Null,
            tiny: Value::Null,
            recognises: Arc::new(|_| Ok(false)),
            maker: Maker::Stitch(Arc::new(|_, _| bail!("never built"))),
        }
    }

    #[test]
    fn a_kind_registered_twice_names_both_origins() {
        let mut registry = Registry::new();
        registry.insert(toy("linear", "1")).unwrap();
        let message = registry.insert(toy("linear", "2")).unwrap_err().to_string();
        assert_eq!(
            message,
            "stitch kind \"linear\" is registered twice: library libtoy.so (toy 1, ABI 1.0) and library libtoy.so (toy 2, ABI 1.0)"
        );
    }

    #[test]
    fn an_unknown_kind_lists_the_known() {
        let mut registry = Registry::new();
        registry.insert(toy("linear", "1")).unwrap();
        registry.insert(toy("mlp", "1")).unwrap();
        let message = registry.get(Role::Stitch, "liner").err().unwrap().to_string();
        assert_eq!(message, "unknown stitch kind \"liner\" (did you mean \"linear\"?); known kinds: linear, mlp");
        let message = registry.get(Role::Stitch, "perceiver").err().unwrap().to_string();
        assert_eq!(message, "unknown stitch kind \"perceiver\"; known kinds: linear, mlp");
    }

    #[test]
    fn roles_are_known_by_their_names() {
        for role in Role::ALL {
            assert_eq!(
                (role.to_string().parse::<Role>().unwrap(), serde_json::to_value(role).unwrap()),
                (role, role.name().into())
            );
        }
        let message = "Encoder".parse::<Role>().unwrap_err().to_string();
        assert_eq!(message, "role \"Encoder\" is unknown, expected encoder, stitch or decoder");
    }
}
