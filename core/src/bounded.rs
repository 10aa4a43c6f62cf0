//! Texts out of readers, bounded before they are read: what a user names as a text may be any file, of any length.
//!
//! A byte order mark at the beginning is passed over, as Windows' editors write one.

use std::io::{BufRead, Error, ErrorKind, Read, Result};

/// Most bytes of a line.
pub const LINE_LIMIT: u64 = 16 << 20;
/// Most bytes of a document that is read whole, as a JSON tree.
pub const DOCUMENT_LIMIT: u64 = 2 << 30;
/// Most bytes of a description, a config or an index.
pub const TEXT_LIMIT: u64 = 64 << 20;
/// UTF-8's byte order mark.
pub const MARK: &[u8] = b"\xef\xbb\xbf";

/// `bytes` without a byte order mark.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(MARK).unwrap_or(bytes)
}

/// All bytes of `reader`, at most `limit`, without a byte order mark.
///
/// # Errors
/// A reader that has more bytes, or that cannot be read.
pub fn bytes(reader: impl Read, limit: u64) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut all)?;
    if all.len() as u64 > limit {
        return Err(invalid(format!("it has more than {limit} bytes, the limit of such a file")));
    }
    if all.starts_with(MARK) {
        all.drain(..MARK.len());
    }
    Ok(all)
}

/// As [`bytes`], for UTF-8.
///
/// # Errors
/// As [`bytes`], and bytes that are not UTF-8.
pub fn text(reader: impl Read, limit: u64) -> Result<String> {
    String::from_utf8(bytes(reader, limit)?)
        .map_err(|e| invalid(format!("it is not UTF-8 at byte {}", e.utf8_error().valid_up_to())))
}

/// Reads the next line into `line`, its end included, but at most `limit` bytes of it; the rest is passed over. How many
/// bytes the line has; 0 at the end of the text.
///
/// # Errors
/// A reader that cannot be read.
pub fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>, limit: u64) -> Result<u64> {
    line.clear();
    let read = reader.by_ref().take(limit).read_until(b'\n', line)? as u64;
    let is_whole = read < limit || line.ends_with(b"\n");
    Ok(if is_whole { read } else { read + reader.skip_until(b'\n')? as u64 })
}

/// The lines of a text with their numbers from 1, without their ends; one line is held at a time.
pub struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    number: usize,
    limit: u64,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `reader`, each of at most `limit` bytes.
    pub fn new(reader: R, limit: u64) -> Self {
        Self { reader, line: Vec::new(), number: 0, limit }
    }

    fn read(&mut self) -> Result<Option<String>> {
        let length = next_line(&mut self.reader, &mut self.line, self.limit)?;
        if length == 0 {
            return Ok(None);
        }
        if length > self.limit {
            return Err(invalid(format!("a line of {length} bytes, expected at most {}", self.limit)));
        }
        let line = if self.number == 1 { without_mark(&self.line) } else { &self.line };
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match std::str::from_utf8(line) {
            Ok(text) => Ok(Some(text.to_string())),
            Err(e) => Err(invalid(format!("it is not UTF-8 at byte {}", e.valid_up_to()))),
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<(usize, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.number += 1;
        let number = self.number;
        let line = self.read().map_err(|e| Error::new(e.kind(), format!("line {number}: {e}")));
        line.transpose().map(|line| Ok((number, line?)))
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, repeat};

    #[test]
    fn texts_end_at_their_limit_and_lose_their_mark() {
        assert_eq!(text(&b"\xef\xbb\xbf{}"[..], 5).unwrap(), "{}");
        assert_eq!(text(&b"{}"[..], 2).unwrap(), "{}");
        assert_eq!(text(&b"{}\xff"[..], 5).unwrap_err().to_string(), "it is not UTF-8 at byte 2");
        // A reader without an end.
        let message = text(repeat(b'a'), 1000).unwrap_err().to_string();
        assert_eq!(message, "it has more than 1000 bytes, the limit of such a file");
    }

    #[test]
    fn lines_are_numbered_and_lose_mark_and_ends() {
        let read = |text: &str| Lines::new(text.as_bytes(), 8).collect::<Result<Vec<_>>>();
        let numbered =
            |lines: &[&str]| lines.iter().enumerate().map(|(i, line)| (i + 1, line.to_string())).collect::<Vec<_>>();
        assert_eq!(read("\u{feff}a\r\n\nb c\n").unwrap(), numbered(&["a", "", "b c"]));
        assert_eq!(read("1234567\n12345678").unwrap(), numbered(&["1234567", "12345678"]));
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read("a\n12345678\nb").unwrap_err().to_string(), "line 2: a line of 9 bytes, expected at most 8");
    }

    #[test]
    fn a_line_of_a_gigabyte_is_an_error_and_never_in_memory() {
        let long = 1u64 << 30;
        let text = || BufReader::with_capacity(1 << 20, repeat(b'x').take(long).chain(&b"\nnext\n"[..]));
        let message = Lines::new(text(), LINE_LIMIT).next().unwrap().unwrap_err().to_string();
        assert_eq!(message, format!("line 1: a line of {} bytes, expected at most {LINE_LIMIT}", long + 1));
        let (mut reader, mut line) = (text(), Vec::new());
        assert_eq!(next_line(&mut reader, &mut line, 100).unwrap(), long + 1);
        assert_eq!((line.len(), line.capacity() < 4096), (100, true));
        assert_eq!((next_line(&mut reader, &mut line, 100).unwrap(), line.as_slice()), (5, &b"next\n"[..]));
        assert_eq!(next_line(&mut reader, &mut line, 100).unwrap(), 0);
    }
}
