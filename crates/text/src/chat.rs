//! `ChatTemplate`: a conversation as the text that an instruction-tuned model was trained on, by the Jinja template of its
//! tokenizer.
//!
//! Rendered as transformers' `apply_chat_template(..., tokenize=False)` renders it: `trim_blocks` and `lstrip_blocks`, Python's
//! methods of strings and maps, `raise_exception`, `strftime_now`, `tojson` as Python's `json.dumps` writes it, `break` and
//! `continue`; `{% generation %}` marks are passed over.

use anyhow::{Context, Result, anyhow};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{Environment, Error, ErrorKind, context};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Most steps of a template: one without an end is an error.
const FUEL: u64 = 20_000_000;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaker {
    /// What goes before a conversation.
    System,
    /// Who asks.
    User,
    /// Who answers.
    Assistant,
}

/// What one says in a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Who says it.
    pub role: Speaker,
    /// What is said.
    pub content: String,
}

impl Message {
    /// What `role` says.
    pub fn new(role: Speaker, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// A tokenizer's chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token` and the like, by name.
    special: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// The template of a text; `special` holds the tokenizer's special tokens by name.
    ///
    /// # Errors
    /// A text that is no Jinja template.
    pub fn new(source: &str, special: BTreeMap<String, String>) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.context("the syntax of chat templates")?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| -> Result<String, Error> {
            let mut now = String::new();
            match write!(now, "{}", chrono::Local::now().format(&format)) {
                Ok(()) => Ok(now),
                Err(_) => {
                    Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now has no format {format:?}")))
                }
            }
        });
        environment.add_filter("tojson", to_json);
        let source = without_generation_marks(source);
        environment.add_template_owned("chat", source).map_err(|e| described("is not a template", &e))?;
        Ok(Self { environment, special })
    }

    /// The text of a conversation; with `generation_prompt` it ends where an answer begins.
    ///
    /// # Errors
    /// What the template refuses, in its own words.
    pub fn render(&self, messages: &[Message], generation_prompt: bool) -> Result<String> {
        let template = self.environment.get_template("chat").context("the chat template")?;
        let values = context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt => generation_prompt,
            tools => Value::from(()),
            documents => Value::from(()),
            ..Value::from(Serde(&self.special))
        };
        template.render(values).map_err(|e| described("refuses the conversation", &e))
    }
}

fn described(what: &str, error: &Error) -> anyhow::Error {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    match error.line() {
        Some(line) => anyhow!("the tokenizer's chat template {what}: line {line}: {detail}"),
        None => anyhow!("the tokenizer's chat template {what}: {detail}"),
    }
}

/// The template with the marks around what an assistant says, which only transformers' training reads, as blocks that are
/// always taken.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let inner = &rest[start + 2..start + length];
        let word = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let by = match word {
            "generation" => Some("if true"),
            "endgeneration" => Some("endif"),
            _ => None,
        };
        out.push_str(&rest[..start + 2]);
        match by {
            Some(by) => out.push_str(&inner.replacen(word, by, 1)),
            None => out.push_str(inner),
        }
        out.push_str("%}");
        rest = &rest[start + length + 2..];
    }
    out + rest
}

/// `value | tojson(indent=N)` as `json.dumps(value, ensure_ascii=False, indent=N)` writes it.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    // What else transformers' filter takes; maps keep their order.
    let _: (Option<bool>, Option<bool>) = (options.get("ensure_ascii")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    let mut bytes = Vec::new();
    let written = match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent.min(64));
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        }
        None => {
            let separators = separators.unwrap_or_else(|| vec![", ".to_string(), ": ".to_string()]);
            let [items, keys] = separators.as_slice() else {
                return Err(Error::new(ErrorKind::InvalidOperation, "tojson takes two separators"));
            };
            let formatter = Separated { items: items.as_bytes(), keys: keys.as_bytes() };
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        }
    };
    let failed = |e: &dyn std::fmt::Display| Error::new(ErrorKind::BadSerialization, e.to_string());
    written.map_err(|e| failed(&e))?;
    let text = String::from_utf8(bytes).map_err(|e| failed(&e))?;
    // No page is written: nothing is escaped for one.
    Ok(Value::from_safe_string(text))
}

/// JSON on one line with separators of its own: Python writes a space behind commas and colons.
struct Separated<'a> {
    items: &'a [u8],
    keys: &'a [u8],
}

impl Formatter for Separated<'_> {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.items) }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(self.items) }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str) -> Result<String> {
        let special = BTreeMap::from([("bos_token".to_string(), "<s>".to_string())]);
        let hello = [Message::new(Speaker::User, "Hi <b>&'\""), Message::new(Speaker::Assistant, "Hello")];
        ChatTemplate::new(source, special)?.render(&hello, true)
    }

    #[test]
    fn templates_have_what_transformers_gives_them() {
        for (source, expected) in [
            (
                "{{ bos_token }}{% for m in messages %}\n  {{ m.role }}:{{ m['content'] }}\n{% endfor %}",
                "<s>  user:Hi <b>&'\"\n  assistant:Hello\n",
            ),
            (
                "{{ messages | tojson }}",
                "[{\"role\": \"user\", \"content\": \"Hi <b>&'\\\"\"}, {\"role\": \"assistant\", \"content\": \"Hello\"}]",
            ),
            ("{{ {'a': [1, 'é']} | tojson(indent=2) }}", "{\n  \"a\": [\n    1,\n    \"é\"\n  ]\n}"),
            (
                "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.content.split(' ')[0].lower() }}{% endfor %}",
                "hi",
            ),
            ("{%- for m in messages[::-1] %}{{- m.role.startswith('a') }} {% endfor %}{{ unknown }}", "True False "),
            ("a\n  {%- generation %}b{% endgeneration -%}\n c", "abc"),
            ("{% if tools is none and add_generation_prompt %}{{ strftime_now('%Y') | length }}{% endif %}", "4"),
        ] {
            assert_eq!(rendered(source).unwrap(), expected, "{source}");
        }
    }

    #[test]
    fn what_a_template_refuses_is_told() {
        for (source, expected) in [
            ("{{ raise_exception('roles must alternate') }}", "refuses the conversation: line 1: roles must alternate"),
            ("{% for %}", "is not a template: line 1: "),
            (
                "{% for i in range(100000) %}{% for j in range(100000) %}{{ j }}{% endfor %}{% endfor %}",
                "engine ran out of fuel",
            ),
        ] {
            let message = rendered(source).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
