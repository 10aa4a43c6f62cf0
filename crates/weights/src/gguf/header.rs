//! The header of a GGUF file: magic, version, metadata, where each tensor lies. Versions 2 and 3, little-endian.
//!
//! Source followed: ggml's `docs/gguf.md`. A file may be hostile: every count is held against the bytes there are.

use super::cursor::Cursor;
use super::value::Value;
use std::collections::BTreeMap;

/// The first bytes.
pub const MAGIC: &[u8] = b"GGUF";
/// What data and tensors are aligned to where the file says nothing else.
pub const ALIGNMENT: usize = 32;
/// The metadata entry that says it.
const ALIGNMENT_KEY: &str = "general.alignment";
/// A type of tensors: its number, its name in safetensors' manner, numbers of a block, bytes of a block.
pub type Kind = (u32, &'static str, usize, usize);

/// Every type of ggml that files are found with.
pub const KINDS: &[Kind] = &[
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 40),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
];

/// One tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// Its type.
    pub kind: Kind,
    /// Its shape, row-major: the reverse of the file's own order.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub window: std::ops::Range<usize>,
}

/// What a file says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Header<'a> {
    /// Metadata by key.
    pub metadata: BTreeMap<&'a str, Value<'a>>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Info>,
}

impl<'a> Header<'a> {
    /// Reads it; no data is touched.
    ///
    /// # Errors
    /// A file that is cut short, of another version, or whose counts and offsets do not fit it.
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut cursor = Cursor::new(bytes);
        cursor.take(MAGIC.len(), "the magic")?;
        match cursor.u32("the version")? {
            2 | 3 => {}
            version if version.swap_bytes() <= 3 => return Err("a big-endian GGUF file, little-endian is read".into()),
            version => return Err(format!("a GGUF file of version {version}, 2 and 3 are read")),
        }
        let tensors = cursor.count("tensors", 24)?;
        let entries = cursor.count("metadata entries", 12)?;
        let mut header = Header::default();
        for _ in 0..entries {
            let key = cursor.text("a metadata key")?;
            let value = cursor.value(key)?;
            if header.metadata.insert(key, value).is_some() {
                return Err(format!("metadata entry {key:?} stands twice"));
            }
        }
        let alignment = match header.metadata.get(ALIGNMENT_KEY) {
            None => ALIGNMENT,
            Some(value) => match value.whole().map(|n| n as usize) {
                Some(n) if n.is_power_of_two() && (8..=1 << 20).contains(&n) => n,
                _ => return Err(format!("{ALIGNMENT_KEY} is {value}, expected a power of two, at least 8")),
            },
        };
        let mut found = Vec::with_capacity(tensors);
        for _ in 0..tensors {
            found.push(info(&mut cursor)?);
        }
        let data = cursor.at.next_multiple_of(alignment);
        for (name, kind, shape, offset) in found {
            let info = tensor_info(&name, kind, shape, data, offset, alignment, bytes.len())?;
            if header.tensors.insert(name.clone(), info).is_some() {
                return Err(format!("tensor {name:?} stands twice"));
            }
        }
        Ok(header)
    }
}

/// A tensor's bytes in a file of `total`.
fn tensor_info(
    name: &str,
    kind: Kind,
    shape: Vec<usize>,
    data: usize,
    offset: u64,
    alignment: usize,
    total: usize,
) -> Result<Info, String> {
    let (_, spelled, block, size) = kind;
    let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    let whole = shape.last().is_none_or(|n| n.is_multiple_of(block));
    let length = elements.filter(|_| whole).and_then(|n| (n / block).checked_mul(size));
    let length = length.ok_or_else(|| format!("tensor {name:?} of {spelled} cannot have shape {shape:?}"))?;
    if !offset.is_multiple_of(alignment as u64) {
        return Err(format!("tensor {name:?} lies at {offset}, which is no multiple of {alignment}"));
    }
    let start = usize::try_from(offset).ok().and_then(|n| n.checked_add(data));
    match start.and_then(|start| Some(start..start.checked_add(length)?)) {
        Some(window) if window.end <= total => Ok(Info { kind, shape, window }),
        _ => Err(format!(
            "tensor {name:?} needs {length} bytes from {offset} on, the file of {total} bytes ends before: cut short"
        )),
    }
}

