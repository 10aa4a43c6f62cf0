//! Checks a part's settings against its JSON Schema, so far as schemas of settings go.
//!
//! Understood: `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`, `prefixItems`,
//! `minItems`, `maxItems`, the bounds of numbers, `anyOf`, `oneOf`, `allOf`, `$ref` into the schema itself. What else
//! a schema says is left to the part.

use super::problem::unknown_key;
use super::reader::{or, shown};
use serde_json::Value;

/// What is wrong with `value`: dotted key and message, none where it fits.
pub fn violations(value: &Value, schema: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    Checker { root: schema, depth: 0 }.check(value, schema, "", &mut found);
    found
}

struct Checker<'a> {
    root: &'a Value,
    depth: usize,
}

type Found = Vec<(String, String)>;

impl<'a> Checker<'a> {
    fn check(&self, value: &Value, schema: &'a Value, key: &str, found: &mut Found) {
        // A schema that refers to itself without end is the part's fault; its settings are not blamed for it.
        if self.depth > 64 {
            return;
        }
        let inner = Self { root: self.root, depth: self.depth + 1 };
        if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#')) {
            if let Some(target) = self.root.pointer(target) {
                inner.check(value, target, key, found);
            }
            return;
        }
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            inner.check(value, part, key, found);
        }
        for word in ["anyOf", "oneOf"] {
            if let Some(options) = schema.get(word).and_then(Value::as_array) {
                inner.check_options(value, options, key, found);
            }
        }
        if let Some(message) = refused(value, schema) {
            found.push((key.to_string(), format!("value {} is not allowed, must be {message}", shown(value))));
            return;
        }
        self.check_map(value, schema, key, found);
        self.check_list(value, schema, key, found);
    }

    /// One option has to fit; where none does, the one that gets furthest tells what is wrong.
    fn check_options(&self, value: &Value, options: &'a [Value], key: &str, found: &mut Found) {
        if value.is_null() && options.iter().any(|o| o.get("type").is_some_and(|t| t == "null")) {
            return;
        }
        let tries = options.iter().filter(|o| o.get("type").is_none_or(|t| t != "null")).map(|option| {
            let mut own = Vec::new();
            self.check(value, option, key, &mut own);
            own
        });
        let mut tries: Vec<Found> = tries.collect();
        if tries.iter().any(Vec::is_empty) {
            return;
        }
        let constants: Vec<String> = options.iter().flat_map(allowed_values).collect();
        if constants.len() == tries.len() {
            let names: Vec<&str> = constants.iter().map(String::as_str).collect();
            found.push((key.to_string(), format!("value {} is not allowed, must be {}", shown(value), or(&names))));
            return;
        }
        tries.sort_by_key(|own| (own.iter().any(|(k, _)| k == key), own.len()));
        found.extend(tries.into_iter().next().into_iter().flatten());
    }

    fn check_map(&self, value: &Value, schema: &'a Value, key: &str, found: &mut Found) {
        let Some(map) = value.as_object() else { return };
        let inside = |name: &str| if key.is_empty() { name.to_string() } else { format!("{key}.{name}") };
        let inner = Self { root: self.root, depth: self.depth + 1 };
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, value) in map {
            match (properties.and_then(|p| p.get(name)), schema.get("additionalProperties")) {
                (Some(schema), _) => inner.check(value, schema, &inside(name), found),
                (None, Some(Value::Bool(false))) => {
                    let allowed: Vec<&str> = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                    found.push((inside(name), unknown_key(name, &allowed)));
                }
                (None, Some(schema @ Value::Object(_))) => inner.check(value, schema, &inside(name), found),
                _ => {}
            }
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                found.push((inside(name), "missing key".to_string()));
            }
        }
    }

    fn check_list(&self, value: &Value, schema: &'a Value, key: &str, found: &mut Found) {
        let Some(list) = value.as_array() else { return };
        let inner = Self { root: self.root, depth: self.depth + 1 };
        let prefix = schema.get("prefixItems").and_then(Value::as_array);
        for (i, item) in list.iter().enumerate() {
            if let Some(schema) = prefix.and_then(|p| p.get(i)).or(schema.get("items")) {
                inner.check(item, schema, &format!("{key}.{i}"), found);
            }
        }
    }
}

/// What is allowed instead, where `value` itself, without its inside, is not.
fn refused(value: &Value, schema: &Value) -> Option<String> {
    let constants = allowed_values(schema);
    if !constants.is_empty() {
        let shown = shown(value);
        let names: Vec<&str> = constants.iter().map(String::as_str).collect();
        return (!constants.contains(&shown)).then(|| or(&names));
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|t| is_of_type(value, t)) {
        let words: Vec<&str> = types.iter().filter(|t| **t != "null").map(|t| type_in_words(t)).collect();
        return Some(or(&words));
    }
    let number = |word: &str| schema.get(word).and_then(Value::as_f64);
    if let Some(x) = value.as_f64() {
        let bounds = [
            ("minimum", "at least", number("minimum").is_some_and(|low| x < low)),
            ("exclusiveMinimum", "above", number("exclusiveMinimum").is_some_and(|low| x <= low)),
            ("maximum", "at most", number("maximum").is_some_and(|high| x > high)),
            ("exclusiveMaximum", "below", number("exclusiveMaximum").is_some_and(|high| x >= high)),
        ];
        if let Some((word, words, _)) = bounds.iter().find(|(_, _, broken)| *broken) {
            return Some(format!("{words} {}", schema[*word]));
        }
    }
    if let Some(list) = value.as_array() {
        let size = |word: &str| schema.get(word).and_then(Value::as_u64).map(|n| n as usize);
        let (low, high) = (size("minItems").unwrap_or(0), size("maxItems").unwrap_or(usize::MAX));
        if !(low..=high).contains(&list.len()) {
            return Some(match (low, high) {
                (low, high) if low == high => format!("a list of {low}"),
                (low, usize::MAX) => format!("a list of at least {low}"),
                (low, high) => format!("a list of {low} to {high}"),
            });
        }
    }
    None
}

