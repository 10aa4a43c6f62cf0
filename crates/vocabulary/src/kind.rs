//! Kinds of tokens.

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
    /// The number in `tokenizer.ggml.token_type`.
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

    /// The kind of a number in `tokenizer.ggml.token_type`; what is not known is normal.
    pub fn numbered(number: i64) -> Self {
        use Kind::{Byte, Control, Unknown, Unused, User};
        [Unknown, Control, User, Unused, Byte].into_iter().find(|kind| kind.number() == number).unwrap_or(Kind::Normal)
    }
}
