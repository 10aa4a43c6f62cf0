//! What a component is to a model.

use crate::settings::or;
use anyhow::{Result, anyhow};
use schemars::JsonSchema;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

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
