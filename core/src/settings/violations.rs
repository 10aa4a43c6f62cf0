//! Holds a tree against a JSON Schema, so far as schemas of settings go, and reports every violation at once.
//!
//! Understood: `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`, `prefixItems`, the
//! bounds of numbers and sizes, `anyOf`, `oneOf`, `allOf`, `not`, `if` with `then` and `else`, `$ref` into the schema itself.
//! What else a schema says is left to the type that is read.

use super::expected::{expected, options, refused, resolved};
use super::words::{did_you_mean, shown, unknown_key};
use serde_json::{Map, Value};
use std::cell::Cell;

/// One thing that is wrong with a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Keys and indices into lists, from the top down; empty where the tree itself is meant.
    pub path: Vec<String>,
    /// What is wrong and what is expected.
    pub message: String,
}

impl Violation {
    /// A violation of what lies at `path`.
    pub fn new(path: &[String], message: impl Into<String>) -> Self {
        Self { path: path.to_vec(), message: message.into() }
    }

    /// The path with dots.
    pub fn key(&self) -> String {
        self.path.join(".")
    }
}

/// Most schemas that one tree is held against, and most levels: a schema that refers to itself without end is its
/// author's fault, for which settings are not blamed.
const MOST: usize = 1_000_000;
const DEEPEST: usize = 64;

/// Most violations that are told apart.
const MOST_FOUND: usize = 1000;

/// What is wrong with `value`, none where it fits.
pub fn violations(value: &Value, schema: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    let budget = Cell::new(MOST);
    Checker { root: schema, budget: &budget, depth: 0 }.check(value, schema, &mut Vec::new(), &mut found);
    found
}

#[derive(Clone, Copy)]
struct Checker<'a> {
    root: &'a Value,
    budget: &'a Cell<usize>,
    depth: usize,
}

type Path = Vec<String>;
type Found = Vec<Violation>;

impl<'a> Checker<'a> {
    fn check(self, value: &Value, schema: &'a Value, path: &mut Path, found: &mut Found) {
        if self.depth > DEEPEST || self.budget.get() == 0 || found.len() >= MOST_FOUND {
            return;
        }
        self.budget.set(self.budget.get() - 1);
        let Some(schema) = resolved(schema, self.root) else { return };
        let inner = Self { depth: self.depth + 1, ..self };
        for one in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            inner.check(value, one, path, found);
        }
        if let Some(condition) = schema.get("if") {
            let branch = if inner.fits(value, condition, path) { "then" } else { "else" };
            if let Some(branch) = schema.get(branch) {
                inner.check(value, branch, path, found);
            }
        }
        if schema.get("not").is_some_and(|not| inner.fits(value, not, path)) {
            found.push(refusal(value, schema, self.root, path, ""));
            return;
        }
        if let Some(words) = refused(value, schema, self.root) {
            found.push(refusal(value, schema, self.root, path, &words));
            return;
        }
        inner.check_options(value, schema, path, found);
        inner.check_map(value, schema, path, found);
        inner.check_list(value, schema, path, found);
    }

    fn fits(self, value: &Value, schema: &'a Value, path: &mut Path) -> bool {
        let mut own = Vec::new();
        self.check(value, schema, path, &mut own);
        own.is_empty()
    }

    /// One option has to fit; where none does, the one that gets furthest tells what is wrong.
    fn check_options(self, value: &Value, schema: &'a Value, path: &mut Path, found: &mut Found) {
        let mut tries: Vec<(usize, Found)> = Vec::new();
        for option in options(schema) {
            let mut own = Vec::new();
            self.check(value, option, path, &mut own);
            if own.is_empty() {
                return;
            }
            tries.push((self.other_tags(value, option), own));
        }
        let inside = tries.into_iter().filter(|(_, own)| own.iter().all(|v| v.path.len() > path.len()));
        // The option whose tag the value has is the one that is meant, however much is wrong in it.
        match inside.min_by_key(|(other, own)| (*other, own.len())) {
            Some((_, own)) => found.extend(own),
            None if options(schema).next().is_some() => {
                let words = expected(schema, self.root);
                found.push(refusal(value, schema, self.root, path, &words));
            }
            None => {}
        }
    }

    /// How many constants of an option's properties `value` has otherwise.
    fn other_tags(self, value: &Value, option: &'a Value) -> usize {
        let properties = resolved(option, self.root).and_then(|option| option.get("properties")?.as_object());
        let tags =
            properties.into_iter().flatten().filter_map(|(name, one)| Some((value.get(name)?, one.get("const")?)));
        tags.filter(|(own, tag)| own != tag).count()
    }

    fn check_map(self, value: &Value, schema: &'a Value, path: &mut Path, found: &mut Found) {
        let Some(map) = value.as_object() else { return };
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, value) in map {
            path.push(name.clone());
            match (properties.and_then(|p| p.get(name)), schema.get("additionalProperties")) {
                (Some(schema), _) => self.check(value, schema, path, found),
                (None, Some(Value::Bool(false))) => {
                    let names: Vec<&String> = properties.into_iter().flat_map(Map::keys).collect();
                    found.push(Violation::new(path, unknown_key(name, &names)));
                }
                (None, Some(schema @ Value::Object(_))) => self.check(value, schema, path, found),
                _ => {}
            }
            path.pop();
        }
        for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(name) {
                path.push(name.to_string());
                found.push(Violation::new(path, missing(properties.and_then(|p| p.get(name)), self.root)));
                path.pop();
            }
        }
    }

    fn check_list(self, value: &Value, schema: &'a Value, path: &mut Path, found: &mut Found) {
        let Some(list) = value.as_array() else { return };
        let prefix = schema.get("prefixItems").and_then(Value::as_array);
        for (i, item) in list.iter().enumerate() {
            if let Some(schema) = prefix.and_then(|p| p.get(i)).or(schema.get("items")) {
                path.push(i.to_string());
                self.check(item, schema, path, found);
                path.pop();
            }
        }
    }
}

