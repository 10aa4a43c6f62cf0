//! YAML and TOML text to one tree and back: the only module that touches `serde_yaml` and `toml`.
//!
//! The tree is a [`serde_json::Value`] that keeps the order of keys. A key that stands twice in one map is an error,
//! as is a key that is not text. The merge key `<<` gives a map the keys of another, or of several, that it lacks.
//! A number that is not finite becomes text (`NaN`, `inf`), which no number field takes.

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;
use std::path::Path;

/// How a config is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2, JSON among it.
    Yaml,
    /// TOML 1.0.
    Toml,
}

impl Format {
    /// The format of `text`: by the extension of `path`, by the first line with content where that says nothing.
    pub fn of(path: &Path, text: &str) -> Self {
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        match extension.as_deref() {
            Some("yaml" | "yml" | "json") => Format::Yaml,
            Some("toml") => Format::Toml,
            _ => Self::of_content(text),
        }
    }

    fn of_content(text: &str) -> Self {
        let first = text.lines().map(str::trim).find(|l| !l.is_empty() && !l.starts_with('#')).unwrap_or("");
        let equals = first.find('=').unwrap_or(usize::MAX);
        let colon = first.find(':').unwrap_or(usize::MAX);
        if first.starts_with('[') || equals < colon { Format::Toml } else { Format::Yaml }
    }
}

/// Text that is neither, or a key that stands twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line and column, both counted from 1.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
}

/// `text` as a tree. Text without any content is an empty map.
///
/// # Errors
/// Text that does not parse, a key that stands twice, a key that is not text, a date.
pub fn parse(text: &str, format: Format) -> Result<Value, SyntaxError> {
    match read(text, format, Node::top(None))? {
        Value::Null => Ok(Value::Object(Map::new())),
        value => Ok(value),
    }
}

/// One YAML value, as `--set` takes it; nothing at all is null.
///
/// # Errors
/// Text that does not parse.
pub fn parse_value(text: &str) -> Result<Value, SyntaxError> {
    read(text, Format::Yaml, Node::top(None))
}

/// Line and column at which the key at `path` stands in `text`.
pub fn locate(text: &str, format: Format, path: &[&str]) -> Option<(usize, usize)> {
    if path.is_empty() {
        return None;
    }
    // Reading stops with an error at the wanted key, and errors know where they are.
    match read(text, format, Node::top(Some(path))) {
        Err(error) if error.message.ends_with(FOUND) => error.at,
        _ => None,
    }
}

/// `value` as YAML that [`parse`] reads back as an equal tree.
pub fn to_yaml(value: &Value) -> String {
    serde_yaml::to_string(value).expect("a JSON tree has text keys alone, which YAML can always write")
}

const FOUND: &str = "the wanted key stands here";

/// YAML's merge key.
const MERGE: &str = "<<";

/// Most maps and lists inside each other; settings nest a few levels at most.
const DEEPEST: usize = 100;

/// Most braces and brackets of a YAML text that may be open at once, those in its texts among them: the time that its
/// parser takes grows with the square of their number.
const MOST_OPEN: usize = 1000;

/// Refuses a YAML text with more open braces than it can mean.
fn check_open(text: &str) -> Result<(), SyntaxError> {
    let (mut open, mut line, mut start) = (0usize, 1, 0);
    for (i, byte) in text.bytes().enumerate() {
        match byte {
            b'{' | b'[' => open += 1,
            b'}' | b']' => open = open.saturating_sub(1),
            b'\n' => (line, start) = (line + 1, i + 1),
            _ => {}
        }
        if open > MOST_OPEN {
            let message = format!("more than {MOST_OPEN} braces and brackets are open here");
            return Err(SyntaxError {
                at: Some((line, text.get(start..i).map_or(i - start, |t| t.chars().count()) + 1)),
                message,
            });
        }
    }
    Ok(())
}

fn read(text: &str, format: Format, node: Node) -> Result<Value, SyntaxError> {
    if format == Format::Yaml {
        check_open(text)?;
    }
    match format {
        Format::Yaml => node.deserialize(serde_yaml::Deserializer::from_str(text)).map_err(|error| {
            let at = error.location().map(|l| (l.line(), l.column()));
            let message = error.to_string();
            let tail = at.map(|(line, column)| format!(" at line {line} column {column}")).unwrap_or_default();
            let message = message.strip_suffix(&tail).unwrap_or(&message);
            // The location says where; the path of a deep one has a name for each of its levels.
            let message = message.find("more than ").map_or(message, |start| &message[start..]);
            SyntaxError { at, message: message.to_string() }
        }),
        Format::Toml => toml::Deserializer::parse(text).and_then(|d| node.deserialize(d)).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let at =
                before.map(|b| (b.matches('\n').count() + 1, b.chars().rev().take_while(|c| *c != '\n').count() + 1));
            SyntaxError { at, message: error.message().to_string() }
        }),
    }
}

