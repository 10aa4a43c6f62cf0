//! `config.json` as Hugging Face's `save_pretrained` writes it: typed reading, and refusal of what a component cannot
//! do.
//!
//! A value that a component does not support is refused by the name of its key, never computed as if it were another.

use crate::json;
use crate::settings::{self, Violation};
use crate::weights::WeightSource;
use anyhow::{Context, Result, bail};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A model's description, or one section of it; the default is an empty one.
#[derive(Debug, Clone, Default)]
pub struct ModelConfig {
    /// What messages call it: the file, and the section where it is one.
    location: String,
    tree: Value,
}

impl ModelConfig {
    /// `config.json` beside the weights; None where there is none.
    ///
    /// # Errors
    /// A document that is not JSON.
    pub fn read(source: &dyn WeightSource) -> Result<Option<Self>> {
        Self::document(source, "config.json")
    }

    /// Another JSON document beside the weights, such as `preprocessor_config.json`.
    ///
    /// # Errors
    /// A document that is not a JSON object.
    pub fn document(source: &dyn WeightSource, name: &str) -> Result<Option<Self>> {
        let Some(text) = source.document(name)? else { return Ok(None) };
        let location = format!("{}: {name}", source.label());
        let tree = json::parse(&text).with_context(|| location.clone())?;
        if !tree.is_object() {
            bail!("{location}: not a JSON object")
        }
        Ok(Some(Self { location, tree }))
    }

    /// A section such as `vision_config`; None where it is absent or null.
    pub fn section(&self, key: &str) -> Option<Self> {
        let tree = self.value(key)?.clone();
        Some(Self { location: format!("{}, {key}", self.location), tree })
    }

    /// What messages call it.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// All of it.
    pub fn into_tree(self) -> Value {
        self.tree
    }