fn refusal(value: &Value, schema: &Value, root: &Value, path: &Path, words: &str) -> Violation {
    let hint = match value.as_str() {
        Some(text) => {
            let names = super::expected::constants(schema, root);
            did_you_mean(text, &names.iter().filter_map(Value::as_str).collect::<Vec<_>>())
        }
        None => String::new(),
    };
    let instead = if words.is_empty() { String::new() } else { format!(", expected {words}") };
    Violation::new(path, format!("value {} is not allowed{hint}{instead}", shown(value)))
}

/// That a key is missing, what is expected of it, and what it is for.
fn missing(schema: Option<&Value>, root: &Value) -> String {
    let Some(schema) = schema else { return "missing key".to_string() };
    let words = expected(schema, root);
    let about = [Some(schema), resolved(schema, root)].into_iter().flatten();
    let about = about.filter_map(|s| s.get("description")?.as_str()).next().unwrap_or_default();
    let about = about.split_whitespace().collect::<Vec<_>>().join(" ");
    let about = about.split_once(". ").map_or(about.as_str(), |(first, _)| first).trim_end_matches('.');
    match (words.as_str(), about) {
        ("", "") => "missing key".to_string(),
        ("", about) => format!("missing key: {}", lower(about)),
        (words, "") => format!("missing key, expected {words}"),
        (words, about) => format!("missing key, expected {words}: {}", lower(about)),
    }
}