/// Reads one value; with `wanted` it fails at the key of that path.
#[derive(Clone, Copy)]
struct Node<'p> {
    wanted: Option<&'p [&'p str]>,
    /// Maps and lists around it.
    depth: usize,
}

impl<'p> Node<'p> {
    fn top(wanted: Option<&'p [&'p str]>) -> Self {
        Self { wanted, depth: 0 }
    }

    /// What lies in this map or list.
    fn inside<E: serde::de::Error>(self, wanted: Option<&'p [&'p str]>) -> Result<Self, E> {
        if self.depth >= DEEPEST {
            return Err(E::custom(format_args!("more than {DEEPEST} maps and lists lie inside each other")));
        }
        Ok(Self { wanted, depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a map, a list, text, a number, true, false or null")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        let inside = self.inside(None)?;
        while let Some(value) = access.next_element_seed(inside)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key_seed(Key { there: &map, wanted: self.wanted })? {
            if key == "$__toml_private_datetime" {
                return Err(A::Error::custom("a date has no meaning in a config; write it in quotes"));
            }
            let wanted = self.wanted.filter(|w| w.first() == Some(&key.as_str())).map(|w| &w[1..]);
            let value = access.next_value_seed(self.inside(wanted)?)?;
            map.insert(key, value);
        }
        if let Some(merged) = map.shift_remove(MERGE) {
            merge(&mut map, merged).map_err(A::Error::custom)?;
        }
        Ok(Value::Object(map))
    }
}

/// Adds the keys of `merged`, a map or a list of maps, that `map` and the maps before in the list lack.
fn merge(map: &mut Map<String, Value>, merged: Value) -> Result<(), String> {
    match merged {
        Value::Object(other) => {
            for (key, value) in other {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(list) if list.iter().all(Value::is_object) => {
            list.into_iter().try_for_each(|other| merge(map, other))
        }
        other => Err(format!("the merge key {MERGE:?} has the value {other}, expected a map or a list of maps")),
    }
}

/// Reads one key of a map, so that an error about the key stands where the key stands.
struct Key<'m, 'p> {
    there: &'m Map<String, Value>,
    wanted: Option<&'p [&'p str]>,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_, '_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key that is text")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        if self.wanted == Some(&[key]) {
            return Err(E::custom(FOUND));
        }
        if self.there.contains_key(key) {
            return Err(E::custom(format_args!("key {key:?} stands twice")));
        }
        Ok(key.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_and_toml_give_one_tree() {
        let yaml = "b: {y: 1, x: [0.5, true]}\na: 'text'\n";
        let toml = "b = {y = 1, x = [0.5, true]}\na = 'text'\n";
        let tree = parse(yaml, Format::Yaml).unwrap();
        assert_eq!(tree, json!({"b": {"y": 1, "x": [0.5, true]}, "a": "text"}));
        assert_eq!(tree.to_string(), parse(toml, Format::Toml).unwrap().to_string(), "the order of keys as well");
        assert_eq!(parse(&to_yaml(&tree), Format::Yaml).unwrap().to_string(), tree.to_string());
        assert_eq!(parse("# nothing\n", Format::Yaml).unwrap(), json!({}));
    }

    #[test]
    fn the_merge_key_gives_what_a_map_lacks() {
        let yaml = "a: &a {x: 1, y: {z: 2}}\nb: &b {<<: *a, x: 3, v: 4}\nc:\n  y: 5\n  <<: [*b, *a]\n  w: 6\n";
        let expected = json!({
            "a": {"x": 1, "y": {"z": 2}},
            "b": {"x": 3, "v": 4, "y": {"z": 2}},
            "c": {"y": 5, "w": 6, "x": 3, "v": 4},
        });
        assert_eq!(parse(yaml, Format::Yaml).unwrap().to_string(), expected.to_string());
        assert_eq!(locate(yaml, Format::Yaml, &["c", "w"]), Some((6, 3)));
        for (value, shown) in [("3", "3"), ("[{x: 1}, y]", "[{\"x\":1},\"y\"]"), ("", "null")] {
            let error = parse(&format!("a: 1\nb:\n  <<: {value}\n"), Format::Yaml).unwrap_err();
            let expected = format!("the merge key \"<<\" has the value {shown}, expected a map or a list of maps");
            assert_eq!((error.message, error.at), (format!("b: {expected}"), Some((3, 3))));
        }
        let twice = parse("a: {<<: {x: 1}, <<: {y: 1}}", Format::Yaml).unwrap_err();
        assert!(twice.message.contains("key \"<<\" stands twice"), "{twice:?}");
    }

    #[test]
    fn the_format_is_known_by_extension_then_content() {
        let check = |path: &str, text: &str, expected: Format| assert_eq!(Format::of(Path::new(path), text), expected);
        check("a.yml", "x = 1", Format::Yaml);
        check("a.toml", "x: 1", Format::Toml);
        check("config", "# a = b\n\nx: a=b", Format::Yaml);
        check("config", "x = 'a:b'", Format::Toml);
        check("config", "[train]\nsteps = 1", Format::Toml);
        check("config", "{ # flow\n encoder_name: 'clip' }", Format::Yaml);
    }

    #[test]
    fn errors_name_line_and_column() {
        let check = |text: &str, format: Format, at: (usize, usize), part: &str| {
            let error = parse(text, format).unwrap_err();
            assert!(error.message.contains(part), "{error:?} lacks {part:?}");
            assert_eq!(error.at, Some(at), "{error:?}");
        };
        check("a: 1\nb: {x: 1,\n  x: 2}\n", Format::Yaml, (3, 3), "key \"x\" stands twice");
        check("a = 1\n[b]\nx = 1\nx = 2\n", Format::Toml, (4, 1), "duplicate key");
        check("a: 1\nb: [1, 2\n", Format::Yaml, (3, 1), "did not find expected ',' or ']'");
        check("a = \n", Format::Toml, (1, 5), "");
        check("a: 1\n7: 2\n", Format::Yaml, (2, 1), "a key that is text");
        check("a: !tag 2\n", Format::Yaml, (1, 4), "expected a map, a list");
        check("a = 2024-01-01\n", Format::Toml, (1, 5), "a date has no meaning");
        let error = parse("a: 1\n---\nb: 1\n", Format::Yaml).unwrap_err();
        assert!(error.message.contains("more than one document"), "{error:?}");
    }

    #[test]
    fn deep_and_exploding_documents_are_errors() {
        for (opening, format) in [
            ("[", Format::Yaml),
            ("{a: ", Format::Yaml),
            ("{\"a\":", Format::Yaml),
            ("- ", Format::Yaml),
            ("[", Format::Toml),
            ("{a=", Format::Toml),
        ] {
            for times in [200, 100_000] {
                let deep = opening.repeat(times);
                let text = if format == Format::Toml { format!("a = {deep}") } else { deep };
                let error = parse(&text, format).unwrap_err();
                assert!(error.message.len() < 200, "{error:?}");
            }
        }
        for times in [2, 100_000] {
            let tables = format!("[{}a]\nb = 1", "a.".repeat(times));
            assert_eq!(parse(&tables, Format::Toml).is_ok(), times == 2);
        }
        let wide = format!("a: {}1{}", "[".repeat(DEEPEST), "]".repeat(DEEPEST));
        assert!(parse(&wide, Format::Yaml).unwrap_err().message.contains("more than 100 maps and lists lie inside"));
        let error = parse(&format!("x: 1\na: é{}", "{a: ".repeat(1001)), Format::Yaml).unwrap_err();
        assert_eq!(
            (error.at, error.message.as_str()),
            (Some((2, 4005)), "more than 1000 braces and brackets are open here")
        );
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_string();
        for i in 1..30 {
            laughs += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", "));
        }
        let error = parse(&laughs, Format::Yaml).unwrap_err();
        assert!(error.message.contains("repetition limit"), "{error:?}");
    }

    #[test]
    fn numbers_that_are_not_finite_stay_visible() {
        assert_eq!(parse("[.nan, -.inf]", Format::Yaml).unwrap(), json!(["NaN", "-inf"]));
        assert_eq!(parse("a = [nan, inf]", Format::Toml).unwrap(), json!({"a": ["NaN", "inf"]}));
    }

    #[test]
    fn a_key_is_found_again() {
        let yaml = "prompt: x\ntrain:\n  lr: 1\n  steps: 2\n";
        assert_eq!(locate(yaml, Format::Yaml, &["train", "steps"]), Some((4, 3)));
        assert_eq!(locate("{prompt: x,\n train: {lr: 1}}", Format::Yaml, &["train", "lr"]), Some((2, 10)));
        assert_eq!(locate("a = 1\n[train]\nlr = 1\n", Format::Toml, &["train", "lr"]), Some((3, 1)));
        assert_eq!(locate(yaml, Format::Yaml, &["train", "clip"]), None);
        assert_eq!(locate(yaml, Format::Yaml, &["lr"]), None);
    }
}
