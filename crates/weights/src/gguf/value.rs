//! Values of a GGUF file's metadata. Lists are kept as they lie in the file: a list of bytes would become 24 times its size
//! as a list of values.

use super::cursor::Cursor;
use std::borrow::Cow;
use std::fmt;

/// Lists in lists in lists are nobody's metadata.
pub const DEPTH: usize = 4;

/// The numbers of the types that are written.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const LIST: u32 = 9;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Whole numbers from 0.
    Whole(u64),
    /// Whole numbers that may lie below 0.
    Signed(i64),
    /// A number; one of 32 bits is the shortest decimal that rounds to it, so 1e-5 stays 1e-5.
    Float(f64),
    /// A truth value.
    Flag(bool),
    /// A text.
    Text(Cow<'a, str>),
    /// A list of one type.
    List(List<'a>),
}

/// Values of one type, in the bytes of the file.
#[derive(Clone, PartialEq)]
pub struct List<'a> {
    kind: u32,
    count: usize,
    bytes: Cow<'a, [u8]>,
}

/// The least bytes of a value of a type, and whether every value of it has as many and may be any bytes.
pub(super) fn least_bytes(kind: u32) -> (usize, bool) {
    match kind {
        0 | 1 => (1, true),
        2 | 3 => (2, true),
        U32 | I32 | F32 => (4, true),
        10..=12 => (8, true),
        TEXT => (8, false),
        LIST => (12, false),
        _ => (1, false),
    }
}

impl Value<'_> {
    /// A whole number from 0.
    pub fn whole(&self) -> Option<u64> {
        match self {
            Value::Whole(n) => Some(*n),
            Value::Signed(n) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A whole number.
    pub fn signed(&self) -> Option<i64> {
        match self {
            Value::Signed(n) => Some(*n),
            other => other.whole().and_then(|n| i64::try_from(n).ok()),
        }
    }

    /// A number, which may lie below 0.
    pub fn real(&self) -> Option<f64> {
        match self {
            Value::Signed(n) => Some(*n as f64),
            other => other.number(),
        }
    }

    /// A number from 0, or any with a fraction.
    pub fn number(&self) -> Option<f64> {
        match self {
            Value::Float(x) => Some(*x),
            other => other.whole().map(|n| n as f64),
        }
    }

    /// A text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list.
    pub fn list(&self) -> Option<&List<'_>> {
        match self {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The value with its type in front, as a file has it: llama.cpp reads sizes as u32, numbers as f32.
    ///
    /// # Errors
    /// A number that is too large for its type.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), String> {
        let kind = match self {
            Value::Whole(_) => U32,
            Value::Signed(_) => I32,
            Value::Float(_) => F32,
            Value::Flag(_) => BOOL,
            Value::Text(_) => TEXT,
            Value::List(_) => LIST,
        };
        out.extend(kind.to_le_bytes());
        match self {
            Value::Whole(n) => {
                let n = u32::try_from(*n).map_err(|_| format!("{n} is too large, expected at most {}", u32::MAX))?;
                out.extend(n.to_le_bytes());
            }
            Value::Signed(n) => out.extend(narrow(*n)?.to_le_bytes()),
            Value::Float(x) if x.is_finite() && !(*x as f32).is_finite() => {
                return Err(format!("{x} is too large, expected at most {}", f32::MAX));
            }
            Value::Float(x) => out.extend((*x as f32).to_le_bytes()),
            Value::Flag(on) => out.push((*on).into()),
            Value::Text(text) => write_text(out, text),
            Value::List(list) => {
                out.extend(list.kind.to_le_bytes());
                out.extend((list.count as u64).to_le_bytes());
                out.extend_from_slice(&list.bytes);
            }
        }
        Ok(())
    }
}

/// A text as a file has it: its length in front.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn narrow(n: i64) -> Result<i32, String> {
    i32::try_from(n).map_err(|_| format!("{n} is expected from {} to {}", i32::MIN, i32::MAX))
}

impl<'a> List<'a> {
    /// `count` values of the type `kind`, whose bytes were looked at.
    pub(super) fn of_file(kind: u32, count: usize, bytes: &'a [u8]) -> Self {
        Self { kind, count, bytes: Cow::Borrowed(bytes) }
    }

