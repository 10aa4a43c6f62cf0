//! The section `eval`: how data become prompts, and where an answer ends.

use super::problem::Problem;
use super::reader::{Reader, shown};
use serde::Serialize;
use serde_json::Value;

/// The section `eval`. Templates hold `<image>` and, in braces, what the data fill in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Eval {
    /// One question: `{question}` and `{answer}`; the prompt ends where the answer would begin.
    pub question: String,
    /// One caption, `{caption}`; where nothing is said, the image, the config's prompt, the caption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caption: Option<String>,
    /// What stands between two examples, and before the last prompt.
    pub separator: String,
    /// An answer or a caption ends before the first of these, whatever the model says behind it.
    pub stop: Vec<String>,
    /// Most tokens of an answer; captions have `generate.max_tokens`.
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

impl Eval {
    /// The section of a tree.
    pub(super) fn read(value: Value, problems: &mut Vec<Problem>) -> Self {
        let mut r = Reader::new("eval", value, problems);
        let default = Self::default();
        let mut template = |key: &'static str, blanks: &[&str]| {
            let text = r.name(key)?;
            let images = text.matches("<image>").count();
            let missing = blanks.iter().find(|blank| text.matches(**blank).count() != 1);
            if let Some(blank) = missing {
                r.problem(key, format!("value {text:?} is not allowed, must hold {blank} once"));
            } else if images > 1 {
                r.problem(key, format!("value {text:?} is not allowed, must hold <image> at most once"));
            }
            Some(text)
        };
        let question = template("question", &["{question}", "{answer}"]).unwrap_or(default.question);
        let caption = template("caption", &["{caption}"]);
        let stop = match r.take("stop") {
            None => default.stop,
            Some(Value::Array(list)) if list.iter().all(|s| s.as_str().is_some_and(|s| !s.is_empty())) => {
                list.iter().filter_map(Value::as_str).map(String::from).collect()
            }
            Some(other) => {
                r.problem("stop", format!("value {} is not allowed, must be a list of texts", shown(&other)));
                default.stop
            }
        };
        let eval = Self {
            question,
            caption,
            separator: r.text("separator").unwrap_or(default.separator),
            stop,
            answer_tokens: r.size("answer_tokens", 1).unwrap_or(default.answer_tokens),
        };
        r.finish();
        eval
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_are_checked() {
        let check = |value: Value, expected: &[&str]| {
            let mut problems = Vec::new();
            Eval::read(value, &mut problems);
            let messages: Vec<String> = problems.iter().map(Problem::to_string).collect();
            assert_eq!(messages, expected);
        };
        check(json!(null), &[]);
        check(json!({"question": "{question}? {answer}", "caption": "<image>It is {caption}", "stop": []}), &[]);
        check(
            json!({"question": "Q: {question}"}),
            &["section \"eval\", key \"question\": value \"Q: {question}\" is not allowed, must hold {answer} once"],
        );
        check(
            json!({"caption": "<image><image>{caption}"}),
            &[
                "section \"eval\", key \"caption\": value \"<image><image>{caption}\" is not allowed, must hold <image> at most once",
            ],
        );
        check(
            json!({"stop": "x"}),
            &["section \"eval\", key \"stop\": value \"x\" is not allowed, must be a list of texts"],
        );
    }
}
