//! The key `train.recompute`: activation checkpointing, `true` for full, `cheap` for selective, `false` for none.

use limber_core::Checkpointing;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};
use std::fmt;

pub(super) fn serialize<S: Serializer>(checkpointing: &Checkpointing, serializer: S) -> Result<S::Ok, S::Error> {
    match checkpointing {
        Checkpointing::Full => serializer.serialize_bool(true),
        Checkpointing::Selective => serializer.serialize_str("cheap"),
        Checkpointing::None => serializer.serialize_bool(false),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Checkpointing, D::Error> {
    struct Either;
    impl Visitor<'_> for Either {
        type Value = Checkpointing;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("true, cheap or false")
        }

        fn visit_bool<E>(self, full: bool) -> Result<Checkpointing, E> {
            Ok(if full { Checkpointing::Full } else { Checkpointing::None })
        }

        fn visit_str<E: Error>(self, word: &str) -> Result<Checkpointing, E> {
            match word {
                "cheap" => Ok(Checkpointing::Selective),
                other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
            }
        }
    }
    deserializer.deserialize_any(Either).map_err(D::Error::custom)
}

pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"oneOf": [
        {"const": true, "description": "Full: each block's input is kept."},
        {"const": "cheap", "description": "Selective: each block's matrix products are kept."},
        {"const": false, "description": "None: all activations are kept."},
    ]})
}
