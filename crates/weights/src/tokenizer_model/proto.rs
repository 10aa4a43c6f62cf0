//! SentencePiece's `ModelProto`, as far as a tokenizer is made of it: pieces, what trained them, how texts are normalised.
//!
//! Source followed: sentencepiece's `sentencepiece_model.proto`. A file may be hostile: every length is held against the
//! bytes that are left.

use crate::gguf::Kind;

/// A model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Texts of pieces by their ids.
    pub texts: Vec<String>,
    /// Their scores.
    pub scores: Vec<f64>,
    /// Their kinds.
    pub kinds: Vec<Kind>,
    /// 1 is unigram, 2 is BPE.
    pub algorithm: u64,
    /// Whether bytes stand for what is no piece.
    pub byte_fallback: bool,
    /// What stands for what is no piece otherwise.
    pub unknown: String,
    /// Its id.
    pub unknown_id: u64,
    /// What ends a text.
    pub end: String,
    /// Whether spaces stand behind words.
    pub suffixes: bool,
    /// A table of characters that are replaced; empty is none.
    pub charsmap: Vec<u8>,
    /// Whether a text begins with a space.
    pub prefix: bool,
    /// Whether spaces at the ends and several in a row are taken away.
    pub trims: bool,
    /// Whether a space is written as `▁`.
    pub escapes: bool,
}

/// A field of a message: its number, and what it holds.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Single(f32),
    Other,
}

/// The fields of a message one by one.
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for at in 0..10 {
            let (byte, rest) = self.0.split_first().ok_or("it is cut short")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than 64 bits".into())
    }

    fn take(&mut self, n: u64) -> Result<&'a [u8], String> {
        let n = usize::try_from(n).ok().filter(|n| *n <= self.0.len()).ok_or("it is cut short")?;
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        Ok(taken)
    }

    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>, String> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Other)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Field::Single(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            other => return Err(format!("a field of the wire type {other}")),
        };
        Ok(Some((key >> 3, field)))
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a text in it is not UTF-8".to_string())
}

impl Model {
    /// Reads it.
    ///
    /// # Errors
    /// Bytes that are no such model.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let strange =
            |e: String| format!("neither a model of SentencePiece ({e}) nor tiktoken's lines of token and rank");
        let model = Self::message(bytes).map_err(strange)?;
        match model.texts.is_empty() {
            true => Err(strange("it has no pieces".into())),
            false => Ok(model),
        }
    }

    fn message(bytes: &[u8]) -> Result<Self, String> {
        let mut model = Self {
            texts: Vec::new(),
            scores: Vec::new(),
            kinds: Vec::new(),
            algorithm: 1,
            byte_fallback: false,
            unknown: "<unk>".into(),
            unknown_id: 0,
            end: "</s>".into(),
            suffixes: false,
            charsmap: Vec::new(),
            prefix: true,
            trims: true,
            escapes: true,
        };
        let mut fields = Message(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(piece)) => model.piece(piece)?,
                (2, Field::Bytes(trainer)) => model.trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => model.normalizer(normalizer)?,
                _ => {}
            }
        }
        Ok(model)
    }

    fn piece(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (mut piece, mut score, mut kind) = (String::new(), 0.0, 1);
        let mut fields = Message(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(bytes)) => piece = text(bytes)?,
                (2, Field::Single(x)) => score = f64::from(x),
                (3, Field::Number(n)) => kind = n,
                _ => {}
            }
        }
        self.texts.push(piece);
        self.scores.push(score);
        self.kinds.push(Kind::numbered(i64::try_from(kind).unwrap_or(1)));
        Ok(())
    }

    fn trainer(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut fields = Message(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (3, Field::Number(n)) => self.algorithm = n,
                (24, Field::Number(n)) => self.suffixes = n != 0,
                (35, Field::Number(n)) => self.byte_fallback = n != 0,
                (40, Field::Number(n)) => self.unknown_id = n,
                (45, Field::Bytes(bytes)) => self.unknown = text(bytes)?,
                (47, Field::Bytes(bytes)) => self.end = text(bytes)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn normalizer(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut fields = Message(bytes);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (2, Field::Bytes(bytes)) => self.charsmap = bytes.to_vec(),
                (3, Field::Number(n)) => self.prefix = n != 0,
                (4, Field::Number(n)) => self.trims = n != 0,
                (5, Field::Number(n)) => self.escapes = n != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_specs_are_read_and_what_is_cut_is_refused() {
        let piece = |text: &str, score: f32, kind: u8| {
            let mut out = vec![10, text.len() as u8];
            out.extend(text.bytes());
            out.push(21);
            out.extend(score.to_le_bytes());
            out.extend([24, kind]);
            [&[10, out.len() as u8], out.as_slice()].concat()
        };
        // Type 2, bytes to fall back to; no prefix.
        let bytes =
            [piece("<unk>", 0.0, 2), piece("a", -1.5, 1), vec![18, 5, 24, 2, 152, 2, 1], vec![26, 2, 24, 0]].concat();
        let model = Model::read(&bytes).unwrap();
        assert_eq!(
            (model.texts.as_slice(), model.scores.as_slice()),
            (&["<unk>".into(), "a".into()][..], &[0.0, -1.5][..])
        );
        assert_eq!(model.kinds, [Kind::Unknown, Kind::Normal]);
        assert_eq!((model.algorithm, model.byte_fallback, model.prefix, model.trims), (2, true, false, true));
        for end in 1..bytes.len() {
            if let Ok(model) = Model::read(&bytes[..end]) {
                assert!(!model.texts.is_empty());
            }
        }
        for bytes in [&b""[..], b"{}", &[10, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], &[0xff; 12]] {
            assert!(Model::read(bytes).unwrap_err().starts_with("neither a model of SentencePiece"), "{bytes:?}");
        }
    }
}
