//! The tokens of a file: texts, kinds, scores, and which of them end a text.

use crate::gguf::header::Header;
use crate::gguf::value::{List, Value};

/// Kinds of tokens in `tokenizer.ggml.token_type` and of SentencePiece's pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Found by merging.
    Normal,
    /// Stands for what is no token.
    Unknown,
    /// Recognised in a text and shown nowhere.
    Control,
    /// Recognised in a text.
    User,
    /// Fills the table up.
    Unused,
    /// One byte, `<0x0A>`.
    Byte,
}

impl Kind {
    /// The number in a file.
    pub fn number(self) -> i64 {
        match self {
            Kind::Normal => 1,
            Kind::Unknown => 2,
            Kind::Control => 3,
            Kind::User => 4,
            Kind::Unused => 5,
            Kind::Byte => 6,
        }
    }

    /// The kind of a number in a file.
    pub fn numbered(number: i64) -> Self {
        use Kind::{Byte, Control, Unknown, Unused, User};
        [Unknown, Control, User, Unused, Byte].into_iter().find(|kind| kind.number() == number).unwrap_or(Kind::Normal)
    }
}

/// Tokens that end a text by their name where they are control tokens, as llama.cpp takes them.
const ENDS: [&str; 22] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// The tokens of a file.
pub struct Vocabulary<'a> {
    /// Their texts, by id.
    pub texts: Vec<String>,
    /// Their kinds.
    pub kinds: Vec<Kind>,
    /// Their scores; empty where the file has none.
    pub scores: Vec<f64>,
    header: &'a Header<'a>,
}

impl<'a> Vocabulary<'a> {
    /// The tokens that the metadata lists; None where it lists none.
    pub fn read(header: &'a Header) -> Option<Self> {
        let list = |key: &str| header.metadata.get(key).and_then(Value::list);
        let texts: Vec<String> = list("tokenizer.ggml.tokens")?.texts()?.map(str::to_string).collect();
        let named = |(id, text): (usize, String)| if text.is_empty() { format!("[EMPTY_{id}]") } else { text };
        let texts: Vec<String> = texts.into_iter().enumerate().map(named).collect();
        let numbers = |list: &List| list.iter().map(|v| v.signed().unwrap_or(1)).collect::<Vec<_>>();
        let mut kinds: Vec<Kind> = list("tokenizer.ggml.token_type")
            .map(numbers)
            .unwrap_or_default()
            .into_iter()
            .map(Kind::numbered)
            .collect();
        kinds.resize(texts.len(), Kind::Normal);
        let scores = list("tokenizer.ggml.scores");
        // As f32, so that sums of them that should be equal are.
        let exact = |v: Value| f64::from(v.real().unwrap_or(0.0) as f32);
        let scores: Vec<f64> = scores.into_iter().flat_map(List::iter).map(exact).collect();
        let scores = if scores.len() < texts.len() { Vec::new() } else { scores };
        Some(Self { texts, kinds, scores, header })
    }

    /// The id that the entry `tokenizer.ggml.NAME_token_id` gives, if there is such a token; models of SentencePiece have
    /// usual ones, as llama.cpp takes them.
    pub fn special(&self, name: &str) -> Option<u32> {
        let given = self.header.metadata.get(format!("tokenizer.ggml.{name}_token_id").as_str());
        let id = match (given, self.text("tokenizer.ggml.model"), name) {
            (Some(id), ..) => id.whole()?,
            (None, Some("llama"), "unknown") => 0,
            (None, Some("llama"), "bos") | (None, Some("t5"), "eos") => 1,
            (None, Some("llama"), "eos") | (None, Some("t5"), "unknown") => 2,
            _ => return None,
        };
        u32::try_from(id).ok().filter(|id| (*id as usize) < self.texts.len())
    }

    /// The token for what is none: the one that the file names, or whose kind says so.
    pub fn unknown(&self) -> Option<u32> {
        let by_kind = || self.kinds.iter().position(|kind| *kind == Kind::Unknown).map(|id| id as u32);
        self.special("unknown").or_else(by_kind)
    }

    /// The ids that end a text, that of the end of text first: what the file says is the end of a text, of a turn, of a
    /// message, and control tokens whose names say so.
    pub fn ends(&self) -> Vec<u32> {
        let mut out: Vec<u32> = ["eos", "eot", "eom"].into_iter().filter_map(|name| self.special(name)).collect();
        let control = self.texts.iter().zip(&self.kinds).enumerate().filter(|(_, (_, kind))| **kind == Kind::Control);
        let by_name: Vec<(u32, &str)> = control
            .filter(|(_, (text, _))| ENDS.contains(&text.as_str()))
            .map(|(id, (text, _))| (id as u32, text.as_str()))
            .collect();
        let has = |name: &str| by_name.iter().any(|(_, text)| *text == name);
        // There these two stand within a text.
        let no_end = has("<|call|>") && has("<|return|>") || has("<|flush|>") && (has("<|call|>") || has("<|calls|>"));
        let no_s = has("<|tool_response>");
        let ends = by_name.iter().filter(|(_, text)| !(no_end && *text == "<|end|>" || no_s && *text == "</s>"));
        out.extend(ends.map(|(id, _)| *id));
        let mut once = Vec::new();
        for id in out {
            if !once.contains(&id) {
                once.push(id);
            }
        }
        once
    }

    /// Whether an entry of the metadata is true; `otherwise` where there is none.
    pub fn flag(&self, key: &str, otherwise: bool) -> bool {
        match self.header.metadata.get(key) {
            Some(Value::Flag(on)) => *on,
            _ => otherwise,
        }
    }

    /// A text of the metadata.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.header.metadata.get(key).and_then(Value::text)
    }

    /// A list of the metadata.
    pub fn list(&self, key: &str) -> Option<&List<'_>> {
        self.header.metadata.get(key).and_then(Value::list)
    }
}
