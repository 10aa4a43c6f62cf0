//! What a file of weights is, told by its first bytes.

use super::checkpoint::{Checkpoint, Contents};
use super::folder::{Folder, unreadable};
use super::{gguf, pickle, safetensors, sharded};
use limber_core::weights::{SharedBytes, WeightError};

/// What an index of shards ends in.
const INDEX: &str = ".index.json";

/// Opens the file `name` of `folder`, or all shards of an index.
///
/// # Errors
/// A file that is missing, in no known format, cut short or hostile.
pub fn open(folder: Folder, name: &str) -> Result<Checkpoint, WeightError> {
    let contents = if name.ends_with(INDEX) {
        sharded::read(&folder, name)?
    } else {
        let (label, bytes) = (folder.label(name), folder.bytes(name)?);
        match split(&label, name, &bytes)? {
            Some(names) => {
                let parts = names.iter().map(|name| folder.bytes(name)).collect::<Result<Vec<_>, _>>()?;
                gguf::read(&parts).map_err(|message| unreadable(label, message))?
            }
            None => read(&label, bytes)?,
        }
    };
    Ok(Checkpoint::new(folder, name, contents))
}

/// The names of all files of a model that is split into several.
fn split(label: &str, name: &str, bytes: &SharedBytes) -> Result<Option<Vec<String>>, WeightError> {
    let bytes = (**bytes).as_ref();
    if !bytes.starts_with(gguf::MAGIC) {
        return Ok(None);
    }
    gguf::siblings(bytes, name).map_err(|message| unreadable(label.to_string(), message))
}

/// The tensors of one file.
///
/// # Errors
/// As [`open`].
pub fn read(label: &str, bytes: SharedBytes) -> Result<Contents, WeightError> {
    let head = (*bytes).as_ref();
    let head = &head[..head.len().min(512)];
    let read = if head.starts_with(b"PK") {
        pickle::read_zip(bytes)
    } else if head.starts_with(gguf::MAGIC) {
        gguf::read(&[bytes])
    } else if head.get(8) == Some(&b'{') || (is_named(label, &[".safetensors"]) && stranger(head).is_none()) {
        safetensors::read(bytes)
    } else if head.first() == Some(&0x80) {
        pickle::read_legacy(bytes)
    } else {
        Err(stranger(head).map_or_else(|| unknown(head), |s| format!("{s}, not a file of weights")))
    };
    read.map_err(|message| unreadable(label.to_string(), message))
}

fn is_named(label: &str, ends: &[&str]) -> bool {
    ends.iter().any(|end| label.ends_with(end))
}

/// What stands in place of weights when a download went wrong, and formats of other programs.
fn stranger(head: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(&head[..head.len().min(64)]).trim_start().to_lowercase();
    let starts = |mark: &[u8]| head.starts_with(mark);
    match () {
        _ if head.is_empty() => Some("the file is empty"),
        _ if starts(b"version https://git-lfs") => {
            Some("a Git LFS pointer (fetch the file itself with `git lfs pull`)")
        }
        _ if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<?xml") => {
            Some("an HTML page (the download gave an error page or a login)")
        }
        _ if starts(b"\x89HDF") => Some("an HDF5 file"),
        _ if starts(b"\x1f\x8b") => Some("a gzip archive (unpack it first)"),
        _ if starts(b"\x93NUMPY") => Some("a NumPy array"),
        _ if head.get(257..262) == Some(b"ustar") => {
            Some("a tar archive (save it again with a PyTorch of this decade)")
        }
        _ if text.starts_with('{') || text.starts_with('[') => Some("a JSON text"),
        _ => None,
    }
}

fn unknown(head: &[u8]) -> String {
    let start = head[..head.len().min(8)].escape_ascii();
    format!(
        "in no known format (it begins with \"{start}\"); expected safetensors, a PyTorch file, GGUF or *.index.json of shards"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn strangers_are_named() {
        for (bytes, name, part) in [
            (b"".as_slice(), "a.pt", "the file is empty"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a.safetensors", "a Git LFS pointer"),
            (b"\n<!DOCTYPE html><html>", "a.safetensors", "an HTML page"),
            (b"<html>", "a.pt", "an HTML page"),
            (b"GGUF\x03\0\0\0\0\0", "a.gguf", "GGUF file is cut short"),
            (b"{\"a\": 1}", "config.json", "a JSON text"),
            (b"\0\0\0\0\0\0\0\0\0\0", "a.pt", "in no known format (it begins with \"\\x00"),
            (b"abc", "a.safetensors", "3 bytes"),
            (b"PK\x03\x04", "a.pt", "zip"),
        ] {
            let message = read(name, Arc::new(bytes.to_vec())).err().unwrap().to_string();
            assert!(message.contains(part) && message.starts_with(name), "{message}");
        }
    }
}
