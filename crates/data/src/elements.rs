//! Where the elements of a JSON list begin and end, without the list in memory: files of conversations have gigabytes.

use super::span;
use anyhow::{Context, Result, bail};
use limber_core::bounded::MARK;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// First byte and length of every element of the list that the JSON file `path` is.
///
/// # Errors
/// A file that is no list, one that ends within it.
pub fn find(path: &Path) -> Result<(File, Vec<(u64, u64)>)> {
    let context = || format!("cannot read {}", path.display());
    let file = span::open(path)?;
    let mut reader = BufReader::with_capacity(1 << 20, &file);
    let mut scan = Scan::default();
    let mut at = 0;
    loop {
        let block = reader.fill_buf().with_context(context)?;
        if block.is_empty() {
            break;
        }
        let skip = if at == 0 && block.starts_with(MARK) { MARK.len() } else { 0 };
        for (byte, at) in block[skip..].iter().zip(at + skip as u64..) {
            if let Err(found) = scan.take(*byte, at) {
                bail!("{}: {found} at byte {at}, expected a JSON list of maps, [{{...}}, ...]", path.display())
            }
        }
        let length = block.len();
        at += length as u64;
        reader.consume(length);
    }
    drop(reader);
    if scan.depth > 0 || !scan.is_list {
        bail!("{}: it ends within its JSON list: cut short", path.display())
    }
    Ok((file, scan.spans))
}

/// Where a scan stands.
#[derive(Default)]
struct Scan {
    spans: Vec<(u64, u64)>,
    /// The list's bracket was met.
    is_list: bool,
    /// Brackets and braces that are open, the list's own among them.
    depth: usize,
    start: u64,
    in_text: bool,
    is_escaped: bool,
}

impl Scan {
    /// Takes the byte at `at`.
    fn take(&mut self, byte: u8, at: u64) -> Result<(), String> {
        if self.in_text {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return Ok(());
        }
        match (byte, self.depth) {
            (b' ' | b'\t' | b'\r' | b'\n', _) => {}
            (b'[', 0) if !self.is_list => (self.is_list, self.depth) = (true, 1),
            (b'{', 1) => (self.start, self.depth) = (at, 2),
            (b',', 1) => {}
            (b']', 1) => self.depth = 0,
            (b'"', 2..) => self.in_text = true,
            (b'{' | b'[', 2..) => self.depth += 1,
            (b'}' | b']', 2..) => {
                self.depth -= 1;
                if self.depth == 1 {
                    self.spans.push((self.start, at + 1 - self.start));
                }
            }
            (_, 2..) => {}
            (byte, _) => return Err(format!("found {:?}", char::from(byte))),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn told(text: &str) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        match find(file.path()) {
            Ok((_, spans)) => {
                let parts = spans.iter().map(|(start, length)| &text[*start as usize..(start + length) as usize]);
                parts.collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string().split_once(": ").unwrap().1.to_string(),
        }
    }

    #[test]
    fn elements_are_found_whatever_is_in_them() {
        for (text, expected) in [
            ("[]", ""),
            ("\u{feff} [ {\"a\": 1},\n{\"b\": [{}, \"]}\\\"{\"]}\n]\n", "{\"a\": 1} {\"b\": [{}, \"]}\\\"{\"]}"),
            ("{\"images\": []}", "found '{' at byte 0, expected a JSON list of maps, [{...}, ...]"),
            ("[1]", "found '1' at byte 1, expected a JSON list of maps, [{...}, ...]"),
            ("[{\"a\": 1}, {\"b\"", "it ends within its JSON list: cut short"),
            ("", "it ends within its JSON list: cut short"),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
    }
}
