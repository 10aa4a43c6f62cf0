//! The section `eval`: how data become prompts, and where an answer ends.

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// How a model is evaluated. Templates hold `<image>` and, in braces, what the data fill in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Eval {
    /// One question: `{question}` and `{answer}`; the prompt ends where the answer would begin.
    #[serde(deserialize_with = "question")]
    pub question: String,
    /// One caption, `{caption}`; by default the image, the config's prompt, the caption.
    #[serde(deserialize_with = "caption", skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// What stands between two examples, and before the last prompt.
    pub separator: String,
    /// An answer or a caption ends before the first of these, whatever the model says behind it.
    #[schemars(inner(length(min = 1)))]
    pub stop: Vec<String>,
    /// Maximum number of tokens of an answer; captions have `generate.max_tokens`.
    #[schemars(range(min = 1))]
    pub answer_tokens: usize,
}

impl Default for Eval {
    fn default() -> Self {
        Self {
            question: "<image>Q: {question} A: {answer}".into(),
            caption: None,
            separator: " ".into(),
            stop: vec!["\n".into(), "Q:".into(), "<|image|>".into()],
            answer_tokens: 16,
        }
    }
}

fn question<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    template(String::deserialize(deserializer)?, &["{question}", "{answer}"])
}

fn caption<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| template(text, &["{caption}"])).transpose()
}

/// A template that holds each of `blanks` once.
fn template<E: Error>(text: String, blanks: &[&str]) -> Result<String, E> {
    let fail = |expected: String| E::custom(format_args!("value {text:?} is not allowed, expected {expected}"));
    if let Some(blank) = blanks.iter().find(|blank| text.matches(**blank).count() != 1) {
        return Err(fail(format!("{blank} in it once")));
    }
    if text.matches("<image>").count() > 1 {
        return Err(fail("<image> in it at most once".to_string()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use limber_core::settings;
    use serde_json::{Value, json};

    #[test]
    fn templates_are_checked() {
        let check = |value: Value, expected: &[(&str, &str)]| {
            let found: Vec<(String, String)> =
                settings::read::<Eval>(value).1.into_iter().map(|v| (v.key(), v.message)).collect();
            let found: Vec<(&str, &str)> =
                found.iter().map(|(key, message)| (key.as_str(), message.as_str())).collect();
            assert_eq!(found, expected);
        };
        check(json!(null), &[]);
        check(json!({"question": "{question}? {answer}", "caption": "<image>It is {caption}", "stop": []}), &[]);
        check(
            json!({"question": "Q: {question}", "caption": "<image><image>{caption}"}),
            &[
                ("question", "value \"Q: {question}\" is not allowed, expected {answer} in it once"),
                ("caption", "value \"<image><image>{caption}\" is not allowed, expected <image> in it at most once"),
            ],
        );
        check(json!({"stop": "x"}), &[("stop", "value \"x\" is not allowed, expected a list, each text")]);
        let empty = "value \"\" is not allowed, expected text that is not empty";
        check(json!({"stop": ["x", ""]}), &[("stop.1", empty)]);
    }
}
