//! One tree over another, `--set a.b=c`, and paths that keep their meaning when a tree moves.
//!
//! Maps merge key by key, lists are replaced, `null` removes a key. A component whose `kind` changes loses what the base
//! said of it: the settings of one kind mean nothing to another.

use super::problem::Problem;
use super::schema;
use super::tree;
use limber_core::registry::Role;
use limber_core::settings::{options, resolved, shown};
use limber_weights::WeightSpec;
use limber_weights::cache::environment;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Lays the config `over` onto the config `base`.
pub(super) fn merge(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for role in Role::ALL.map(Role::name) {
        let kind = |tree: &Map<String, Value>| tree.get(role).and_then(|section| section.get("kind")).cloned();
        if let (Some(old), Some(new)) = (kind(base), kind(&over))
            && old != new
            && !new.is_null()
        {
            base.insert(role.to_string(), Value::Object(Map::new()));
        }
        // What was said of weights at an address is not said of others.
        let weights = over.get(role).and_then(|section| section.get("weights"));
        if let (Some(_), Some(Value::Object(section))) = (weights, base.get_mut(role)) {
            section.shift_remove("sha256");
            section.shift_remove("local");
        }
    }
    merge_maps(base, over);
}

fn merge_maps(base: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (_, Value::Null) => _ = base.shift_remove(&key),
            (Some(Value::Object(there)), Value::Object(map)) => merge_maps(there, map),
            (_, Value::Object(map)) => {
                // Nulls go, also where there is nothing for them to remove.
                let mut fresh = Map::new();
                merge_maps(&mut fresh, map);
                base.insert(key, Value::Object(fresh));
            }
            (_, value) => _ = base.insert(key, value),
        }
    }
}

/// Most names of one `--set` key; settings nest a few levels at most.
const MOST_KEYS: usize = 32;

/// One `--set`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Setting {
    /// As it was given.
    pub text: String,
    /// Keys from the top down.
    pub path: Vec<String>,
    /// The value.
    pub value: Value,
}

impl Setting {
    /// Reads `a.b=c`. The value is what YAML reads, except that text with `: ` or `#` in it stays one text, and that a key
    /// which takes text takes it as it stands: a hash of digits is no number.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let fail = |message: String| Problem::of_file(format!("--set {text}"), message);
        let Some((key, value)) = text.split_once('=') else {
            return Err(fail("expected KEY=VALUE, for instance --set generate.temperature=0.7".to_string()));
        };
        let path: Vec<String> = key.trim().split('.').map(str::to_string).collect();
        if path.iter().any(String::is_empty) {
            return Err(fail(format!("the key {key:?} is not allowed, expected names with dots between them")));
        }
        if path.len() > MOST_KEYS {
            return Err(fail(format!("the key has {} names, expected at most {MOST_KEYS}", path.len())));
        }
        let is_flow = value.trim_start().starts_with(['{', '[', '"', '\'']);
        let value = match tree::parse_value(value) {
            Ok(parsed) if is_flow => parsed,
            Err(error) if is_flow => return Err(fail(format!("the value does not parse: {}", error.message))),
            Ok(Value::Bool(_) | Value::Number(_)) if schema::is_text(&path) => Value::String(value.to_string()),
            Ok(parsed @ (Value::Null | Value::Bool(_) | Value::Number(_))) => parsed,
            _ => Value::String(value.to_string()),
        };
        Ok(Self { text: text.to_string(), path, value })
    }
}

/// All `settings` as one tree to lay over `base`; a later one wins.
///
/// # Errors
/// A path that leads through something that is not a map.
pub(super) fn overlay(base: &Map<String, Value>, settings: &[Setting]) -> Result<Map<String, Value>, Problem> {
    let mut over = Map::new();
    for setting in settings {
        walkable(base, setting)?;
        walkable(&over, setting)?;
        put(&mut over, &setting.path, setting.value.clone());
    }
    Ok(over)
}

