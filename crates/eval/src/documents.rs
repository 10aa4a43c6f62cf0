//! JSON that a user names: one object, a list, or an object a line, told apart by the beginning and read in bounded memory.

use anyhow::{Context, Result, ensure};
use limber_core::bounded::{self, DOCUMENT_LIMIT, LINE_LIMIT, Lines, TEXT_LIMIT, without_mark};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// What a file holds.
#[derive(Debug)]
pub(super) enum Document<T> {
    /// The text of one object.
    Whole(Vec<u8>),
    /// The text of a list.
    List(Vec<u8>),
    /// Objects, one a line.
    Lines(Vec<T>),
}

/// The bytes of a document that is read whole.
///
/// # Errors
/// A file that cannot be read or is beyond the limit.
pub(super) fn whole(path: &Path) -> Result<Vec<u8>> {
    let context = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(context)?;
    let about = file.metadata().with_context(context)?;
    // What is no file does not say how long it is, and may have no end.
    let limit = if about.is_file() { DOCUMENT_LIMIT } else { TEXT_LIMIT };
    ensure!(about.len() <= limit, "{}: {} bytes, expected at most {limit}", path.display(), about.len());
    bounded::bytes(file, limit).with_context(context)
}

/// The document at `path`; an object with the key `annotations` is a whole one even where it fills one line.
///
/// # Errors
/// A file that cannot be read, a line that is no `T`, a line or a document beyond its limit.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Document<T>> {
    let context = || format!("cannot read {}", path.display());
    let file = File::open(path).with_context(context)?;
    let length = file.metadata().with_context(context)?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut first = Vec::new();
    // Blank lines in front are no line.
    while reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut first).with_context(context)? > 0
        && without_mark(&first).iter().all(u8::is_ascii_whitespace)
        && (first.len() as u64) < LINE_LIMIT
    {}
    let text = without_mark(&first).trim_ascii();
    let is_lines = match serde_json::from_slice::<Value>(text) {
        _ if text.starts_with(b"[") => false,
        Ok(Value::Object(map)) => !map.contains_key("annotations") || goes_on(&mut reader).with_context(context)?,
        Ok(_) => false,
        Err(_) => !text.starts_with(b"{"),
    };
    let is_list = text.starts_with(b"[");
    let all = first.chain(reader);
    if is_lines {
        let line = |line: std::io::Result<(usize, String)>| {
            let (number, line) = line?;
            let is_blank = line.trim().is_empty();
            let parsed = (!is_blank).then(|| serde_json::from_str(&line)).transpose();
            parsed.with_context(|| format!("line {number}"))
        };
        let lines = Lines::new(all, LINE_LIMIT).map(line).filter_map(Result::transpose);
        return Ok(Document::Lines(lines.collect::<Result<_>>().with_context(|| path.display().to_string())?));
    }
    ensure!(
        length <= DOCUMENT_LIMIT,
        "{}: {length} bytes, expected at most {DOCUMENT_LIMIT} for one JSON document; JSON lines have no limit",
        path.display()
    );
    let bytes = bounded::bytes(all, DOCUMENT_LIMIT).with_context(context)?;
    Ok(if is_list { Document::List(bytes) } else { Document::Whole(bytes) })
}

/// Whether anything but blanks follows; blanks are passed over.
fn goes_on(reader: &mut impl BufRead) -> std::io::Result<bool> {
    loop {
        let buffer = reader.fill_buf()?;
        let length = buffer.len();
        if length == 0 {
            return Ok(false);
        }
        if buffer.iter().any(|byte| !byte.is_ascii_whitespace()) {
            return Ok(true);
        }
        reader.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        std::fs::write(&path, text).unwrap();
        match read::<Value>(&path) {
            Ok(Document::Whole(bytes)) => format!("whole {}", bytes.len()),
            Ok(Document::List(bytes)) => format!("list {}", bytes.len()),
            Ok(Document::Lines(lines)) => format!("{} lines", lines.len()),
            Err(error) => format!("{error:#}").split_once("x.json: ").map(|(_, why)| why.to_string()).unwrap(),
        }
    }

    #[test]
    fn documents_are_told_apart() {
        for mark in ["", "\u{feff}"] {
            for (text, expected) in [
                ("{\"annotations\": []}", "whole 19"),
                ("{\"annotations\": []}\n\n ", "whole 20"),
                ("{\"annotations\": []}\n{}\n", "2 lines"),
                ("{\n\"annotations\": []}", "whole 20"),
                ("{\"id\": 1}", "1 lines"),
                ("\n\n{\"id\": 1}\r\n\n{\"id\": 2}\n", "2 lines"),
                ("[1,\n2]", "list 6"),
                ("", "0 lines"),
                ("nothing", "line 1: expected ident at line 1 column 2"),
                ("{\"id\": 1}\n{\"id\": }", "line 2: expected value at line 1 column 8"),
            ] {
                assert_eq!(kind(&format!("{mark}{text}")), expected, "{mark:?}{text:?}");
            }
        }
    }

    #[test]
    fn what_is_too_long_is_never_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        // Sparse: no disk is used.
        let message = |start: &str| {
            std::fs::write(&path, start).unwrap();
            File::options().write(true).open(&path).unwrap().set_len(3 << 30).unwrap();
            format!("{:#}", read::<Value>(&path).unwrap_err())
        };
        let lines = message("{\"id\": 1}\n");
        assert!(lines.ends_with("line 2: a line of 3221225462 bytes, expected at most 16777216"), "{lines}");
        for start in ["[", "{"] {
            let whole = message(start);
            assert!(whole.contains("3221225472 bytes, expected at most 2147483648"), "{whole}");
        }
        let message = self::whole(&path).unwrap_err().to_string();
        assert!(message.contains("3221225472 bytes, expected at most 2147483648"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn a_device_without_an_end_is_an_error() {
        let zeros = Path::new("/dev/zero");
        let message = format!("{:#}", whole(zeros).unwrap_err());
        assert_eq!(message, "cannot read /dev/zero: it has more than 67108864 bytes, the limit of such a file");
    }
}
