//! Safetensors: 8 bytes of header length, a JSON header, the data.
//!
//! The crate of that name parses and checks the header; lengths are compared here, so that messages give both.

use super::checkpoint::Contents;
use super::stored::{Element, Storage, StoredTensor};
use limber_core::weights::SharedBytes;
use safetensors::tensor::Metadata;

/// Bytes of the header's length.
const PREFIX: usize = 8;
/// Largest header, the format's own limit.
const HEADER_LIMIT: usize = 100_000_000;

/// The tensors of a file and its metadata; no data is touched.
///
/// # Errors
/// A header that is cut short or does not fit the data.
pub fn read(bytes: SharedBytes) -> Result<Contents, String> {
    let whole = (*bytes).as_ref();
    let total = whole.len();
    let (length, rest) = whole.split_first_chunk::<PREFIX>().ok_or_else(|| {
        format!("safetensors file of {total} bytes, too short for its {PREFIX} bytes of header length")
    })?;
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length).ok().filter(|n| *n <= HEADER_LIMIT).ok_or_else(|| {
        format!("no safetensors file: it asks for a header of {length} bytes, allowed are {HEADER_LIMIT}")
    })?;
    let text = rest.get(..header).ok_or_else(|| {
        format!("safetensors header of {header} bytes is longer than the file ({total} bytes): cut short")
    })?;
    let parsed: Metadata = serde_json::from_slice(text).map_err(|e| format!("safetensors header: {e}"))?;
    let data = PREFIX + header;
    let needed = parsed.data_len();
    let there = total - data;
    if needed > there {
        return Err(format!(
            "safetensors data is cut short: tensors need {needed} bytes after the header, there are {there}"
        ));
    }
    if needed < there {
        return Err(format!("safetensors file holds {} bytes that belong to no tensor", there - needed));
    }
    let mut contents = Contents {
        metadata: parsed.metadata().as_ref().map(|m| m.iter().map(|(k, v)| (k.clone(), v.clone())).collect()),
        ..Contents::default()
    };
    for (name, info) in parsed.tensors() {
        let spelled = info.dtype.to_string();
        let element =
            Element::named(&spelled).ok_or_else(|| format!("tensor {name:?}: type {spelled} is not known"))?;
        let (start, end) = info.data_offsets;
        let stored = StoredTensor {
            element,
            shape: info.shape.clone(),
            strides: None,
            window: data + start..data + end,
            swapped: false,
            storage: Storage::Plain(bytes.clone()),
        };
        contents.tensors.insert(name, stored);
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    const ONE: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;

    #[test]
    fn reads_tensors_and_metadata() {
        let contents = read(Arc::new(file(ONE, 8))).unwrap();
        assert_eq!(contents.tensors["a"].shape, [2]);
        assert_eq!(contents.metadata.unwrap()["format"], "pt");
    }

    #[test]
    fn every_fault_has_its_message() {
        let tensor = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        for (bytes, part) in [
            (file(ONE, 7), "data is cut short: tensors need 8 bytes after the header, there are 7"),
            (file(ONE, 9), "holds 1 bytes that belong to no tensor"),
            (file(ONE, 8)[..40].to_vec(), "header of 85 bytes is longer than the file (40 bytes)"),
            (vec![0; 5], "5 bytes, too short"),
            (vec![0xff; 20], "allowed are 100000000"),
            (file("{", 0), "safetensors header"),
            (file(&"[".repeat(10_000), 0), "safetensors header"),
            (file(&tensor("F32", "[2]", "[0,9]"), 9), "invalid shape, data type, or offset"),
            (file(&tensor("F32", "[2]", "[4,12]"), 12), "invalid offset for tensor `a`"),
            (file(&tensor("Q7", "[2]", "[0,8]"), 8), "unknown variant `Q7`"),
            (file(&tensor("F32", "[-2]", "[0,8]"), 8), "safetensors header"),
            (file(&tensor("F32", "[9223372036854775807,4]", "[0,8]"), 8), "overflow"),
            (file(&tensor("U8", "[2305843009213693951]", "[0,2305843009213693951]"), 8), "cut short"),
        ] {
            let message = read(Arc::new(bytes)).err().unwrap();
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
