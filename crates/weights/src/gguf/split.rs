//! Models in several files, as llama.cpp's `llama-gguf-split` writes them: `name-00001-of-00003.gguf` and so on.

use super::header::Header;

const COUNT: &str = "split.count";
const NUMBER: &str = "split.no";
const TENSORS: &str = "split.tensors.count";

/// The names of all files of the model of which `name` is one, in order; None where the file is whole.
///
/// # Errors
/// A file that says that it is one of several, under a name that does not tell those of the others.
pub fn siblings(bytes: &[u8], name: &str) -> Result<Option<Vec<String>>, String> {
    let header = Header::read(bytes)?;
    let entry = |key: &str| header.metadata.get(key).and_then(|v| v.whole());
    let Some(count) = entry(COUNT).filter(|count| *count > 1) else { return Ok(None) };
    let number = entry(NUMBER).unwrap_or(0);
    let end = format!("-{:05}-of-{count:05}.gguf", number.saturating_add(1));
    match name.strip_suffix(&end) {
        Some(stem) if count < 100_000 => {
            Ok(Some((1..=count).map(|n| format!("{stem}-{n:05}-of-{count:05}.gguf")).collect()))
        }
        _ => Err(format!(
            "file {} of {count} of a split GGUF, whose name ends in {end:?}; the others are looked for by theirs",
            number.saturating_add(1)
        )),
    }
}

/// Checks that these are all files of one model in their order.
///
/// # Errors
/// A file that is missing, of another model or under the number of another.
pub fn check(headers: &[Header]) -> Result<(), String> {
    let entry = |header: &Header, key: &str| header.metadata.get(key).and_then(|v| v.whole());
    let Some(first) = headers.first() else { return Ok(()) };
    let count = entry(first, COUNT).unwrap_or(1).max(1);
    if count != headers.len() as u64 {
        return Err(format!("one of {count} files of a split GGUF, which are opened by the path of one of them"));
    }
    for (at, header) in headers.iter().enumerate().filter(|_| count > 1) {
        let (number, of) = (entry(header, NUMBER).unwrap_or(0), entry(header, COUNT).unwrap_or(1));
        if (number, of) != (at as u64, count) {
            return Err(format!(
                "file {} of {count} of a split GGUF says that it is {} of {of}",
                at + 1,
                number.saturating_add(1)
            ));
        }
    }
    let found: usize = headers.iter().map(|header| header.tensors.len()).sum();
    match entry(first, TENSORS) {
        Some(expected) if expected != found as u64 && count > 1 => {
            Err(format!("a split GGUF of {expected} tensors, its {count} files hold {found}"))
        }
        _ => Ok(()),
    }
}
