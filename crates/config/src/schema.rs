//! The JSON Schema of a section, of a config, of a whole file with the settings of every component.
//!
//! The types of this crate and the components' own make them; nothing is written down twice.

mod alternatives;

use super::original;
use super::section::with_keys;
use super::types::Config;
use limber_core::Registry;
use limber_core::registry::{Entry, Role};
use limber_core::settings::{self, resolved};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

static CONFIG: LazyLock<Value> = LazyLock::new(settings::schema::<Config>);

/// The schema of a config's tree, the components' own settings left open.
pub(super) fn config() -> &'static Value {
    &CONFIG
}

/// The names of the keys at the top of a config, sections and others.
pub fn names() -> Vec<&'static str> {
    CONFIG["properties"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect()
}

/// Whether a key at the top of a config is a map of keys.
pub(super) fn is_section(name: &str) -> bool {
    section(name).is_some_and(|section| section.get("properties").is_some())
}

/// Whether the key at `path` takes any text, and no number or truth value beside it.
pub(super) fn is_text(path: &[String]) -> bool {
    let options_of = |schema: &'static Value| {
        let own = resolved(schema, &CONFIG).into_iter();
        own.flat_map(|schema| {
            [schema].into_iter().chain(settings::options(schema).filter_map(|one| resolved(one, &CONFIG)))
        })
    };
    let inside = |schema: &'static Value, key: &String| {
        options_of(schema).find_map(|option| option.get("properties").and_then(|all| all.get(key)))
    };
    let Some(schema) = path.iter().try_fold(&*CONFIG, inside) else { return false };
    let named: Vec<&str> = options_of(schema).flat_map(settings::types).filter(|name| *name != "null").collect();
    !named.is_empty() && named.iter().all(|name| *name == "string") && settings::constants(schema, &CONFIG).is_empty()
}

/// That a section is missing.
pub(super) fn missing(name: &str) -> String {
    let section = section(name).unwrap_or_default();
    let needed = section["required"].as_array().into_iter().flatten().map(Value::to_string);
    format!("missing section; it needs the key {}", settings::or(&needed.collect::<Vec<_>>()))
}

/// The schema of what stands under `name` in a config, complete in itself; None where nothing does. A name with dots leads
/// into sections.
pub fn section(name: &str) -> Option<Value> {
    name.split('.').try_fold(inlined(&CONFIG, &CONFIG), |schema, key| schema.get("properties")?.get(key).cloned())
}

/// `schema` with its references resolved, and without the option of null. Ours are no circles.
fn inlined(schema: &Value, root: &Value) -> Value {
    let target = resolved(schema, root).unwrap_or(schema);
    let Some(map) = target.as_object() else { return target.clone() };
    let options: Vec<&Value> = map.get("anyOf").and_then(Value::as_array).into_iter().flatten().collect();
    let mut own: Map<String, Value> =
        match options.iter().filter(|o| o.get("type") != Some(&json!("null"))).collect::<Vec<_>>()[..] {
            [one] => inlined(one, root).as_object().cloned().unwrap_or_default(),
            _ => Map::new(),
        };
    let alone = !own.is_empty();
    for (key, value) in map.iter().filter(|(key, _)| !(alone && *key == "anyOf")) {
        let value = match (key.as_str(), value) {
            ("properties", Value::Object(all)) => all.iter().map(|(k, v)| (k.clone(), inlined(v, root))).collect(),
            ("items", items) => inlined(items, root),
            ("anyOf" | "oneOf", Value::Array(list)) => list.iter().map(|one| inlined(one, root)).collect(),
            ("type", Value::Array(list)) => match list.iter().filter(|t| *t != "null").collect::<Vec<_>>()[..] {
                [one] => one.clone(),
                _ => value.clone(),
            },
            _ => value.clone(),
        };
        own.insert(key.clone(), value);
    }
    // The description of a property takes precedence over that of its type.
    for (key, value) in schema.as_object().into_iter().flatten().filter(|(key, _)| *key != "$ref") {
        if schema.get("$ref").is_some() || key == "description" {
            own.insert(key.clone(), value.clone());
        }
    }
    own.shift_remove("$defs");
    own.shift_remove("$schema");
    if own.get("default").is_some_and(Value::is_null) {
        own.shift_remove("default");
    }
    own.into()
}

