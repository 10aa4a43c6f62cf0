//! Where generated text stops: strings that are looked for in it, across the boundaries of its tokens.

use anyhow::Result;
use limber_text::{StopText, TextStream, Tokenizer};

/// The stop strings of a run.
#[derive(Debug, Clone)]
pub struct Stop<'a> {
    tokenizer: &'a Tokenizer,
    strings: Vec<String>,
    /// Special tokens that are named as a stop string: a text does not show them.
    ids: Vec<u32>,
}

impl<'a> Stop<'a> {
    /// Stops at any of `strings`; None where there are none.
    pub fn new(tokenizer: &'a Tokenizer, strings: &[String]) -> Option<Self> {
        let special = |text: &String| tokenizer.token_id(text).filter(|id| tokenizer.is_special(*id));
        let ids: Vec<u32> = strings.iter().filter_map(special).collect();
        let strings: Vec<String> =
            strings.iter().filter(|text| !text.is_empty() && special(text).is_none()).cloned().collect();
        (!strings.is_empty() || !ids.is_empty()).then_some(Self { tokenizer, strings, ids })
    }

    /// Whether an id alone stops a text.
    pub fn is_id(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }

    /// The stop strings that are looked for in text.
    pub fn strings(&self) -> &[String] {
        &self.strings
    }

    /// Watches one text; None where ids alone stop it.
    pub(super) fn watch(&self) -> Option<StopWatch<'_>> {
        let is_needed = !self.strings.is_empty();
        is_needed.then(|| StopWatch {
            pieces: self.tokenizer.stream(true),
            text: StopText::new(&self.strings),
            certain: 0,
            length: 0,
            starts: Vec::new(),
        })
    }
}

/// How much of a text goes before a stop string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// Tokens that begin before it.
    pub tokens: usize,
    /// Bytes of the text.
    pub bytes: usize,
}

/// Follows one text, token by token.
#[derive(Debug)]
pub(super) struct StopWatch<'a> {
    pieces: TextStream<'a>,
    text: StopText<'a>,
    /// Bytes that are certain to go before any stop string.
    certain: usize,
    /// Bytes of the text so far.
    length: usize,
    /// Where each token's text begins.
    starts: Vec<usize>,
}

impl StopWatch<'_> {
    /// Takes the next id; where the text ends once a stop string is whole.
    pub fn push(&mut self, id: u32) -> Result<Option<Cut>> {
        let piece = self.pieces.push(id)?;
        self.starts.push(self.length);
        self.length += piece.len();
        self.certain += self.text.push(&piece).len();
        let bytes = self.certain;
        let tokens = self.starts.iter().take_while(|start| **start < bytes).count();
        Ok(self.text.is_stopped().then_some(Cut { tokens, bytes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_string_ends_a_text_wherever_tokens_end() {
        let tokenizer = Tokenizer::stand_in(257, Some(256));
        let check = |stops: &[&str], text: &str, expected: Option<(usize, usize)>| {
            let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
            let stop = Stop::new(&tokenizer, &stops).unwrap();
            let mut watch = stop.watch().unwrap();
            let cut = text.bytes().find_map(|byte| watch.push(u32::from(byte)).unwrap());
            assert_eq!(cut.map(|cut| (cut.tokens, cut.bytes)), expected, "{stops:?} in {text:?}");
        };
        check(&["\n\n"], "one\ntwo\n\nthree", Some((7, 7)));
        check(&["Q:", "."], "A cat. Q: ", Some((5, 5)));
        check(&["é"], "caf\u{e9}", Some((3, 3)));
        check(&["A"], "A", Some((0, 0)));
        check(&["END"], "the EN", None);
        assert!(Stop::new(&tokenizer, &[]).is_none());
        let stop = Stop::new(&tokenizer, &["<|endoftext|>".to_string()]).unwrap();
        assert!(stop.is_id(256) && stop.watch().is_none());
    }
}