fn put(map: &mut Map<String, Value>, path: &[String], value: Value) {
    let Some((key, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        map.insert(key.clone(), value);
        return;
    }
    let slot = map.entry(key.clone()).or_insert(Value::Null);
    if slot.is_null() {
        *slot = Value::Object(Map::new());
    }
    if let Value::Object(inner) = slot {
        put(inner, rest, value);
    }
}

fn walkable(tree: &Map<String, Value>, setting: &Setting) -> Result<(), Problem> {
    let mut map = tree;
    for (i, key) in setting.path.iter().enumerate().take(setting.path.len() - 1) {
        match map.get(key) {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Object(inner)) => map = inner,
            Some(other) => {
                let so_far = setting.path[..=i].join(".");
                let what = if other.is_array() { "a list, which is set as a whole" } else { "a value without keys" };
                let message = format!("{so_far:?} is {what}: {}", shown(other));
                return Err(Problem::of_file(format!("--set {}", setting.text), message));
            }
        }
    }
    Ok(())
}

/// Puts `folder` before every relative path in `tree`.
pub(super) fn rebase(tree: &mut Map<String, Value>, folder: &Path) {
    if !folder.as_os_str().is_empty() {
        change_paths(tree, &|path| folder.join(path));
    }
}

/// Puts the home folder in the place of `~` in front of every path in `tree`.
pub(super) fn expand_home(tree: &mut Map<String, Value>) {
    change_paths(tree, &in_home);
}

/// A path, with the home folder in the place of `~` in front.
pub(super) fn in_home(path: &Path) -> PathBuf {
    environment::with_home(&environment::variable, path)
}

/// Changes every path in `tree`: what the schema calls a path, and weights that lie at one.
fn change_paths(tree: &mut Map<String, Value>, change: &dyn Fn(&Path) -> PathBuf) {
    let schema = schema::config();
    for (key, value) in tree {
        if let Some(of_key) = schema["properties"].get(key) {
            change_value(value, of_key, schema, change);
        }
    }
}

