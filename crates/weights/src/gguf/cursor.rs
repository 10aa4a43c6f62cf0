//! What a GGUF file says, byte by byte: every count is held against the bytes that are left before anything is made of it.

use super::value::{DEPTH, List, Value, least_bytes};
use std::borrow::Cow;

/// A position in the bytes of a file.
pub struct Cursor<'a> {
    bytes: &'a [u8],
    /// The next byte.
    pub at: usize,
}

impl<'a> Cursor<'a> {
    /// At the first of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `n` bytes; `what` they are is for messages.
    pub fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], String> {
        let left = self.bytes.len() - self.at;
        if n > left {
            return Err(format!("GGUF file is cut short: {what} needs {n} bytes at {}, there are {left}", self.at));
        }
        self.at += n;
        Ok(&self.bytes[self.at - n..self.at])
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    /// A number of 32 bits.
    pub fn u32(&mut self, what: &str) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    /// A number of 64 bits.
    pub fn u64(&mut self, what: &str) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A number of things that take at least `least` bytes each.
    pub fn count(&mut self, what: &str, least: usize) -> Result<usize, String> {
        let count = self.u64(what)?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(count).ok().filter(|n| n.checked_mul(least).is_some_and(|bytes| bytes <= left)) {
            Some(count) => Ok(count),
            None => Err(format!("GGUF file is cut short: {count} {what} do not fit in the {left} bytes that are left")),
        }
    }

    /// A text.
    pub fn text(&mut self, what: &str) -> Result<&'a str, String> {
        let length = self.count(what, 1)?;
        std::str::from_utf8(self.take(length, what)?).map_err(|e| format!("{what} is not UTF-8: {e}"))
    }

    /// A value of the metadata entry `key`, its type in front.
    pub fn value(&mut self, key: &str) -> Result<Value<'a>, String> {
        let kind = self.u32(key)?;
        self.typed(kind, key, DEPTH)
    }

    /// A value of the type `kind`, which may hold lists in `depth` lists.
    pub fn typed(&mut self, kind: u32, key: &str, depth: usize) -> Result<Value<'a>, String> {
        Ok(match kind {
            0 => Value::Whole(self.array::<1>(key)?[0].into()),
            1 => Value::Signed(i8::from_le_bytes(self.array(key)?).into()),
            2 => Value::Whole(u16::from_le_bytes(self.array(key)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array(key)?).into()),
            4 => Value::Whole(self.u32(key)?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array(key)?).into()),
            6 => {
                let x = f32::from_le_bytes(self.array(key)?);
                Value::Float(x.to_string().parse().unwrap_or(x.into()))
            }
            7 => match self.array::<1>(key)?[0] {
                0 => Value::Flag(false),
                1 => Value::Flag(true),
                byte => return Err(format!("metadata entry {key:?} is a truth value of {byte}, expected 0 or 1")),
            },
            8 => Value::Text(Cow::Borrowed(self.text(&format!("metadata entry {key:?}"))?)),
            9 if depth > 0 => Value::List(self.list(key, depth)?),
            9 => return Err(format!("metadata entry {key:?} holds lists in more than {DEPTH} lists")),
            10 => Value::Whole(self.u64(key)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => Value::Float(f64::from_le_bytes(self.array(key)?)),
            other => return Err(format!("metadata entry {key:?} has type {other}, known are 0 to 12")),
        })
    }

    /// A list stays where it lies: its values are looked at once here, and made when they are asked for.
    fn list(&mut self, key: &str, depth: usize) -> Result<List<'a>, String> {
        let kind = self.u32(key)?;
        let (least, is_number) = least_bytes(kind);
        let count = self.count(&format!("values of {key:?}"), least)?;
        let start = self.at;
        if is_number {
            self.take(count * least, key)?;
        } else {
            for _ in 0..count {
                self.typed(kind, key, depth - 1)?;
            }
        }
        Ok(List::of_file(kind, count, &self.bytes[start..self.at]))
    }
}