/// Name, type, shape and offset of a tensor.
fn info(cursor: &mut Cursor) -> Result<(String, Kind, Vec<usize>, u64), String> {
    let name = cursor.text("a tensor's name")?.to_string();
    let dims = cursor.u32(&name)?;
    if dims > 4 {
        return Err(format!("tensor {name:?} has {dims} dimensions, expected at most 4"));
    }
    let mut shape = Vec::new();
    for _ in 0..dims {
        let dim = cursor.u64(&name)?;
        shape.push(usize::try_from(dim).map_err(|_| format!("tensor {name:?} has a dimension of {dim}"))?);
    }
    shape.reverse();
    let kind = cursor.u32(&name)?;
    let known = KINDS.iter().find(|k| k.0 == kind);
    let kind = *known.ok_or_else(|| format!("tensor {name:?} has type {kind}, which is not known"))?;
    Ok((name, kind, shape, cursor.u64("a tensor's offset")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    }

    /// A file of one entry `k` and one tensor `t`.
    fn file(kind: u32, value: &[u8], dims: &[u64], tensor: u32, offset: u64, data: usize) -> Vec<u8> {
        with_entry(("k", kind, value), dims, tensor, offset, data)
    }

    fn with_entry(
        (key, kind, value): (&str, u32, &[u8]),
        dims: &[u64],
        tensor: u32,
        offset: u64,
        data: usize,
    ) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend([1u64.to_le_bytes(), 1u64.to_le_bytes()].concat());
        text(&mut out, key);
        out.extend(kind.to_le_bytes());
        out.extend(value);
        text(&mut out, "t");
        out.extend((dims.len() as u32).to_le_bytes());
        dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend(tensor.to_le_bytes());
        out.extend(offset.to_le_bytes());
        out.resize(out.len().next_multiple_of(32) + data, 0);
        out
    }

    #[test]
    fn values_and_offsets() {
        let bytes = file(6, &1e-5f32.to_le_bytes(), &[32, 3], 8, 32, 32 + 3 * 34);
        let header = Header::read(&bytes).unwrap();
        assert_eq!(header.metadata["k"], Value::Float(1e-5));
        let info = &header.tensors["t"];
        assert_eq!((info.shape.as_slice(), info.kind.1, info.window.len()), (&[3, 32][..], "Q8_0", 102));
        assert_eq!(info.window.end, bytes.len());
    }

    #[test]
    fn every_fault_has_its_message() {
        let good = file(4, &7u32.to_le_bytes(), &[2, 3], 0, 0, 24);
        assert_eq!(Header::read(&good).unwrap().metadata["k"].whole(), Some(7));
        let mut version = good.clone();
        version[4] = 1;
        let mut swapped = good.clone();
        swapped[4..8].reverse();
        let mut many = good.clone();
        many[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        let mut nested = Vec::new();
        for _ in 0..6 {
            nested.extend([9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat());
        }
        let long = [8u32.to_le_bytes().as_slice(), &(u64::MAX / 2).to_le_bytes()].concat();
        let aligned = |kind: u32, value: &[u8]| with_entry((ALIGNMENT_KEY, kind, value), &[2, 3], 0, 0, 24);
        let mut name = Vec::new();
        text(&mut name, "x");
        for (bytes, part) in [
            (aligned(4, &0u32.to_le_bytes()), "general.alignment is 0, expected a power of two, at least 8"),
            (aligned(5, &(-8i32).to_le_bytes()), "general.alignment is -8, expected"),
            (aligned(8, &name), "general.alignment is \"x\", expected"),
            (version, "of version 1, 2 and 3 are read"),
            (swapped, "big-endian"),
            (many, "tensors do not fit in the"),
            (file(8, &u64::MAX.to_le_bytes(), &[], 0, 0, 0), "do not fit in the"),
            (file(13, &[], &[], 0, 0, 0), "has type 13, known are 0 to 12"),
            (file(7, &[2], &[], 0, 0, 4), "truth value of 2"),
            (file(9, &nested, &[], 0, 0, 0), "lists in more than 4 lists"),
            (file(9, &long, &[], 0, 0, 0), "values of \"k\" do not fit"),
            (file(4, &[0; 4], &[1; 5], 0, 0, 4), "5 dimensions"),
            (file(4, &[0; 4], &[2, 3], 99, 0, 24), "type 99, which is not known"),
            (file(4, &[0; 4], &[33], 8, 0, 34), "\"t\" of Q8_0 cannot have shape [33]"),
            (file(4, &[0; 4], &[1 << 62, 16], 0, 0, 0), "cannot have shape"),
            (file(4, &[0; 4], &[2, 3], 0, 4, 64), "no multiple of 32"),
            (file(4, &[0; 4], &[2, 3], 0, 0, 23), "needs 24 bytes from 0 on"),
            (file(4, &[0; 4], &[2, 3], 0, u64::MAX - 31, 24), "cut short"),
        ] {
            let message = Header::read(&bytes).err().unwrap();
            assert!(message.contains(part), "{part}: {message}");
        }
        // Cut anywhere, it is an error and no panic.
        for end in 4..good.len() {
            assert!(Header::read(&good[..end]).is_err(), "{end}");
        }
    }
}
