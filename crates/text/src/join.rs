//! Texts that follow each other and are tokenised one by one: the space between them belongs to the second one.

use super::tokenizer::Tokenizer;
use anyhow::Result;
use std::borrow::Cow;

impl Tokenizer {
    /// `text` as it follows `before`: with a space in front where two words would else run into each other.
    ///
    /// None is put in front of punctuation, between scripts that are written without spaces, behind a text that is empty or
    /// ends in white space, and by a tokenizer that itself puts one in front of every text, as SentencePiece's do.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn following<'t>(&self, before: &str, text: &'t str) -> Result<Cow<'t, str>> {
        let (Some(last), Some(first)) = (before.chars().last(), text.chars().next()) else { return Ok(text.into()) };
        let is_apart = last.is_whitespace()
            || first.is_whitespace()
            || is_closing(first)
            || is_spaceless(first)
            || is_spaceless(last)
            || self.separates_texts()?;
        Ok(if is_apart { text.into() } else { format!(" {text}").into() })
    }

    /// Whether a text's first token begins a word of its own.
    fn separates_texts(&self) -> Result<bool> {
        let (first, second) = (self.encode("b")?, self.encode("a")?);
        Ok(self.encode("b a")? == [first, second].concat())
    }
}

/// Punctuation that stands close to the word before it.
fn is_closing(c: char) -> bool {
    matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | ')' | ']' | '}' | '%' | '\'' | '’' | '”' | '…')
}

/// Letters and punctuation of scripts without spaces: Thai to Khmer, Chinese and Japanese.
fn is_spaceless(c: char) -> bool {
    matches!(u32::from(c),
        0x0e00..=0x0eff | 0x1000..=0x109f | 0x1780..=0x17ff | 0x3000..=0x30ff | 0x3400..=0x9fff | 0xf900..=0xfaff
        | 0xff00..=0xff65 | 0x20000..=0x3ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_do_not_run_into_each_other() {
        let bytes = Tokenizer::stand_in(256, None);
        for (before, text, expected) in [
            ("A picture of", "a cat", " a cat"),
            ("A picture of", " a cat", " a cat"),
            ("A picture of ", "a cat", "a cat"),
            ("", "a cat", "a cat"),
            ("A cat", ", asleep", ", asleep"),
            ("一张", "猫", "猫"),
            ("A:", "\"yes\"", " \"yes\""),
            ("A:", "", ""),
        ] {
            assert_eq!(bytes.following(before, text).unwrap(), expected, "{before:?} {text:?}");
        }
    }
}
