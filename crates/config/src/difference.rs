//! Where two trees differ: one run may only go on with what another began where nothing differs that counts.

use serde_json::Value;

/// A key whose values differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Its path, dotted.
    pub key: String,
    /// The value in the first tree, null where it is absent.
    pub before: Value,
    /// The value in the second, null where it is absent.
    pub now: Value,
}

/// Every key whose values differ, in the order of the first tree, then of the second; maps are looked into.
pub fn differences(before: &Value, now: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(String::new(), before, now, &mut found);
    found
}

fn walk(key: String, before: &Value, now: &Value, found: &mut Vec<Difference>) {
    if before == now {
        return;
    }
    let (Value::Object(a), Value::Object(b)) = (before, now) else {
        found.push(Difference { key, before: before.clone(), now: now.clone() });
        return;
    };
    for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
        let inside = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        walk(inside, a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null), found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_dotted_and_in_order() {
        let before = json!({"b": {"x": 1, "y": [1]}, "a": 2, "gone": true, "same": {"z": null}});
        let now = json!({"a": 2, "b": {"x": 2, "y": [1]}, "new": {"k": 0}, "same": {}});
        let found = differences(&before, &now);
        let keys: Vec<&str> = found.iter().map(|d| d.key.as_str()).collect();
        assert_eq!(keys, ["b.x", "gone", "new"]);
        assert_eq!((&found[0].before, &found[0].now), (&json!(1), &json!(2)));
        assert_eq!((&found[2].before, &found[2].now), (&Value::Null, &json!({"k": 0})));
        assert_eq!(differences(&json!(1), &json!(2))[0].key, "");
    }
}
