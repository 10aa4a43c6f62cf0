//! How messages about settings speak: a value as it is shown, what is expected instead, a name that was meant.

use crate::weights::{distance, nearest};
use serde_json::Value;

/// Most characters of a value that a message shows.
const SHOWN: usize = 80;

/// `value` as messages show it: JSON, cut where it is long.
pub fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) if matches!(text.as_str(), "NaN" | "inf" | "-inf") => text.clone(),
        _ => value.to_string(),
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// `a`, `a or b`, `a, b or c`.
pub fn or(names: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => one.to_string(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

/// ` (did you mean "x"?)`, or nothing where no expected name is near.
pub fn did_you_mean(name: &str, expected: &[impl AsRef<str>]) -> String {
    // Names are short; what is longer is no slip of the pen.
    let near = nearest(name, expected.iter().map(AsRef::as_ref).filter(|_| name.len() <= 100), 1).first().copied();
    match near.map(|near| (near, distance(name, near))) {
        Some((near, d)) if d > 0 && d <= 2.max(name.len() / 3) && 2 * d <= name.len().max(near.len()) => {
            format!(" (did you mean {near:?}?)")
        }
        _ => String::new(),
    }
}

/// `unknown key` with the nearest expected one, where it is near enough to be meant, and all expected ones.
pub fn unknown_key(key: &str, expected: &[impl AsRef<str>]) -> String {
    let names: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => "unknown key; no key is expected here".to_string(),
        names => format!("unknown key{}; expected keys: {}", did_you_mean(key, names), names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let check = |key: &str, expected: &[&str], message: &str| assert_eq!(unknown_key(key, expected), message);
        check("learning", &["lr", "steps"], "unknown key; expected keys: lr, steps");
        check("stpes", &["lr", "steps"], "unknown key (did you mean \"steps\"?); expected keys: lr, steps");
        check(
            "weight-decay",
            &["weight_decay"],
            "unknown key (did you mean \"weight_decay\"?); expected keys: weight_decay",
        );
        check("x", &[], "unknown key; no key is expected here");
    }

    #[test]
    fn long_values_are_cut_and_names_are_listed() {
        assert_eq!(shown(&Value::from("é".repeat(100))), format!("\"{}...", "é".repeat(79)));
        assert_eq!(shown(&Value::from("NaN")), "NaN");
        assert_eq!(
            (or(&["a"; 1]), or(&["a", "b"]), or(&["a", "b", "c"])),
            ("a".into(), "a or b".into(), "a, b or c".into())
        );
        assert_eq!(or(&[""; 0]), "");
    }
}
