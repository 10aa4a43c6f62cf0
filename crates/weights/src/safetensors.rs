//! Safetensors: 8 bytes of header length, a JSON header, the data.
//!
//! The crate of that name parses and checks the header; lengths are compared here, so that messages give both.

use super::checkpoint::Contents;
use super::stored::{Element, Storage, StoredTensor};
use super::write::TYPES;
use limber_core::WeightType;
use limber_core::weights::SharedBytes;
use safetensors::tensor::Metadata;
use std::collections::BTreeMap;

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
        format!("no safetensors file: it asks for a header of {length} bytes, expected at most {HEADER_LIMIT}")
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
    restore_types(&mut contents)?;
    Ok(contents)
}

/// Gives quantised tensors, which lie in the file as bytes `[n, bytes of a row]`, their type and shape back.
fn restore_types(contents: &mut Contents) -> Result<(), String> {
    let Some(text) = contents.metadata.as_ref().and_then(|map| map.get(TYPES)) else { return Ok(()) };
    let types: BTreeMap<String, String> =
        serde_json::from_str(text).map_err(|e| format!("metadata entry {TYPES:?}: {e}"))?;
    for (name, kind) in types {
        let known = WeightType::stored_as(&kind).filter(|dtype| dtype.is_quantised());
        let (Some(dtype), Some(element)) = (known, Element::named(&kind.to_uppercase())) else {
            return Err(format!(
                "metadata entry {TYPES:?}: tensor {name:?} has type {kind:?}, known are GGUF's block types such as q8_0"
            ));
        };
        let tensor = contents
            .tensors
            .get_mut(&name)
            .ok_or_else(|| format!("metadata entry {TYPES:?} names a tensor {name:?} that is not there"))?;
        let (numbers, size) = dtype.block();
        match (tensor.element.name(), tensor.shape.last_mut()) {
            ("U8", Some(last)) if last.is_multiple_of(size) => *last = *last / size * numbers,
            (spelled, _) => {
                return Err(format!(
                    "tensor {name:?} of type {spelled} and shape {:?} holds no whole rows of {kind} blocks of {size} bytes",
                    tensor.shape
                ));
            }
        }
        tensor.element = element;
    }
    Ok(())
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
            (vec![0xff; 20], "expected at most 100000000"),
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

    #[test]
    fn quantised_tensors_have_their_type_in_the_metadata() {
        let quantised = |types: &str, dtype: &str, shape: &str, bytes: usize| {
            let types = serde_json::to_string(types).unwrap();
            let tensor = format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{bytes}]}}"#);
            read(Arc::new(file(&format!(r#"{{"__metadata__":{{"limber.types":{types}}},"a":{tensor}}}"#), bytes)))
        };
        let contents = quantised(r#"{"a":"q8_0"}"#, "U8", "[3,68]", 204).unwrap();
        assert_eq!(
            (contents.tensors["a"].shape.as_slice(), contents.tensors["a"].element.name()),
            (&[3, 64][..], "Q8_0")
        );
        let data = contents.tensors["a"].frozen().unwrap().unwrap();
        assert_eq!((data.dtype(), data.to_f32(0..192)), (WeightType::Q8_0, vec![0.0; 192]));
        for (result, part) in [
            (quantised(r#"{"a":"q8_0"}"#, "U8", "[3,67]", 201), "no whole rows of q8_0 blocks of 34 bytes"),
            (quantised(r#"{"a":"q4_k"}"#, "F32", "[1,144]", 576), "of type F32"),
            (quantised(r#"{"a":"q9_k"}"#, "U8", "[3,68]", 204), "type \"q9_k\", known are GGUF's block types"),
            (quantised(r#"{"b":"q8_0"}"#, "U8", "[3,68]", 204), "names a tensor \"b\" that is not there"),
            (quantised("[1]", "U8", "[3,68]", 204), "metadata entry \"limber.types\""),
        ] {
            let message = result.err().unwrap();
            assert!(message.contains(part), "{part}: {message}");
        }
    }
}