    /// The keys there are.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tree.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str))
    }

    /// A value as it stands; None where it is absent or null.
    pub fn value(&self, key: &str) -> Option<&Value> {
        self.tree.get(key).filter(|v| !v.is_null())
    }

    /// Whether the key stands there as null, which some models give a meaning.
    pub fn is_null(&self, key: &str) -> bool {
        self.tree.get(key).is_some_and(Value::is_null)
    }

    /// The settings of a component whose keys are those of this file, as far as they stand here, all but those of `skip`. A
    /// key may also stand under its other name, as `(other, key)`; null is absent.
    ///
    /// # Errors
    /// A value of another type, by its key.
    pub fn settings<T>(&self, names: &[(&str, &str)], skip: &[&str]) -> Result<T>
    where
        T: DeserializeOwned + JsonSchema,
    {
        let schema = settings::schema::<T>();
        let keys = schema.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key);
        let (mut found, mut names_here) = (Map::new(), BTreeMap::new());
        for key in keys.filter(|key| !skip.contains(&key.as_str()) && *key != "model") {
            let other = names.iter().find(|(_, name)| name == key).map(|(other, _)| *other);
            let here = [Some(key.as_str()), other].into_iter().flatten().find(|name| self.value(name).is_some());
            if let Some((name, value)) = here.and_then(|name| Some((name, self.value(name)?))) {
                found.insert(key.clone(), value.clone());
                names_here.insert(key.clone(), name.to_string());
            }
        }
        match settings::read_as(Value::Object(found), &schema) {
            (Some(settings), violations) if violations.is_empty() => Ok(settings),
            (_, violations) => {
                let all: Vec<String> =
                    violations.iter().map(|v| self.violation(v, &names_here, &schema).to_string()).collect();
                bail!("{}", all.join("; "))
            }
        }
    }

    /// A violation as a refusal of the key as it stands here.
    fn violation(&self, found: &Violation, names: &BTreeMap<String, String>, schema: &Value) -> anyhow::Error {
        let [key] = found.path.as_slice() else {
            return anyhow::anyhow!("{}: {}: {}", self.location, found.key(), found.message);
        };
        let name = names.get(key).unwrap_or(key);
        let constants = settings::constants(&schema["properties"][key], schema);
        if !constants.is_empty() {
            let all: Vec<&str> = constants.iter().filter_map(Value::as_str).collect();
            return self.refusal(name, format!("supported is {}", all.join(", ")));
        }
        match found.message.split_once(", expected ") {
            Some((_, words)) => self.refusal(name, format!("which is not allowed, expected {words}")),
            None => anyhow::anyhow!("{}: {name}: {}", self.location, found.message),
        }
    }

    /// An error that names this document, a key and its value.
    pub fn refusal(&self, key: &str, expected: impl std::fmt::Display) -> anyhow::Error {
        let value = self.tree.get(key).unwrap_or(&Value::Null);
        anyhow::anyhow!("{}: {key} is {value}, {expected}", self.location)
    }

    /// `model_type`.
    pub fn model_type(&self) -> Option<&str> {
        self.value("model_type").and_then(Value::as_str)
    }

    /// Refuses any `model_type` but these; an absent one passes.
    ///
    /// # Errors
    /// Names the type and the allowed ones.
    pub fn expect_type(&self, component: &str, types: &[&str]) -> Result<()> {
        match self.model_type() {
            Some(kind) if !types.contains(&kind) => {
                let types: Vec<String> = types.iter().map(|t| format!("{t:?}")).collect();
                Err(self.refusal("model_type", format!("{component} takes {}", types.join(", "))))
            }
            _ => Ok(()),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// Another value.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "expected a whole number, at least 0", |v| v.as_u64().map(|n| n as usize))
    }

    /// A number.
    ///
    /// # Errors
    /// Another value.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "expected a number", Value::as_f64)
    }

    /// A truth value.
    ///
    /// # Errors
    /// Another value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "expected true or false", Value::as_bool)
    }

    /// A text.
    ///
    /// # Errors
    /// Another value.
    pub fn text(&self, key: &str) -> Result<Option<String>> {
        self.typed(key, "expected text", |v| v.as_str().map(str::to_string))
    }

    /// A list of numbers.
    ///
    /// # Errors
    /// Another value.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.typed(key, "expected a list of numbers", |v| v.as_array()?.iter().map(Value::as_f64).collect())
    }

    /// One id or a list of ids, as `eos_token_id` comes.
    ///
    /// # Errors
    /// Another value.
    pub fn ids(&self, key: &str) -> Result<Option<Vec<u32>>> {
        let id = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
        self.typed(key, "expected a token id or a list of them", |v| match v.as_array() {
            Some(list) => list.iter().map(id).collect(),
            None => id(v).map(|id| vec![id]),
        })
    }

    /// Refuses these keys wherever they are set to anything but null, false, 0 or an empty map or list.
    ///
    /// # Errors
    /// Names the first key that is set, and its value.
    pub fn refuse(&self, component: &str, keys: &[&str]) -> Result<()> {
        for key in keys {
            let off = match self.value(key) {
                None | Some(Value::Bool(false)) => true,
                Some(Value::Object(map)) => map.is_empty(),
                Some(Value::Array(list)) => list.is_empty(),
                Some(Value::Number(n)) => n.as_f64() == Some(0.0),
                Some(_) => false,
            };
            if !off {
                return Err(self.refusal(key, format!("which {component} does not support")));
            }
        }
        Ok(())
    }

    /// Refuses every key but these, unless it is null: a section whose every key changes what is computed.
    ///
    /// # Errors
    /// Names the first other key, and its value.
    pub fn only(&self, component: &str, keys: &[&str]) -> Result<()> {
        let others = self.tree.as_object().into_iter().flatten().filter(|(key, _)| !keys.contains(&key.as_str()));
        match others.into_iter().find(|(_, value)| !value.is_null()) {
            Some((key, _)) => Err(self.refusal(key, format!("a key that {component} does not know"))),
            None => Ok(()),
        }
    }

    /// Refuses any value of `key` but these; an absent one passes.
    ///
    /// # Errors
    /// Names the value and the allowed ones.
    pub fn expect(&self, key: &str, allowed: &[Value]) -> Result<()> {
        match self.value(key) {
            Some(value) if !allowed.contains(value) => {
                let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
                Err(self.refusal(key, format!("supported is {}", allowed.join(", "))))
            }
            _ => Ok(()),
        }
    }

    fn typed<T>(&self, key: &str, expected: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| self.refusal(key, expected)),
        }
    }
}

