//! Reads a tree as a type: held against the type's schema first, then deserialised, every problem of both reported.

use super::violations::{Violation, violations};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

/// Most problems that are looked for beyond the schema's: each is found by an attempt of its own.
const MOST_TRIES: usize = 100;

/// Reads `value` as `T`, null as an empty map, and gives everything that is wrong with it. Where something is, the value
/// that is given has defaults in place of what cannot be read; None where that is not enough.
pub fn read<T: DeserializeOwned + JsonSchema>(value: Value) -> (Option<T>, Vec<Violation>) {
    read_as(value, &super::schema::<T>())
}

/// As [`read`], with a schema that may say more than that of `T`.
pub fn read_as<T: DeserializeOwned>(value: Value, schema: &Value) -> (Option<T>, Vec<Violation>) {
    let mut value = if value.is_null() { Value::Object(Default::default()) } else { value };
    let mut found = violations(&value, schema);
    for violation in &found {
        prune(&mut value, &violation.path);
    }
    for _ in 0..MOST_TRIES {
        match serde_path_to_error::deserialize::<_, T>(value.clone()) {
            Ok(typed) => return (Some(typed), found),
            Err(error) => {
                let path: Vec<String> = error.path().iter().filter_map(segment).collect();
                // What was taken out may be missing now, which its own violation says already.
                if !found.iter().any(|v| v.path.starts_with(&path)) {
                    found.push(Violation::new(&path, message(&error.inner().to_string())));
                }
                if !prune(&mut value, &path) {
                    break;
                }
            }
        }
    }
    (None, found)
}

fn segment(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    }
}

/// serde's words as ours.
fn message(text: &str) -> String {
    text.replace('`', "\"").replace("unknown field", "unknown key").replace("missing field", "missing key")
}

/// Takes what lies at `path` out of `value`, the whole list where the path leads into one, since the indices into it
/// count; false where nothing is there to be taken out.
fn prune(value: &mut Value, path: &[String]) -> bool {
    let Some((key, rest)) = path.split_first() else { return false };
    let Value::Object(map) = value else { return false };
    match map.get_mut(key) {
        Some(inner @ Value::Object(_)) if !rest.is_empty() => prune(inner, rest),
        Some(_) => map.shift_remove(key).is_some(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Deserializer};
    use serde_json::json;

    /// What no schema tells.
    fn even<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        match u32::deserialize(deserializer)? {
            n if n % 2 == 0 => Ok(n),
            n => Err(serde::de::Error::custom(format_args!("value {n} is not allowed, expected an even number"))),
        }
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields, default)]
    struct Toy {
        #[serde(deserialize_with = "even")]
        width: u32,
        list: Vec<u32>,
        inner: Option<Inner>,
    }

    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        needed: bool,
        #[serde(default, deserialize_with = "even")]
        size: u32,
    }

    impl Default for Toy {
        fn default() -> Self {
            Self { width: 2, list: vec![7], inner: None }
        }
    }

    fn keys(value: Value) -> (Option<Toy>, Vec<String>) {
        let (toy, found) = read::<Toy>(value);
        (toy, found.iter().map(Violation::key).collect())
    }

    #[test]
    fn all_problems_are_found_and_the_rest_is_read() {
        let toy = |width, list: &[u32], inner| Some(Toy { width, list: list.to_vec(), inner });
        assert_eq!(keys(Value::Null), (toy(2, &[7], None), vec![]));
        let inner = Some(Inner { needed: true, size: 4 });
        let value = json!({"width": 4, "list": [], "inner": {"needed": true, "size": 4}});
        assert_eq!(keys(value), (toy(4, &[], inner), vec![]));
        let (read, found) = keys(json!({"width": 3, "list": [1, -1], "more": 1, "inner": {"needed": 1, "size": 3}}));
        assert_eq!(found, ["list.1", "more", "inner.needed", "width", "inner.size"]);
        assert_eq!(read, toy(2, &[7], None));
        assert_eq!(keys(json!({"inner": {}})), (toy(2, &[7], None), vec!["inner.needed".to_string()]));
        assert_eq!(keys(json!(3)), (None, vec![String::new()]));
    }

    #[test]
    fn what_the_schema_does_not_tell_has_its_own_message() {
        let found = read::<Toy>(json!({"inner": {"needed": true, "size": 5}})).1;
        assert_eq!(
            (found[0].key().as_str(), found[0].message.as_str()),
            ("inner.size", "value 5 is not allowed, expected an even number")
        );
    }
}