    /// A list of texts.
    pub fn of_texts<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        let (mut bytes, mut count) = (Vec::new(), 0);
        for text in texts {
            write_text(&mut bytes, text);
            count += 1;
        }
        Self { kind: TEXT, count, bytes: bytes.into() }
    }

    /// A list of whole numbers of 32 bits.
    ///
    /// # Errors
    /// A number that has more.
    pub fn of_numbers(numbers: impl IntoIterator<Item = i64>) -> Result<Self, String> {
        let (mut bytes, mut count) = (Vec::new(), 0);
        for n in numbers {
            bytes.extend(narrow(n)?.to_le_bytes());
            count += 1;
        }
        Ok(Self { kind: I32, count, bytes: bytes.into() })
    }

    /// A list of numbers of 32 bits.
    pub fn of_floats(numbers: impl IntoIterator<Item = f32>) -> Self {
        let (mut bytes, mut count) = (Vec::new(), 0);
        for x in numbers {
            bytes.extend(x.to_le_bytes());
            count += 1;
        }
        Self { kind: F32, count, bytes: bytes.into() }
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The values, made one by one.
    pub fn iter(&self) -> impl Iterator<Item = Value<'_>> {
        let mut cursor = Cursor::new(&self.bytes);
        // What was looked at when the file was opened is not looked at again, so there is no error left.
        (0..self.count).map_while(move |_| cursor.typed(self.kind, "", DEPTH).ok())
    }

    /// The texts of a list of texts.
    pub fn texts(&self) -> Option<impl Iterator<Item = &str>> {
        let mut cursor = Cursor::new(&self.bytes);
        (self.kind == TEXT || self.count == 0).then(|| (0..self.count).map_while(move |_| cursor.text("").ok()))
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Whole(n) => write!(f, "{n}"),
            Value::Signed(n) => write!(f, "{n}"),
            Value::Float(x) => write!(f, "{x}"),
            Value::Flag(on) => write!(f, "{on}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::List(list) => write!(f, "{list:?}"),
        }
    }
}

/// A list may hold a whole vocabulary, so a message says how many values and no more.
impl fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {} values of type {}", self.count, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(value: &Value) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        value.write(&mut out).map(|()| out)
    }

    #[test]
    fn what_is_written_is_read() {
        let texts = List::of_texts(["", "a", "häuser"]);
        assert_eq!(texts.texts().unwrap().collect::<Vec<_>>(), ["", "a", "häuser"]);
        let numbers = List::of_numbers([-1, 0, i64::from(i32::MAX)]).unwrap();
        for value in [
            Value::Whole(u32::MAX.into()),
            Value::Signed(i32::MIN.into()),
            Value::Float(1e-5),
            Value::Float(f64::INFINITY),
            Value::Flag(true),
            Value::Text("text".into()),
            Value::List(texts),
            Value::List(numbers),
        ] {
            let bytes = written(&value).unwrap();
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(cursor.value("k").unwrap(), value);
            assert_eq!(cursor.at, bytes.len());
        }
    }

    #[test]
    fn what_does_not_fit_its_type_is_an_error() {
        for (value, message) in [
            (Value::Whole(1 << 32), "4294967296 is too large, expected at most 4294967295"),
            (Value::Signed(1 << 31), "2147483648 is expected from -2147483648 to 2147483647"),
            (Value::Float(1e39), "is too large, expected at most 3"),
        ] {
            let found = written(&value).unwrap_err();
            assert!(found.contains(message), "{found}");
        }
        assert!(List::of_numbers([-1 << 40]).is_err());
    }

    #[test]
    fn a_list_stays_in_the_bytes_of_the_file() {
        // 16 MB of bytes, a type of one byte.
        let mut bytes = [LIST.to_le_bytes().as_slice(), &0u32.to_le_bytes(), &(16u64 << 20).to_le_bytes()].concat();
        bytes.resize(bytes.len() + (16 << 20), 7);
        let Value::List(list) = Cursor::new(&bytes).value("k").unwrap() else { panic!("a list") };
        assert!(matches!(list.bytes, Cow::Borrowed(_)));
        assert_eq!((list.count, list.iter().nth(5)), (16 << 20, Some(Value::Whole(7))));
        assert!(list.texts().is_none());
        assert_eq!(format!("{list:?}"), "a list of 16777216 values of type 0");
    }
}