/// Whether `config.json` beside the weights has one of these `model_type`s: the kind `auto`.
///
/// # Errors
/// A document that cannot be read.
pub fn recognises(source: &dyn WeightSource, types: &[&str]) -> Result<bool> {
    Ok(ModelConfig::read(source)?.is_some_and(|config| config.model_type().is_some_and(|kind| types.contains(&kind))))
}

/// The ids that end a text: `generation_config.json`'s, as transformers' `generate` takes them, else `config.json`'s.
/// No id where the latter says null; None where neither says.
///
/// # Errors
/// A document that cannot be read, or ids that are none.
pub fn eos_ids(source: &dyn WeightSource) -> Result<Option<Vec<u32>>> {
    for name in ["generation_config.json", "config.json"] {
        if let Some(config) = ModelConfig::document(source, name)?
            && let Some(ids) = config.ids("eos_token_id")?
        {
            return Ok(Some(ids));
        }
    }
    let null = ModelConfig::read(source)?.is_some_and(|config| config.is_null("eos_token_id"));
    Ok(null.then(Vec::new))
}

/// Token ids of a setting: one, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIds(pub Vec<u32>);

impl Serialize for TokenIds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [id] => serializer.serialize_u32(*id),
            ids => ids.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TokenIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ids;
        impl<'de> Visitor<'de> for Ids {
            type Value = TokenIds;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a token id or a list of them")
            }
            fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<TokenIds, E> {
                let id = u32::try_from(id).map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(id), &self))?;
                Ok(TokenIds(vec![id]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<TokenIds, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = list.next_element()? {
                    ids.push(id);
                }
                Ok(TokenIds(ids))
            }
        }
        deserializer.deserialize_any(Ids)
    }
}

