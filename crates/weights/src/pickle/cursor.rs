//! The bytes of a pickle, read from the front; none is read twice, and no length is trusted.

use super::value::Value;

type Step<T> = Result<T, String>;

/// Bytes and a position in them.
#[derive(Default)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Whether more bytes were wanted than there are.
    pub fn is_past_end(&self) -> bool {
        self.at > self.bytes.len()
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let bytes = self.at.checked_add(n).and_then(|end| self.bytes.get(self.at..end));
        let Some(bytes) = bytes else {
            let left = self.bytes.len().saturating_sub(self.at);
            // One past the end tells that bytes were lacking.
            self.at = self.bytes.len() + 1;
            return Err(format!("the pickle ends where a length of {n} bytes is wanted and {left} are left"));
        };
        self.at += n;
        Ok(bytes)
    }

    /// The next `N` bytes, as an array.
    pub fn array<const N: usize>(&mut self) -> Step<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| "the pickle ends in the middle of an opcode".to_string())
    }

    /// Passes over `n` bytes.
    pub fn skip(&mut self, n: usize) -> Step<()> {
        self.take(n).map(drop)
    }

    /// An unsigned number of `width` bytes.
    pub fn length(&mut self, width: usize) -> Step<usize> {
        let mut padded = [0u8; 8];
        padded[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(padded)).map_err(|_| "a length does not fit this machine".into())
    }

    /// The bytes up to the end of the line, as text.
    pub fn line(&mut self) -> Step<&'a str> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = rest.iter().position(|b| *b == b'\n') else {
            self.at = self.bytes.len() + 1;
            return Err("the pickle ends in the middle of a name".into());
        };
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| "a name is no text in UTF-8".into())
    }
}

/// A little-endian two's complement integer of any length.
pub fn integer<'a>(bytes: &[u8]) -> Value<'a> {
    if bytes.len() > 8 {
        return Value::Inert;
    }
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut padded = [if negative { 0xff } else { 0 }; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(padded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_length() {
        for (bytes, expected) in
            [(&[][..], 0), (&[0xff], -1), (&[0xff, 0], 255), (&[0, 0x80], -32768), (&[0xff; 8], -1)]
        {
            assert!(matches!(integer(bytes), Value::Int(n) if n == expected), "{bytes:?}");
        }
        assert!(matches!(integer(&[1; 9]), Value::Inert));
    }

    #[test]
    fn lengths_are_not_trusted() {
        let mut cursor = Cursor::new(b"\x02ab\xff\xff\xff\xff\xff\xff\xff\xff");
        let n = cursor.length(1).unwrap();
        assert_eq!(cursor.take(n).unwrap(), b"ab");
        let n = cursor.length(8).unwrap();
        assert!(cursor.take(n).unwrap_err().contains("bytes is wanted and 0 are left"));
        assert!(cursor.is_past_end());
    }
}