/// The JSON Schema of a whole config file: ours with the settings of every component of `registry`, or the original's.
///
/// A file that `extends` another may leave out what that one has, and null removes a key.
pub fn file(registry: &Registry) -> Value {
    let mut ours = CONFIG.clone();
    let mut defs = ours["$defs"].as_object().cloned().unwrap_or_default();
    ours.as_object_mut().into_iter().for_each(|map| {
        map.shift_remove("$defs");
        map.shift_remove("$schema");
        map.shift_remove("title");
    });
    ours["then"] = required(&CONFIG, &CONFIG).into();
    ours["if"] = json!({"not": {"required": ["extends"]}});
    let sections = Role::ALL.map(|role| role.name());
    for map in [&mut ours].into_iter().chain(defs.values_mut()).filter_map(Value::as_object_mut) {
        map.shift_remove("required");
    }
    for name in sections {
        ours["properties"][name].as_object_mut().and_then(|map| map.shift_remove("required"));
    }
    for role in Role::ALL {
        let mut branches = Vec::new();
        let mut kinds = Vec::new();
        for entry in registry.of(role) {
            let name = format!("{role}.{}", entry.kind);
            kinds.push(json!({"const": entry.kind, "description": entry.about}));
            let chosen = json!({"properties": {"kind": {"const": entry.kind}}, "required": ["kind"]});
            branches.push(json!({"if": chosen, "then": {"$ref": format!("#/$defs/{name}")}}));
            defs.insert(name.clone(), component(entry, &name));
        }
        kinds.push(
            json!({"const": "auto", "description": "What lies beside the weights (`config.json`) tells the kind."}),
        );
        let section = &mut ours["properties"][role.name()];
        section["properties"]["kind"] =
            json!({"description": section["properties"]["kind"]["description"], "oneOf": kinds});
        section["allOf"] = branches.into();
    }
    let name = json!({"type": "string", "minLength": 1});
    ours["properties"]["extends"] = json!({
        "description": "Another file, or a list of them, that this one lies over, relative to this file's folder.",
        "anyOf": [name, {"type": "array", "items": name}],
    });
    defs.insert("config".into(), ours);
    defs.insert("original".into(), original::schema());
    defs.values_mut().for_each(nullable);
    let all = json!({"$defs": defs});
    defs.values_mut().for_each(|schema| alternatives::choose_by_type(schema, &all));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A config file of limber",
        "if": original::is_flat_schema(),
        "then": {"$ref": "#/$defs/original"},
        "else": {"$ref": "#/$defs/config"},
        "$defs": defs,
    })
}

/// The keys that `schema` and the maps in it require, as a schema of their own.
fn required(schema: &Value, root: &Value) -> Map<String, Value> {
    let mut needed = Map::new();
    let options = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten();
    let Some(schema) =
        [schema].into_iter().chain(options).filter_map(|s| resolved(s, root)).find(|s| s.get("properties").is_some())
    else {
        return needed;
    };
    needed.extend(schema.get("required").map(|keys| ("required".to_string(), keys.clone())));
    let inner = schema["properties"].as_object().into_iter().flatten();
    let is_needed =
        |key: &String| schema["required"].as_array().is_some_and(|list| list.iter().any(|name| name == key));
    let inner = inner.map(|(key, value)| {
        let mut of_key = required(value, root);
        if is_needed(key) {
            of_key.insert("not".into(), json!({"type": "null"}));
        }
        (key.clone(), Value::Object(of_key))
    });
    let inner: Map<String, Value> = inner.filter(|(_, keys)| *keys != json!({})).collect();
    if !inner.is_empty() {
        needed.insert("properties".into(), inner.into());
    }
    needed
}

/// The schema of a component's section, to stand under `name` among the definitions of another.
fn component(entry: &Entry, name: &str) -> Value {
    let mut schema = with_keys(entry.maker.role(), &entry.schema);
    schema["properties"]["kind"] = json!({"const": entry.kind});
    schema["description"] = entry.about.clone().into();
    schema.as_object_mut().into_iter().for_each(|map| {
        map.shift_remove("$schema");
        map.shift_remove("title");
    });
    move_references(&mut schema, &format!("#/$defs/{name}"));
    schema
}

fn move_references(schema: &mut Value, to: &str) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::String(target) if key == "$ref" && target.starts_with('#') => {
                        *target = format!("{to}{}", &target[1..])
                    }
                    other => move_references(other, to),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|one| move_references(one, to)),
        _ => {}
    }
}

/// Lets every key be null that is not required: in a file, null removes what an extended one has.
fn nullable(schema: &mut Value) {
    let needed = schema.get("required").cloned().unwrap_or_default();
    for (key, value) in schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        nullable(value);
        let is_needed = needed.as_array().is_some_and(|list| list.iter().any(|name| name == key)) || key == "kind";
        let Some(map) = value.as_object_mut().filter(|_| !is_needed) else { continue };
        if map.get("default").is_some_and(Value::is_null) {
            map.shift_remove("default");
        }
        let is_plain = ["enum", "const", "anyOf", "oneOf", "$ref", "if"].iter().all(|word| !map.contains_key(*word));
        match map.get("type").cloned() {
            Some(Value::String(one)) if is_plain => _ = map.insert("type".into(), json!([one, "null"])),
            Some(Value::Array(list)) if is_plain && list.iter().any(|t| t == "null") => {}
            None if is_plain => {}
            _ if map
                .get("anyOf")
                .and_then(Value::as_array)
                .is_some_and(|list| list.contains(&json!({"type": "null"}))) => {}
            _ => {
                let about: Vec<(String, Value)> = ["description", "default"]
                    .iter()
                    .filter_map(|word| map.shift_remove(*word).map(|value| (word.to_string(), value)))
                    .collect();
                let own = Value::Object(std::mem::take(map));
                map.extend(about);
                map.insert("anyOf".into(), json!([own, {"type": "null"}]));
            }
        }
    }
    for word in ["allOf", "anyOf", "oneOf"] {
        schema.get_mut(word).and_then(Value::as_array_mut).into_iter().flatten().for_each(nullable);
    }
    for (_, inner) in schema.get_mut("$defs").and_then(Value::as_object_mut).into_iter().flatten() {
        nullable(inner);
    }
}