impl JsonSchema for TokenIds {
    fn schema_name() -> Cow<'static, str> {
        "TokenIds".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let id = json_schema!({"type": "integer", "minimum": 0, "maximum": u32::MAX});
        json_schema!({
            "anyOf": [id, {"type": "array", "items": id}],
            "errorMessage": "expected a token id or a list of them",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::weights::{FrozenData, Request, WeightError};
    use serde_json::json;

    /// Documents by their names, and no tensors.
    pub(crate) struct Texts(pub(crate) Vec<(&'static str, String)>);

    impl WeightSource for Texts {
        fn label(&self) -> String {
            "here".into()
        }
        fn tensors(&self) -> Option<BTreeMap<String, Vec<usize>>> {
            None
        }
        fn read(&self, _: &Request) -> Result<FrozenData, WeightError> {
            Ok(FrozenData::from_f32(vec![], &[0]))
        }
        fn document(&self, name: &str) -> Result<Option<String>, WeightError> {
            Ok(self.0.iter().find(|(n, _)| *n == name).map(|(_, text)| text.clone()))
        }
    }

    /// A `config.json`.
    pub(crate) fn config(tree: Value) -> ModelConfig {
        let source = Texts(vec![("config.json", tree.to_string())]);
        ModelConfig::read(&source).unwrap().unwrap()
    }

    #[test]
    fn values_are_typed_and_messages_name_the_key() {
        let c = config(json!({"n": 3, "x": 0.5, "on": true, "act": "gelu", "eos": [1, 2], "one": 7, "nil": null}));
        assert_eq!(
            (c.size("n").unwrap(), c.number("x").unwrap(), c.flag("on").unwrap()),
            (Some(3), Some(0.5), Some(true))
        );
        assert_eq!((c.ids("eos").unwrap(), c.ids("one").unwrap()), (Some(vec![1, 2]), Some(vec![7])));
        assert_eq!((c.size("nil").unwrap(), c.size("absent").unwrap(), c.is_null("nil")), (None, None, true));
        let check = |result: Result<(), anyhow::Error>, expected: &str| {
            assert_eq!(result.unwrap_err().to_string(), expected);
        };
        check(c.size("x").map(drop), "here: config.json: x is 0.5, expected a whole number, at least 0");
        check(c.flag("n").map(drop), "here: config.json: n is 3, expected true or false");
        check(c.ids("x").map(drop), "here: config.json: x is 0.5, expected a token id or a list of them");
        check(
            c.refuse("the decoder toy", &["nil", "on"]),
            "here: config.json: on is true, which the decoder toy does not support",
        );
        check(
            c.expect("act", &[json!("relu"), json!("silu")]),
            "here: config.json: act is \"gelu\", supported is \"relu\", \"silu\"",
        );
        check(
            config(json!({"n": null, "x": 1, "y": [2]})).only("the decoder toy", &["x"]),
            "here: config.json: y is [2], a key that the decoder toy does not know",
        );
        let c = config(json!({"model_type": "opt"}));
        assert!(c.only("the decoder toy", &["model_type"]).is_ok());
        check(
            c.expect_type("the decoder toy", &["toy"]),
            "here: config.json: model_type is \"opt\", the decoder toy takes \"toy\"",
        );
    }

    #[test]
    fn generation_settings_come_before_the_models() {
        let texts = |generation: Value| {
            let mut list = vec![("config.json", json!({"eos_token_id": 5}).to_string())];
            if !generation.is_null() {
                list.push(("generation_config.json", generation.to_string()));
            }
            eos_ids(&Texts(list)).unwrap()
        };
        assert_eq!(texts(Value::Null), Some(vec![5]));
        assert_eq!(texts(json!({"eos_token_id": [8, 9]})), Some(vec![8, 9]));
        assert_eq!(texts(json!({"temperature": 0.6})), Some(vec![5]));
        let none = Texts(vec![("config.json", json!({"eos_token_id": null}).to_string())]);
        assert_eq!(eos_ids(&none).unwrap(), Some(vec![]));
        assert_eq!(eos_ids(&Texts(vec![("config.json", "{}".into())])).unwrap(), None);
    }

    #[test]
    fn token_ids_are_one_or_several() {
        let check = |value: Value, ids: &[u32]| {
            let read: TokenIds = serde_json::from_value(value.clone()).unwrap();
            assert_eq!((read.0.as_slice(), serde_json::to_value(&read).unwrap()), (ids, value));
        };
        check(json!(2), &[2]);
        check(json!([128_001, 128_008]), &[128_001, 128_008]);
        check(json!([]), &[]);
        for (value, expected) in
            [(json!(-1), "-1"), (json!("2"), "a token id or a list of them"), (json!(1u64 << 32), "4294967296")]
        {
            let message = serde_json::from_value::<TokenIds>(value).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn settings_are_read_under_their_own_names_and_others() {
        #[derive(Debug, Default, PartialEq, Serialize, serde::Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        struct Toy {
            width: Option<usize>,
            rate: Option<f64>,
            eos: Option<TokenIds>,
        }
        let read = |tree: Value| config(tree).settings::<Toy>(&[("hidden_size", "width")], &[]);
        let toy = |width, rate| Toy { width, rate, eos: None };
        assert_eq!(read(json!({"width": 3, "more": true, "rate": null})).unwrap(), toy(Some(3), None));
        assert_eq!(read(json!({"hidden_size": 4, "rate": 0.5})).unwrap(), toy(Some(4), Some(0.5)));
        assert_eq!(read(json!({"hidden_size": 4, "width": 3})).unwrap(), toy(Some(3), None));
        assert_eq!(read(json!({"eos": [1, 2]})).unwrap().eos, Some(TokenIds(vec![1, 2])));
        for (tree, expected) in [
            (
                json!({"width": "three"}),
                "here: config.json: width is \"three\", which is not allowed, expected a whole number, at least 0",
            ),
            (
                json!({"hidden_size": -1}),
                "here: config.json: hidden_size is -1, which is not allowed, expected a whole number, at least 0",
            ),
        ] {
            let message = read(tree).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn a_document_that_is_no_object_is_refused() {
        let message = ModelConfig::read(&Texts(vec![("config.json", "[1]".into())])).unwrap_err().to_string();
        assert_eq!(message, "here: config.json: not a JSON object");
        assert!(ModelConfig::read(&Texts(vec![("config.json", "{".into())])).is_err());
        let endless = Texts(vec![("config.json", "{\"limits\": [0.0, Infinity], \"eps\": NaN, \"n\": 2}".into())]);
        let endless = ModelConfig::read(&endless).unwrap().unwrap();
        assert_eq!(endless.size("n").unwrap(), Some(2));
        let message = endless.number("eps").unwrap_err().to_string();
        assert_eq!(message, "here: config.json: eps is \"NaN\", expected a number");
        assert!(ModelConfig::read(&Texts(vec![])).unwrap().is_none());
    }
}
