//! The sections `encoder`, `stitch` and `decoder`: a kind, where its weights lie, and settings that are the component's
//! own.

use limber_core::registry::{Entry, Role};
use limber_core::settings::SettingsError;
use limber_core::{WeightType, settings};
use limber_weights::WeightSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::fmt;

/// One component as a config names it.
///
/// `dtype` and `freeze` belong to `encoder` and `decoder`, `tokenizer` to `decoder` alone; every other key is a setting
/// of the component, which the registry checks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Section {
    /// The kind, as `limber components` lists it; `auto` where a folder's `config.json` tells.
    pub kind: String,
    /// Where the weights lie; None means the embedded demo's component.
    pub weights: Option<WeightSpec>,
    /// The type that frozen weights are held in; None means as they are stored.
    pub dtype: Option<WeightType>,
    /// A file or folder with a tokenizer; None means beside the weights.
    pub tokenizer: Option<String>,
    /// Settings of the component.
    pub settings: Map<String, Value>,
}

/// The keys beside a component's own settings: what schema, messages and documentation say of them.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct Keys {
    /// The kind, as `limber components` lists it; `auto` where a folder's `config.json` tells.
    #[schemars(length(min = 1))]
    kind: String,
    /// A file or folder, `hf:owner/name[@revision][/file]`, `https://host/path/file` or `random:SEED`; by default the
    /// embedded demo's.
    weights: Option<WeightSpec>,
    /// What the bytes of weights at an `https://` address must hash to.
    sha256: Option<String>,
    /// A file or folder that takes precedence over weights at an `https://` address if it exists.
    #[schemars(length(min = 1), extend("format" = "path"))]
    local: Option<String>,
    /// The type that frozen weights are held in; by default as they are stored.
    dtype: Option<WeightType>,
    /// Only the stitch is trained.
    #[schemars(default = "yes", extend("const" = true, "errorMessage" = "expected true: only the stitch is trained"))]
    freeze: bool,
    /// A file or folder with a tokenizer; by default beside the weights.
    #[schemars(length(min = 1), extend("format" = "path"))]
    tokenizer: Option<String>,
}

fn yes() -> bool {
    true
}

/// Whether a section of `role` has the key of [`Keys`]; in another role it is the component's.
fn has(role: Role, key: &str) -> bool {
    match key {
        "kind" | "weights" | "sha256" | "local" => true,
        "dtype" | "freeze" => role != Role::Stitch,
        "tokenizer" => role == Role::Decoder,
        _ => false,
    }
}

/// The schema of a section: the keys of [`Keys`] that it has, and any others.
pub(super) fn schema(role: Role, generator: &mut SchemaGenerator) -> Schema {
    let mut schema = Keys::json_schema(generator);
    let map = schema.ensure_object();
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.retain(|key, _| has(role, key));
    }
    map.insert("required".into(), serde_json::json!(["kind"]));
    map.shift_remove("additionalProperties");
    schema
}

/// The section of a role, while it is read.
struct Reading(Role);

/// A hash, while it is read.
#[derive(Deserialize)]
struct Hash(#[serde(deserialize_with = "super::plugin::sha256")] Option<String>);

impl<'de> Visitor<'de> for Reading {
    type Value = Section;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map of keys")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Section, A::Error> {
        let mut section = Section::default();
        let (mut hash, mut local) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                key if !has(self.0, key) => _ = section.settings.insert(key.to_string(), map.next_value()?),
                "kind" => section.kind = map.next_value()?,
                "weights" => section.weights = map.next_value()?,
                "sha256" => hash = map.next_value::<Hash>()?.0,
                "local" => local = map.next_value::<Option<String>>()?,
                "dtype" => section.dtype = map.next_value()?,
                "tokenizer" => section.tokenizer = map.next_value()?,
                _ => _ = map.next_value::<bool>()?,
            }
        }
        if section.kind.is_empty() {
            return Err(A::Error::missing_field("kind"));
        }
        match &mut section.weights {
            Some(WeightSpec::Web(file)) => (file.sha256, file.local) = (hash, local),
            other => {
                if let Some(key) = [("sha256", hash), ("local", local)].iter().find_map(|(k, v)| v.as_ref().map(|_| k))
                {
                    let weights =
                        other.as_ref().map_or("not there".to_string(), |spec| format!("{:?}", spec.to_string()));
                    let message = "belongs to weights at an address (https://host/path/file), but weights is";
                    return Err(A::Error::custom(format!("{key} {message} {weights}")));
                }
            }
        }
        Ok(section)
    }
}

