//! Alternatives of a schema, written so that a validator says which key or name is wrong.
//!
//! Of `anyOf` and `oneOf` a validator says that no alternative fits, and not what is wrong in the one that is meant. Where
//! the type of a value or a key of it tells which one that is, `if` and `then` choose it; names of which one is allowed become an `enum`,
//! whose explanations editors read from `enumDescriptions`.

use limber_core::settings::{constants, options, resolved, types};
use serde_json::{Map, Value, json};

static NULL: Value = Value::Null;

/// Rewrites the alternatives of `schema` and of all that lies in it; `defs` holds what it refers to.
pub fn choose_by_type(schema: &mut Value, defs: &Value) {
    match schema {
        Value::Object(map) => {
            map.values_mut().for_each(|inner| choose_by_type(inner, defs));
            for word in ["anyOf", "oneOf"] {
                if let Some(Value::Array(all)) = map.get(word)
                    && let Some(chosen) = names(all).or_else(|| by_type(all, defs)).or_else(|| by_tag(all, defs))
                {
                    map.shift_remove(word);
                    map.extend(chosen);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| choose_by_type(inner, defs)),
        _ => {}
    }
}

/// One `enum` of alternatives that are a value each, null among them.
fn names(all: &[Value]) -> Option<Map<String, Value>> {
    let (mut values, mut about) = (Vec::new(), Vec::new());
    for option in all {
        let null = (*option == json!({"type": "null"})).then_some(&NULL);
        match (option.get("const").or(null), option.get("enum").and_then(Value::as_array)) {
            (Some(value), _) => {
                values.push(value.clone());
                about.push(option.get("description").cloned().unwrap_or_else(|| "".into()));
            }
            (None, Some(list)) => {
                let own = option.get("enumDescriptions").and_then(Value::as_array);
                about.extend(
                    (0..list.len()).map(|i| own.and_then(|own| own.get(i)).cloned().unwrap_or_else(|| "".into())),
                );
                values.extend_from_slice(list);
            }
            (None, None) => return None,
        }
    }
    let mut map = Map::from_iter([("enum".to_string(), Value::from(values))]);
    if about.iter().any(|text| *text != "") {
        map.insert("enumDescriptions".into(), about.into());
    }
    Some(map)
}

/// The types that are allowed, and for each what is expected of a value of it; None where two alternatives share a type.
fn by_type(all: &[Value], defs: &Value) -> Option<Map<String, Value>> {
    let (mut allowed, mut chosen): (Vec<&str>, Vec<Value>) = (Vec::new(), Vec::new());
    for option in all {
        let own = kinds(option, defs, 0)?;
        if own.iter().any(|name| allowed.contains(name)) {
            return None;
        }
        if own != ["null"] {
            let condition = if own.len() == 1 { json!({"type": own[0]}) } else { json!({"type": own}) };
            chosen.push(json!({"if": condition, "then": option}));
        }
        allowed.extend(own);
    }
    let mut map = Map::from_iter([("type".to_string(), json!(allowed))]);
    map.insert("allOf".into(), chosen.into());
    Some(map)
}

/// The types of the values that a schema takes; None where it does not say.
fn kinds<'a>(schema: &'a Value, defs: &'a Value, depth: usize) -> Option<Vec<&'a str>> {
    let target = resolved(schema, defs).filter(|_| depth < 8)?;
    let names = constants(target, defs);
    if !names.is_empty() && names.iter().all(Value::is_string) {
        return Some(vec!["string"]);
    }
    let mut found = types(target);
    for option in options(target) {
        for name in kinds(option, defs, depth + 1)? {
            if !found.contains(&name) {
                found.push(name);
            }
        }
    }
    Some(found).filter(|found| !found.is_empty())
}

/// Maps that are told apart by a constant under one key, all of them required: that key takes one of the constants, which
/// chooses the map.
fn by_tag(all: &[Value], defs: &Value) -> Option<Map<String, Value>> {
    let maps: Vec<&Value> = all.iter().map(|option| resolved(option, defs)).collect::<Option<_>>()?;
    let tag_of = |map: &Value, key: &str| map.get("properties")?.get(key)?.get("const").cloned();
    let keys = maps.first()?.get("properties")?.as_object()?.keys();
    let (key, tags) = keys.into_iter().find_map(|key| {
        let tags: Option<Vec<Value>> = maps.iter().map(|map| tag_of(map, key)).collect();
        Some((key, tags?))
    })?;
    let of_tag = |(tag, option): (&Value, &Value)| json!({"if": {"properties": {key: {"const": tag}}, "required": [key]}, "then": option});
    let chosen: Vec<Value> = tags.iter().zip(all).map(of_tag).collect();
    let mut map = Map::from_iter([("type".to_string(), Value::from("object"))]);
    map.insert("properties".into(), json!({key: {"enum": tags}}));
    map.insert("required".into(), json!([key]));
    map.insert("allOf".into(), chosen.into());
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use limber_core::settings::violations;

    fn chosen(schema: Value) -> Value {
        let mut schema = schema;
        let defs = schema.clone();
        choose_by_type(&mut schema, &defs);
        schema
    }

    #[test]
    fn the_type_of_a_value_chooses_its_alternative() {
        let schema = chosen(json!({
            "properties": {
                "train": {"description": "d", "anyOf": [{"$ref": "#/$defs/Train"}, {"type": "null"}]},
                "name": {"anyOf": [{"$ref": "#/$defs/Name"}, {"type": "null"}]},
                "plugins": {"anyOf": [{"type": "string", "minLength": 1}, {"type": "object", "required": ["path"]}]},
            },
            "$defs": {"Name": {"oneOf": [{"const": "a"}, {"const": "b"}]}, "Train": {"type": "object", "additionalProperties": false, "properties": {"lr": {"type": "number"}}}},
        }));
        let train = json!({"if": {"type": "object"}, "then": {"$ref": "#/$defs/Train"}});
        let expected = json!({"description": "d", "type": ["object", "null"], "allOf": [train]});
        assert_eq!(schema["properties"]["train"], expected);
        let keys = |value: Value| violations(&value, &schema).iter().map(|v| v.key()).collect::<Vec<_>>();
        assert_eq!(keys(json!({"train": {"lrr": 1}})), ["train.lrr"]);
        assert_eq!(keys(json!({"plugins": {}})), ["plugins.path"]);
        assert_eq!(keys(json!({"train": 3, "plugins": 3})), ["train", "plugins"]);
        assert_eq!(keys(json!({"name": "c"})), ["name"]);
        assert!(keys(json!({"train": null, "plugins": "x", "name": "a"})).is_empty());
    }

    #[test]
    fn names_become_one_list() {
        let of = |all: Value| chosen(json!({"oneOf": all}));
        let named = json!([{"const": "a", "description": "A."}, {"type": "string", "const": "b"}, {"type": "null"}]);
        assert_eq!(of(named), json!({"enum": ["a", "b", null], "enumDescriptions": ["A.", "", ""]}));
        assert_eq!(of(json!([{"const": true}, {"const": "x"}])), json!({"enum": [true, "x"]}));
        let nested = chosen(json!({"anyOf": [{"oneOf": [{"const": "a"}, {"const": "b"}]}, {"type": "null"}]}));
        assert_eq!(nested, json!({"enum": ["a", "b", null]}));
        // What nothing tells apart stays.
        let maps = json!([{"type": "object", "required": ["a"]}, {"type": "object", "required": ["b"]}]);
        assert_eq!(of(maps.clone()), json!({"oneOf": maps}));
    }

    #[test]
    fn a_constant_in_a_map_chooses_it() {
        let map = |name: &str, key: &str| {
            let properties = json!({"type": {"type": "string", "const": name}, key: {"type": "number"}});
            json!({"type": "object", "additionalProperties": false, "properties": properties, "required": ["type", key]})
        };
        let schema = chosen(json!({
            "properties": {"rope": {"anyOf": [{"$ref": "#/$defs/Rope"}, {"type": "null"}]}},
            "$defs": {"Rope": {"oneOf": [map("linear", "factor"), map("yarn", "beta")]}},
        }));
        let keys = |value: Value| violations(&value, &schema).iter().map(|v| v.key()).collect::<Vec<_>>();
        assert_eq!(keys(json!({"rope": {"type": "linaer", "factor": 1}})), ["rope.type"]);
        assert_eq!(keys(json!({"rope": {"type": "yarn", "factor": 1}})), ["rope.factor", "rope.beta"]);
        assert_eq!(keys(json!({"rope": {"factor": 1}})), ["rope.type"]);
        assert!(keys(json!({"rope": {"type": "yarn", "beta": 1}})).is_empty());
    }
}
