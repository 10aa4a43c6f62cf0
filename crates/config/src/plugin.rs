//! The key `plugins`: dynamic libraries with further components.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// One dynamic library: its path, or a map with the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// The file, relative to the config's folder.
    pub path: String,
    /// What its bytes must hash to, in lower case.
    pub sha256: Option<String>,
}

/// The long form.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Map {
    /// The file, relative to the config's folder.
    #[schemars(length(min = 1), extend("format" = "path"))]
    path: String,
    /// What its bytes must hash to.
    #[serde(default, deserialize_with = "sha256")]
    sha256: Option<String>,
}

/// 64 hexadecimal digits, in lower case.
pub(super) fn sha256<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let Some(hash) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(D::Error::custom(format_args!("value {hash:?} is not allowed, expected 64 hexadecimal digits")));
    }
    Ok(Some(hash.to_ascii_lowercase()))
}

impl<'de> Deserialize<'de> for Plugin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Plugin;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a path, or a map with one")
            }

            fn visit_str<E>(self, path: &str) -> Result<Plugin, E> {
                Ok(Plugin { path: path.to_string(), sha256: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Plugin, A::Error> {
                let Map { path, sha256 } = Map::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Plugin { path, sha256 })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Plugin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(sha256) = &self.sha256 else { return serializer.serialize_str(&self.path) };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("path", &self.path)?;
        map.serialize_entry("sha256", sha256)?;
        map.end()
    }
}

impl JsonSchema for Plugin {
    fn schema_name() -> Cow<'static, str> {
        "Plugin".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let map = Map::json_schema(generator);
        json_schema!({
            "description": "A dynamic library: its path, or a map with the path and what the file must hash to.",
            "anyOf": [{"type": "string", "minLength": 1, "format": "path"}, map],
        })
    }
}