impl Section {
    /// Holds the section against the keys and settings that a component of its kind has: what `config check` and
    /// loading both say of it.
    ///
    /// # Errors
    /// Every unknown key and every value that is not allowed.
    pub fn check(&self, role: Role, entry: &Entry) -> Result<(), SettingsError> {
        let mut tree = self.tree();
        // The kind may be `auto`; the entry is what it stands for.
        tree.insert("kind".into(), entry.kind.clone().into());
        let violations = settings::violations(&tree.into(), &with_keys(role, &entry.schema));
        if violations.is_empty() { Ok(()) } else { Err(SettingsError { section: role.to_string(), violations }) }
    }

    /// The section as it stands in a config.
    fn tree(&self) -> Map<String, Value> {
        let set = |key: &str, value: Option<Value>| value.map(|value| (key.to_string(), value));
        let web = match &self.weights {
            Some(WeightSpec::Web(file)) => Some(file),
            _ => None,
        };
        let host = [
            set("kind", Some(self.kind.clone().into())),
            set("weights", self.weights.as_ref().map(|spec| spec.to_string().into())),
            set("sha256", web.and_then(|file| file.sha256.clone()).map(Value::from)),
            set("local", web.and_then(|file| file.local.clone()).map(Value::from)),
            set("dtype", self.dtype.map(|dtype| dtype.name().into())),
            set("tokenizer", self.tokenizer.clone().map(Value::from)),
        ];
        host.into_iter().flatten().chain(self.settings.clone()).collect()
    }
}

impl Serialize for Section {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.tree().serialize(serializer)
    }
}

/// What the derives of a config need for the section of one role.
macro_rules! role {
    ($module:ident, $role:expr) => {
        pub(super) mod $module {
            use super::*;

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Section, D::Error> {
                from.deserialize_map(Reading($role))
            }

            pub(crate) fn schema(generator: &mut SchemaGenerator) -> Schema {
                super::schema($role, generator)
            }
        }
    };
}

role!(encoder, Role::Encoder);
role!(stitch, Role::Stitch);
role!(decoder, Role::Decoder);

/// A component's own schema with the keys beside its settings: what its section in a config may hold.
pub(super) fn with_keys(role: Role, own: &Value) -> Value {
    let inline = schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let keys = schema(role, &mut inline.into_generator()).to_value();
    let mut all = settings::resolved(own, own).cloned().unwrap_or_default();
    let Some(map) = all.as_object_mut() else { return keys };
    if let (Some(defs), false) = (own.get("$defs"), map.contains_key("$defs")) {
        map.insert("$defs".into(), defs.clone());
    }
    let mut properties = keys["properties"].as_object().cloned().unwrap_or_default();
    properties.extend(map.get("properties").and_then(Value::as_object).cloned().unwrap_or_default());
    let mut required = vec![Value::from("kind")];
    required.extend(map.get("required").and_then(Value::as_array).cloned().unwrap_or_default());
    map.insert("type".into(), "object".into());
    map.insert("properties".into(), properties.into());
    map.insert("required".into(), required.into());
    all
}

#[cfg(test)]
mod tests {
    use super::super::problem::Problem;
    use super::super::types::Config;
    use super::*;
    use serde_json::json;
    use std::path::Path;