fn change_value(value: &mut Value, schema: &Value, root: &Value, change: &dyn Fn(&Path) -> PathBuf) {
    let Some(schema) = resolved(schema, root) else { return };
    let is_path = match (&*value, schema.get("format").and_then(Value::as_str)) {
        (Value::String(text), Some("path")) => !text.is_empty(),
        (Value::String(text), Some("weights")) => text.parse::<WeightSpec>().is_ok_and(|spec| spec.local().is_some()),
        _ => false,
    };
    match value {
        Value::String(text) if is_path => *text = change(Path::new(text)).to_string_lossy().into_owned(),
        Value::Object(map) => {
            for (key, value) in map {
                if let Some(of_key) = schema.get("properties").and_then(|all| all.get(key)) {
                    change_value(value, of_key, root, change);
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                schema.get("items").into_iter().for_each(|items| change_value(value, items, root, change));
            }
        }
        _ => {}
    }
    // An option for text has no say about a map, and the other way round.
    for option in options(schema) {
        let types = option.get("type").and_then(Value::as_str);
        if types.is_none_or(|name| (name == "string") == value.is_string()) {
            change_value(value, option, root, change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn maps_merge_lists_are_replaced_null_removes() {
        let check = |base: Value, over: Value, expected: Value| {
            let mut base = map(base);
            merge(&mut base, map(over));
            assert_eq!(Value::Object(base), expected);
        };
        check(json!({"a": {"x": 1, "y": 2}}), json!({"a": {"y": 3, "z": 4}}), json!({"a": {"x": 1, "y": 3, "z": 4}}));
        check(json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]}));
        check(json!({"a": {"x": 1, "y": 2}}), json!({"a": {"x": null}, "b": null}), json!({"a": {"y": 2}}));
        check(json!({}), json!({"a": {"x": {"y": null}}}), json!({"a": {"x": {}}}));
        check(json!({"a": 1}), json!({"a": {"x": 1}}), json!({"a": {"x": 1}}));
        let component = json!({"encoder": {"kind": "beit", "model": "m", "weights": "w"}});
        check(component.clone(), json!({"encoder": {"kind": "toy"}}), json!({"encoder": {"kind": "toy"}}));
        check(
            component.clone(),
            json!({"encoder": {"kind": "beit", "weights": null}}),
            json!({"encoder": {"kind": "beit", "model": "m"}}),
        );
        check(
            component,
            json!({"encoder": {"model": "n"}}),
            json!({"encoder": {"kind": "beit", "model": "n", "weights": "w"}}),
        );
    }

    #[test]
    fn values_of_set_are_what_yaml_reads() {
        let check = |text: &str, expected: Value| assert_eq!(Setting::parse(text).unwrap().value, expected, "{text}");
        check("a=0.7", json!(0.7));
        check("a=3", json!(3));
        check("a=true", json!(true));
        check("a=", json!(null));
        check("a=null", json!(null));
        check("a=random:1", json!("random:1"));
        check("a=Q: what is this? A:", json!("Q: what is this? A:"));
        check("a=- x #y", json!("- x #y"));
        check("a='5'", json!("5"));
        check("a=[0.9, 0.95]", json!([0.9, 0.95]));
        check("a={x: 1}", json!({"x": 1}));
        check("a=b=c", json!("b=c"));
    }

    #[test]
    fn wrong_sets_have_their_messages() {
        let base = map(json!({"prompt": "A", "plugins": ["x"]}));
        let check = |texts: &[&str], expected: &str| {
            let settings: Result<Vec<Setting>, Problem> = texts.iter().map(|t| Setting::parse(t)).collect();
            let problem = settings.and_then(|s| overlay(&base, &s)).unwrap_err();
            assert_eq!(problem.to_string(), expected);
        };
        check(&["a.b"], "--set a.b: expected KEY=VALUE, for instance --set generate.temperature=0.7");
        check(&["=1"], "--set =1: the key \"\" is not allowed, expected names with dots between them");
        check(&["a..b=1"], "--set a..b=1: the key \"a..b\" is not allowed, expected names with dots between them");
        check(&["prompt.x=1"], "--set prompt.x=1: \"prompt\" is a value without keys: \"A\"");
        check(&["plugins.0=y"], "--set plugins.0=y: \"plugins\" is a list, which is set as a whole: [\"x\"]");
        check(&["a=1", "a.b=2"], "--set a.b=2: \"a\" is a value without keys: 1");
        let deep = Setting::parse(&format!("{}=1", vec!["a"; 40_000].join("."))).unwrap_err().message;
        assert_eq!(deep, "the key has 40000 names, expected at most 32");
        assert!(Setting::parse("a=[1").unwrap_err().to_string().starts_with("--set a=[1: the value does not parse: "));
    }

    #[test]
    fn the_order_of_sets_matters_only_where_they_meet() {
        let base = map(json!({"encoder": {"kind": "beit", "model": "m"}}));
        let check = |texts: &[&str], expected: Value| {
            let settings: Vec<Setting> = texts.iter().map(|t| Setting::parse(t).unwrap()).collect();
            let mut tree = base.clone();
            let over = overlay(&base, &settings).unwrap();
            merge(&mut tree, over);
            assert_eq!(Value::Object(tree), expected);
        };
        check(&["encoder.kind=toy", "encoder.side=1"], json!({"encoder": {"kind": "toy", "side": 1}}));
        check(&["encoder.side=1", "encoder.kind=toy"], json!({"encoder": {"kind": "toy", "side": 1}}));
        check(&["encoder.side=1", "encoder.side=2"], json!({"encoder": {"kind": "beit", "model": "m", "side": 2}}));
    }

    #[test]
    fn paths_move_with_their_tree() {
        let mut tree = map(json!({
            "encoder": {"weights": "hf:a/b"}, "stitch": {"weights": "p.ckpt"}, "decoder": {"weights": "random:1", "tokenizer": "/t"},
            "data": {"path": "d"}, "plugins": ["a.so", {"path": "b.so"}],
            "train": {"output": "o", "validate": {"every": 3, "data": {"path": "v", "features": "f"}}},
        }));
        rebase(&mut tree, Path::new("base"));
        let expected = json!({
            "encoder": {"weights": "hf:a/b"}, "stitch": {"weights": "base/p.ckpt"}, "decoder": {"weights": "random:1", "tokenizer": "/t"},
            "data": {"path": "base/d"}, "plugins": ["base/a.so", {"path": "base/b.so"}],
            "train": {"output": "base/o", "validate": {"every": 3, "data": {"path": "base/v", "features": "base/f"}}},
        });
        assert_eq!(Value::Object(tree), expected);
    }
}
