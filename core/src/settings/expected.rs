//! What a JSON Schema expects of one value, in words: `a whole number, at least 1`, `f32, f16 or bf16`.
//!
//! A schema may say it itself in the keyword `errorMessage`, which editors show too.

use super::words::{or, shown};
use serde_json::Value;

/// Bounds of a number, inclusive unless the keyword says otherwise.
const BOUNDS: [(&str, &str); 4] =
    [("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"), ("exclusiveMaximum", "below")];

/// Ranges of the number formats that `type` alone does not tell.
#[rustfmt::skip]
const FORMATS: [(&str, f64, f64); 8] = [
    ("int8", i8::MIN as f64, i8::MAX as f64),
    ("int16", i16::MIN as f64, i16::MAX as f64),
    ("int32", i32::MIN as f64, i32::MAX as f64),
    ("int64", i64::MIN as f64, i64::MAX as f64),
    ("uint8", 0.0, u8::MAX as f64),
    ("uint16", 0.0, u16::MAX as f64),
    ("uint32", 0.0, u32::MAX as f64),
    ("float", f32::MIN as f64, f32::MAX as f64),
];

/// `schema`, or what its `$ref` into `root` leads to; None where that is nowhere, or a circle.
pub fn resolved<'a>(mut schema: &'a Value, root: &'a Value) -> Option<&'a Value> {
    for _ in 0..64 {
        let Some(target) = schema.get("$ref").and_then(Value::as_str) else { return Some(schema) };
        schema = root.pointer(target.strip_prefix('#')?)?;
    }
    None
}

/// The values that an `enum` or `const` lists, or the options of `anyOf` and `oneOf` where each is one value.
pub fn constants(schema: &Value, root: &Value) -> Vec<Value> {
    let not_null = |values: &[Value]| values.iter().filter(|v| !v.is_null()).cloned().collect();
    match (schema.get("enum"), schema.get("const")) {
        (Some(Value::Array(list)), _) => return not_null(list),
        (_, Some(one)) => return not_null(std::slice::from_ref(one)),
        _ => {}
    }
    let mut all = Vec::new();
    for option in options(schema) {
        let Some(option) = resolved(option, root) else { return Vec::new() };
        if option.get("type").is_some_and(|t| t == "null") {
            continue;
        }
        let own = constants(option, root);
        if own.is_empty() {
            return own;
        }
        all.extend(own);
    }
    all
}

/// The options of `anyOf` and `oneOf`.
pub fn options(schema: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf"].into_iter().filter_map(|word| schema.get(word)?.as_array()).flatten()
}

/// The types that a schema names, none where any will do.
pub fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// What `schema` expects, in words; empty where it does not say.
pub fn expected(schema: &Value, root: &Value) -> String {
    words(schema, root, 0)
}

fn words(schema: &Value, root: &Value, depth: usize) -> String {
    let Some(schema) = resolved(schema, root).filter(|_| depth < 8) else { return String::new() };
    if let Some(own) = schema.get("errorMessage").and_then(Value::as_str) {
        return own.strip_prefix("expected ").unwrap_or(own).to_string();
    }
    let constants = constants(schema, root);
    if !constants.is_empty() {
        return or(&constants.iter().map(plain).collect::<Vec<_>>());
    }
    let mut all: Vec<String> = types(schema)
        .into_iter()
        .filter(|name| *name != "null")
        .map(|name| match name {
            "boolean" => "true or false".to_string(),
            "integer" => format!("a whole number{}", bounds(schema)),
            "number" => format!("a number{}", bounds(schema)),
            "string" => "text".to_string(),
            "array" => format!("{}{}", list_size(schema), items(schema, root, depth)),
            "object" => "a map of keys".to_string(),
            other => other.to_string(),
        })
        .collect();
    for option in options(schema) {
        let own = words(option, root, depth + 1);
        if !own.is_empty() && !all.contains(&own) {
            all.push(own);
        }
    }
    or(&all)
}

/// A constant as messages name it: text without quotes.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| shown(value), str::to_string)
}

fn bounds(schema: &Value) -> String {
    if let (Some(low), Some(high)) = (schema.get("minimum"), schema.get("maximum")) {
        return format!(" from {low} to {high}");
    }
    let all: Vec<String> = BOUNDS
        .iter()
        .filter_map(|(keyword, words)| Some(format!("{words} {}", schema.get(*keyword).filter(|v| v.is_number())?)))
        .collect();
    if all.is_empty() { String::new() } else { format!(", {}", all.join(" and ")) }
}

fn list_size(schema: &Value) -> String {
    let size = |word: &str| schema.get(word).and_then(Value::as_u64);
    match (size("minItems"), size("maxItems")) {
        (None | Some(0), None) => "a list".to_string(),
        (Some(low), None) => format!("a list of at least {low}"),
        (Some(low), Some(high)) if low == high => format!("a list of {low}"),
        (low, Some(high)) => format!("a list of {} to {high}", low.unwrap_or(0)),
    }
}

fn items(schema: &Value, root: &Value, depth: usize) -> String {
    match schema.get("items").map(|items| words(items, root, depth + 1)).filter(|words| !words.is_empty()) {
        Some(words) => format!(", each {words}"),
        None => String::new(),
    }
}

/// Whether `schema` takes null.
fn takes_null(schema: &Value) -> bool {
    types(schema).contains(&"null") || options(schema).any(|option| types(option).contains(&"null"))
}

/// What is expected of `value` itself, its inside left out, where it is something else.
pub fn refused(value: &Value, schema: &Value, root: &Value) -> Option<String> {
    if value.is_null() && takes_null(schema) {
        return None;
    }
    let constants = constants(schema, root);
    if !constants.is_empty() {
        return (!constants.contains(value)).then(|| expected(schema, root));
    }
    let types = types(schema);
    if !types.is_empty() && !types.iter().any(|name| is_of_type(value, name)) {
        let words = expected(schema, root);
        let unquoted = types.contains(&"string") && (value.is_number() || value.is_boolean());
        return Some(if unquoted { format!("{words} (put it in quotes)") } else { words });
    }
    let size = |word: &str| schema.get(word).and_then(Value::as_u64).map(|n| n as usize);
    let fits = |found: usize, low: &str, high: &str| {
        (size(low).unwrap_or(0)..=size(high).unwrap_or(usize::MAX)).contains(&found)
    };
    match value {
        Value::Number(_) => out_of_range(value.as_f64()?, schema, root),
        Value::Array(list) if !fits(list.len(), "minItems", "maxItems") => Some(expected(schema, root)),
        Value::Object(map) if !fits(map.len(), "minProperties", "maxProperties") => Some(expected(schema, root)),
        Value::String(text) if !fits(text.chars().count(), "minLength", "maxLength") => {
            Some(if text.is_empty() { "text that is not empty".to_string() } else { expected(schema, root) })
        }
        _ => None,
    }
}

fn out_of_range(x: f64, schema: &Value, root: &Value) -> Option<String> {
    let number = |word: &str| schema.get(word).and_then(Value::as_f64);
    let below = number("minimum").is_some_and(|low| x < low) || number("exclusiveMinimum").is_some_and(|low| x <= low);
    let above =
        number("maximum").is_some_and(|high| x > high) || number("exclusiveMaximum").is_some_and(|high| x >= high);
    if below || above {
        return Some(expected(schema, root));
    }
    let format = schema.get("format").and_then(Value::as_str)?;
    let (_, low, high) = FORMATS.iter().find(|(name, _, _)| *name == format)?;
    (!(*low..=*high).contains(&x)).then(|| format!("a number of type {format}, from {low} to {high}"))
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    }
}