    fn read(role: &str, value: Value) -> (Option<Config>, Vec<String>) {
        let mut tree = json!({"encoder": {"kind": "a"}, "stitch": {"kind": "b"}, "decoder": {"kind": "c"}});
        match value {
            Value::Null => _ = tree.as_object_mut().and_then(|map| map.shift_remove(role)),
            value => tree[role] = value,
        }
        let (config, problems) = Config::read(tree, Path::new("."));
        (config, problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn keys_beside_the_settings_are_taken_out() {
        let value = json!({"model": "tiny", "kind": "gptj", "dtype": "bf16", "freeze": true, "tokenizer": "t"});
        let (config, problems) = read("decoder", value);
        let section = config.unwrap().decoder;
        assert_eq!((problems, &section.settings), (vec![], json!({"model": "tiny"}).as_object().unwrap()));
        assert_eq!(section.dtype, Some(WeightType::Bf16));
        let back = serde_json::to_value(&section).unwrap();
        assert_eq!(back, json!({"kind": "gptj", "dtype": "bf16", "tokenizer": "t", "model": "tiny"}));
        // What is a key of one role's section is the component's in another, whose schema refuses it.
        let (config, problems) = read("stitch", json!({"kind": "linear", "dtype": "f32"}));
        assert!(problems.is_empty() && config.unwrap().stitch.settings.contains_key("dtype"));
    }

    #[test]
    fn every_wrong_value_has_its_message() {
        let check = |value: Value, expected: &str| assert_eq!(read("encoder", value).1, [expected]);
        let text = "expected text (put it in quotes)";
        check(json!({"kind": 3}), &format!("section \"encoder\", key \"kind\": value 3 is not allowed, {text}"));
        let empty = "value \"\" is not allowed, expected text that is not empty";
        check(json!({"kind": ""}), &format!("section \"encoder\", key \"kind\": {empty}"));
        check(json!("beit"), "section \"encoder\": value \"beit\" is not allowed, expected a map of keys");
        check(
            json!({}),
            "section \"encoder\", key \"kind\": missing key, expected text: the kind, as `limber components` lists it; \
             `auto` where a folder's `config.json` tells",
        );
        check(
            json!({"kind": "beit", "dtype": "bf-16"}),
            "section \"encoder\", key \"dtype\": value \"bf-16\" is not allowed (did you mean \"bf16\"?), expected f32, f16, \
             bf16, q8_0 or q4_k",
        );
        check(
            json!({"kind": "beit", "freeze": false}),
            "section \"encoder\", key \"freeze\": value false is not allowed, expected true: only the stitch is trained",
        );
        check(
            json!({"kind": "beit", "weights": 7}),
            "section \"encoder\", key \"weights\": value 7 is not allowed, expected a file or folder, \
             hf:owner/name[@revision][/file], https://... or random:SEED (put it in quotes)",
        );
        let (config, problems) = read("decoder", Value::Null);
        assert!(config.is_none());
        assert_eq!(problems, ["section \"decoder\": missing section; it needs the key \"kind\""]);
    }

    #[test]
    fn what_goes_with_an_address_is_read_and_printed() {
        let hash = "0A".repeat(32);
        let value = json!({"kind": "b", "weights": "https://x.org/p.ckpt", "sha256": hash, "local": "a/p.ckpt"});
        let (config, problems) = read("stitch", value);
        assert_eq!(problems, [""; 0]);
        let section = config.unwrap().stitch;
        let Some(WeightSpec::Web(file)) = &section.weights else { panic!("{section:?}") };
        assert_eq!((file.name(), file.local.as_deref()), ("p.ckpt", Some("a/p.ckpt")));
        let back = serde_json::to_value(&section).unwrap();
        let lower = hash.to_lowercase();
        assert_eq!(back, json!({"kind": "b", "weights": "https://x.org/p.ckpt", "sha256": lower, "local": "a/p.ckpt"}));
        let check = |value: Value, expected: &str| {
            let problems = read("stitch", value).1;
            assert!(problems.len() == 1 && problems[0].contains(expected), "{problems:?}");
        };
        let at = "belongs to weights at an address (https://host/path/file), but weights is";
        check(json!({"kind": "b", "weights": "p.ckpt", "sha256": lower}), &format!("sha256 {at} \"p.ckpt\""));
        check(json!({"kind": "b", "local": "p.ckpt"}), &format!("local {at} not there"));
        check(json!({"kind": "b", "weights": "https://x.org/p", "sha256": "0a"}), "expected 64 hexadecimal digits");
    }

    #[test]
    fn weights_are_read_as_loading_reads_them() {
        for weights in ["random:1", "hf:a/b", "hf:a/b@float16", "hf:a/b@main/x.bin", "a/b.ckpt", "/a", "C:\\x"] {
            let (config, problems) = read("encoder", json!({"kind": "beit", "weights": weights}));
            assert_eq!(problems, [""; 0]);
            assert_eq!(config.unwrap().encoder.weights, Some(weights.parse().unwrap()), "{weights}");
        }
        for weights in
            ["", "random:x", "random:-1", "random:007", "hf:gpt2", "hf:/gpt2", "hf:a/..", "hf:a/b@", "http://x.org/y"]
        {
            let error = weights.parse::<WeightSpec>().unwrap_err().to_string();
            let expected = format!("section \"encoder\", key \"weights\": {error}");
            assert_eq!(read("encoder", json!({"kind": "beit", "weights": weights})).1, [expected]);
        }
    }
}
