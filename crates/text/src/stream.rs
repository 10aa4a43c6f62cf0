//! `TextStream`: ids in one by one, text out as soon as it is certain, never half of a UTF-8 character.
//!
//! A byte-level token is some bytes, and one character may spread over several tokens. What cannot become UTF-8 any
//! more turns into U+FFFD exactly as `String::from_utf8_lossy` does it over the whole.

use super::tokenizer::{END_OF_TEXT, Inner, Tokenizer};
use anyhow::{Result, anyhow};

/// Decodes a growing list of ids.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Bytes that are no whole character yet.
    bytes: Vec<u8>,
    /// For decoders that are not byte-level: the ids last given out, and those held back behind them.
    shown: Vec<u32>,
    held: Vec<u32>,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, bytes: Vec::new(), shown: Vec::new(), held: Vec::new() }
    }

    /// Takes one id and gives the text that is certain now, which may be empty.
    ///
    /// # Errors
    /// A token that the tokenizer's decoder refuses.
    pub fn push(&mut self, id: u32) -> Result<String> {
        match &self.tokenizer.inner {
            Inner::StandIn => {
                self.push_stand_in(id);
                Ok(self.whole_characters())
            }
            Inner::Trained { special, .. } if self.skip_special && special.contains(&id) => Ok(String::new()),
            Inner::Trained { tokenizer, bytes: true, .. } => {
                match tokenizer.id_to_token(id) {
                    Some(token) => push_token(&token, &mut self.bytes),
                    None => self.bytes.extend(format!("<{id}>").bytes()),
                }
                Ok(self.whole_characters())
            }
            Inner::Trained { .. } => {
                self.held.push(id);
                self.certain(false)
            }
        }
    }

    /// Gives what was held back, with U+FFFD for what never became a character.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn finish(mut self) -> Result<String> {
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned();
        Ok(rest + &self.certain(true)?)
    }

    fn push_stand_in(&mut self, id: u32) {
        let eos = self.tokenizer.eos();
        let byte = match eos {
            Some(eos) if id == eos => {
                if !self.skip_special {
                    self.bytes.extend(END_OF_TEXT.bytes());
                }
                return;
            }
            Some(eos) if id > eos => id - 1,
            _ => id,
        };
        match u8::try_from(byte) {
            Ok(byte) => self.bytes.push(byte),
            Err(_) => self.bytes.extend(format!("<{id}>").bytes()),
        }
    }

    /// Takes all bytes but a last character that may still be completed.
    fn whole_characters(&mut self) -> String {
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.bytes) {
                Ok(whole) => {
                    text.push_str(whole);
                    self.bytes.clear();
                    return text;
                }
                Err(e) => {
                    text.push_str(&String::from_utf8_lossy(&self.bytes[..e.valid_up_to()]));
                    let Some(bad) = e.error_len() else {
                        self.bytes.drain(..e.valid_up_to());
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.bytes.drain(..e.valid_up_to() + bad);
                }
            }
        }
    }

    /// Decoders that join tokens by rules of their own see the ids last given out in front of the new ones, so that
    /// a rule for the start of a text applies once.
    fn certain(&mut self, last: bool) -> Result<String> {
        let Inner::Trained { tokenizer, .. } = &self.tokenizer.inner else { return Ok(String::new()) };
        if self.held.is_empty() {
            return Ok(String::new());
        }
        let decode =
            |ids: &[u32]| tokenizer.decode(ids, self.skip_special).map_err(|e| anyhow!("cannot decode {ids:?}: {e}"));
        let before = decode(&self.shown)?;
        let all: Vec<u32> = self.shown.iter().chain(&self.held).copied().collect();
        let text = decode(&all)?;
        if !last && text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        // Where the new ids change what the others were, they are shown alone.
        let text = match text.strip_prefix(&before) {
            Some(rest) => rest.to_string(),
            None => decode(&self.held)?,
        };
        self.shown = std::mem::take(&mut self.held);
        Ok(text)
    }
}

/// The bytes of a byte-level token; a token with a character outside the byte alphabet stands for itself.
fn push_token(token: &str, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    for c in token.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => {
                bytes.truncate(start);
                bytes.extend(token.bytes());
                return;
            }
        }
    }
}

/// GPT-2's alphabet (`bytes_to_unicode`): printable Latin-1 stands for itself, the other 68 bytes for U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    let code = c as u32;
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_every_byte_once() {
        let mut seen: Vec<u8> = (0..=0x143).filter_map(char::from_u32).filter_map(byte_of).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn no_half_character_leaves_the_stream() {
        let tokenizer = Tokenizer::stand_in(256, None);
        let check = |bytes: &[u8], expected: &[&str], rest: &str| {
            let mut stream = tokenizer.stream(false);
            let pieces: Vec<String> = bytes.iter().map(|b| stream.push(u32::from(*b)).unwrap()).collect();
            assert_eq!(pieces, expected);
            let end = stream.finish().unwrap();
            assert_eq!(end, rest);
            assert_eq!(pieces.concat() + &end, String::from_utf8_lossy(bytes));
        };
        check("aé😀".as_bytes(), &["a", "", "é", "", "", "", "😀"], "");
        check(&[0xf0, 0x9f], &["", ""], "\u{fffd}");
        check(&[0xf0, 0x9f, b'a'], &["", "", "\u{fffd}a"], "");
        check(&[0xff, 0xc3, 0xc3, 0xa9], &["\u{fffd}", "", "\u{fffd}", "é"], "");
    }
}
