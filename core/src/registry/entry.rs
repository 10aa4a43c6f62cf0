//! What the registry holds of a component, and where it comes from.

use super::{EncoderSpecs, PrepareFn, PrepareStitchFn, Registry, Role};
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::spec::DecoderSpec;
use crate::weights::WeightSource;
use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use std::fmt;
use std::sync::Arc;

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