fn allowed_values(schema: &Value) -> Vec<String> {
    match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(list)), _) => list.iter().filter(|v| !v.is_null()).map(Value::to_string).collect(),
        (_, Some(one)) => vec![one.to_string()],
        _ => Vec::new(),
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|x| x.fract() == 0.0) && !value.is_f64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}

fn type_in_words(name: &str) -> &str {
    match name {
        "boolean" => "true or false",
        "integer" => "a whole number",
        "number" => "a number",
        "string" => "text",
        "array" => "a list",
        "object" => "a map of keys",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As schemars writes the settings of a part.
    fn schema() -> Value {
        json!({
            "type": "object", "additionalProperties": false, "required": ["width"],
            "properties": {
                "width": {"type": "integer", "format": "uint", "minimum": 0},
                "layers": {"type": ["array", "null"], "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
                "activation": {"anyOf": [{"$ref": "#/$defs/Activation"}, {"type": "null"}]},
                "dropout": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
                "norm": {"$ref": "#/$defs/Norm"},
                "rope": {"anyOf": [{"$ref": "#/$defs/Norm"}, {"type": "null"}]},
                "extra": {"type": "object", "additionalProperties": {"type": "string"}},
                "dtype": {"type": "string", "enum": ["f32", "bf16"]},
                "box": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "boolean"}], "minItems": 1},
            },
            "$defs": {
                "Activation": {"oneOf": [{"type": "string", "const": "relu"}, {"type": "string", "const": "gelu"}]},
                "Norm": {
                    "type": "object", "additionalProperties": false,
                    "properties": {"eps": {"type": "number"}, "bias": {"type": "boolean"}},
                },
            },
        })
    }

    #[test]
    fn what_fits_is_left_alone() {
        for value in [
            json!({"width": 4}),
            json!({"width": 4, "layers": null, "activation": null, "rope": null}),
            json!({"width": 4, "layers": [1, 2, 3, 4], "activation": "gelu", "dropout": 0, "norm": {"eps": 1}}),
            json!({"width": 4, "rope": {"bias": true}, "extra": {"any": "x"}, "dtype": "bf16", "box": [0.5, true]}),
        ] {
            assert_eq!(violations(&value, &schema()), [], "{value}");
        }
        // A schema that refers to itself ends.
        let endless = json!({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}});
        assert_eq!(violations(&json!({"x": 1}), &endless), []);
        assert_eq!(violations(&json!({"x": 1}), &Value::Null), []);
    }

    #[test]
    fn every_violation_has_its_message() {
        let check = |key: &str, value: Value, at: &str, expected: &str| {
            let mut settings = json!({"width": 4});
            settings[key] = value;
            assert_eq!(violations(&settings, &schema()), [(at.to_string(), expected.to_string())]);
        };
        check("width", json!(-1), "width", "value -1 is not allowed, must be at least 0");
        check("width", json!(1.5), "width", "value 1.5 is not allowed, must be a whole number");
        check("layers", json!([1, 2]), "layers", "value [1,2] is not allowed, must be a list of 4");
        check("layers", json!([1, 2, 3, "x"]), "layers.3", "value \"x\" is not allowed, must be a whole number");
        check("layers", json!(3), "layers", "value 3 is not allowed, must be a list");
        check("activation", json!("tanh"), "activation", "value \"tanh\" is not allowed, must be \"relu\" or \"gelu\"");
        check("dropout", json!(1), "dropout", "value 1 is not allowed, must be below 1");
        let unknown = "unknown key (did you mean \"eps\"?); allowed keys: eps, bias";
        check("norm", json!({"ep": 1}), "norm.ep", unknown);
        check("rope", json!({"ep": 1}), "rope.ep", unknown);
        check("rope", json!(7), "rope", "value 7 is not allowed, must be a map of keys");
        check("extra", json!({"a": 1}), "extra.a", "value 1 is not allowed, must be text");
        check("dtype", json!("f8"), "dtype", "value \"f8\" is not allowed, must be \"f32\" or \"bf16\"");
        check("box", json!([]), "box", "value [] is not allowed, must be a list of at least 1");
        check("box", json!([1, 1]), "box.1", "value 1 is not allowed, must be true or false");
        assert_eq!(violations(&json!({}), &schema()), [("width".to_string(), "missing key".to_string())]);
    }
}