/// A sentence as it goes on after a colon.
fn lower(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), text.chars().nth(1)) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            format!("{}{}", first.to_lowercase(), letters.as_str())
        }
        _ => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As schemars writes the settings of a component.
    fn schema() -> Value {
        json!({
            "type": "object", "additionalProperties": false, "required": ["width"],
            "properties": {
                "width": {"type": "integer", "format": "uint", "minimum": 0, "description": "Width E."},
                "layers": {"type": ["array", "null"], "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
                "activation": {"anyOf": [{"$ref": "#/$defs/Activation"}, {"type": "null"}]},
                "dropout": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
                "norm": {"$ref": "#/$defs/Norm"},
                "rope": {"anyOf": [{"$ref": "#/$defs/Norm"}, {"type": "null"}]},
                "extra": {"type": "object", "additionalProperties": {"type": "string", "minLength": 1}},
                "dtype": {"type": "string", "enum": ["f32", "bf16"]},
                "box": {"type": "array", "prefixItems": [{"type": "number"}, {"type": "boolean"}], "minItems": 1},
                "ids": {"anyOf": [{"type": "integer", "format": "uint32"}, {"type": "array", "items": {"type": "integer"}}]},
                "frozen": {"const": true, "errorMessage": "expected true: it is never trained"},
                "none": {"type": ["object", "null"], "maxProperties": 0, "errorMessage": "expected null"},
                "mode": {"oneOf": [{"const": true}, {"const": "cheap"}, {"const": false}]},
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
            json!({"width": 4, "ids": [1], "frozen": true, "none": {}, "mode": false}),
            json!({"width": 4, "ids": 1, "none": null, "mode": "cheap"}),
        ] {
            assert_eq!(violations(&value, &schema()), [], "{value}");
        }
        // A schema that refers to itself ends.
        let endless = json!({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}});
        assert_eq!(violations(&json!({"x": 1}), &endless), []);
        let branching =
            json!({"$ref": "#/$defs/A", "$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}]}}});
        assert_eq!(violations(&json!({"x": 1}), &branching), []);
        assert_eq!(violations(&json!({"x": 1}), &Value::Null), []);
    }

    #[test]
    fn every_violation_has_its_message() {
        let check = |key: &str, value: Value, at: &str, expected: &str| {
            let mut settings = json!({"width": 4});
            settings[key] = value;
            let found: Vec<(String, String)> =
                violations(&settings, &schema()).into_iter().map(|v| (v.key(), v.message)).collect();
            assert_eq!(found, [(at.to_string(), expected.to_string())]);
        };
        let four = "a list of 4, each a whole number";
        check("width", json!(-1), "width", "value -1 is not allowed, expected a whole number, at least 0");
        check("width", json!(1.5), "width", "value 1.5 is not allowed, expected a whole number, at least 0");
        check("layers", json!([1, 2]), "layers", &format!("value [1,2] is not allowed, expected {four}"));
        check("layers", json!([1, 2, 3, "x"]), "layers.3", "value \"x\" is not allowed, expected a whole number");
        check("layers", json!(3), "layers", &format!("value 3 is not allowed, expected {four}"));
        check("activation", json!("tanh"), "activation", "value \"tanh\" is not allowed, expected relu or gelu");
        let near = "value \"gel\" is not allowed (did you mean \"gelu\"?), expected relu or gelu";
        check("activation", json!("gel"), "activation", near);
        check("dropout", json!(1), "dropout", "value 1 is not allowed, expected a number, at least 0 and below 1");
        let unknown = "unknown key (did you mean \"eps\"?); expected keys: eps, bias";
        check("norm", json!({"ep": 1}), "norm.ep", unknown);
        check("rope", json!({"ep": 1}), "rope.ep", unknown);
        check("rope", json!(7), "rope", "value 7 is not allowed, expected a map of keys");
        check("extra", json!({"a": 1}), "extra.a", "value 1 is not allowed, expected text (put it in quotes)");
        check("extra", json!({"a": ""}), "extra.a", "value \"\" is not allowed, expected text that is not empty");
        check("dtype", json!("f8"), "dtype", "value \"f8\" is not allowed, expected f32 or bf16");
        check("box", json!([]), "box", "value [] is not allowed, expected a list of at least 1");
        check("box", json!([1, 1]), "box.1", "value 1 is not allowed, expected true or false");
        check("ids", json!([1, "x"]), "ids.1", "value \"x\" is not allowed, expected a whole number");
        let ids = "expected a whole number or a list, each a whole number";
        check("ids", json!("x"), "ids", &format!("value \"x\" is not allowed, {ids}"));
        check("ids", json!(1u64 << 32), "ids", &format!("value 4294967296 is not allowed, {ids}"));
        check("frozen", json!(false), "frozen", "value false is not allowed, expected true: it is never trained");
        check("none", json!({"a": 1}), "none", "value {\"a\":1} is not allowed, expected null");
        check("mode", json!("all"), "mode", "value \"all\" is not allowed, expected true, cheap or false");
        let missing = violations(&json!({}), &schema());
        let message = "missing key, expected a whole number, at least 0: width E";
        assert_eq!(missing, [Violation::new(&["width".to_string()], message)]);
    }

    #[test]
    fn a_condition_chooses_its_branch() {
        let schema = json!({
            "if": {"properties": {"kind": {"const": "a"}}, "required": ["kind"]},
            "then": {"required": ["x"]}, "else": {"properties": {"y": {"type": "integer"}}},
        });
        let keys = |value: Value| violations(&value, &schema).iter().map(Violation::key).collect::<Vec<_>>();
        assert_eq!(keys(json!({"kind": "a", "y": "text"})), ["x"]);
        assert_eq!(keys(json!({"kind": "b", "y": "text"})), ["y"]);
        assert_eq!(keys(json!({"x": 1})), [""; 0]);
        let schema = json!({"not": {"required": ["x"]}});
        assert_eq!(violations(&json!({"x": 1}), &schema)[0].message, "value {\"x\":1} is not allowed");
        assert_eq!(violations(&json!({"y": 1}), &schema), []);
    }
}
