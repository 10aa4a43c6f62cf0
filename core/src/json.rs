//! JSON as Python's `json` writes it, with NaN, Infinity and -Infinity, which JSON has no word for.

use serde_json::{Result, Value};

/// The three, the longest first where one begins as another.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// `text` as a tree. One of Python's numbers becomes a text of its name: who asks for a number refuses it by its key, and
/// who does not ask never sees it.
///
/// # Errors
/// A text that is no JSON either way, with the place in it.
pub fn parse(text: &str) -> Result<Value> {
    serde_json::from_str(text).or_else(|error| serde_json::from_str(&quoted(text)).map_err(|_| error))
}

/// `text` with Python's numbers outside of strings in quotes.
fn quoted(text: &str) -> String {
    let (mut out, mut rest, mut inside) = (String::with_capacity(text.len()), text, false);
    while let Some(c) = rest.chars().next() {
        let word = WORDS.iter().find(|word| !inside && rest.starts_with(**word));
        let taken = match (word, c) {
            (Some(word), _) => {
                out.extend(["\"", word, "\""]);
                rest = &rest[word.len()..];
                continue;
            }
            // What follows a backslash is part of the string.
            (None, '\\') if inside => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
            (None, c) => c.len_utf8(),
        };
        inside ^= c == '"';
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pythons_numbers_are_texts_and_others_are_as_they_were() {
        let text = r#"{"a": [0.0, Infinity], "b": -Infinity, "NaN": NaN, "c": "Infinity \\\" NaN", "d": 1}"#;
        let expected =
            json!({"a": [0.0, "Infinity"], "b": "-Infinity", "NaN": "NaN", "c": "Infinity \\\" NaN", "d": 1});
        assert_eq!(parse(text).unwrap(), expected);
        assert_eq!(parse("{\"a\": 1}").unwrap(), json!({"a": 1}));
        for text in ["{\"a\": Infinit}", "{", "", "{\"a\": nan}", "\"\\"] {
            let plain = serde_json::from_str::<Value>(text).unwrap_err().to_string();
            assert_eq!(parse(text).unwrap_err().to_string(), plain);
        }
    }
}
