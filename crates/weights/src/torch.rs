//! PyTorch's zip container, written: what `torch.load(weights_only=True)` gives as a state dict, and what the original
//! calls `proj.ckpt`.
//!
//! Source followed: `torch/serialization.py` (`archive/data.pkl`, `byteorder`, `data/KEY`, `version`) and the pickle
//! opcodes of protocol 2 that a state dict needs. Times are fixed, so that the same tensors give the same bytes.

use super::write::Planned;
use anyhow::{Result, bail};
use std::io::{Seek, Write};
use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

/// The folder inside the archive.
const TOP: &str = "archive";
/// Storages begin at multiples of this, so that they can be mapped.
const ALIGNMENT: u16 = 64;

/// PyTorch's name of a storage of these elements.
fn storage(element: &str) -> Option<&'static str> {
    Some(match element {
        "F32" => "FloatStorage",
        "F16" => "HalfStorage",
        "BF16" => "BFloat16Storage",
        "F64" => "DoubleStorage",
        "I64" => "LongStorage",
        "I32" => "IntStorage",
        "I16" => "ShortStorage",
        "I8" => "CharStorage",
        "U8" => "ByteStorage",
        "BOOL" => "BoolStorage",
        "C64" => "ComplexFloatStorage",
        _ => return None,
    })
}

/// Refuses what a state dict cannot hold.
///
/// # Errors
/// Names the tensor and its type.
pub fn check(planned: &[Planned]) -> Result<()> {
    for Planned { name, element, quantised, .. } in planned {
        let element = quantised.map_or(*element, |dtype| dtype.name());
        if storage(element).is_none() {
            bail!("tensor {name:?} has the type {element}, which a PyTorch state dict cannot hold; --dtype f32 does")
        }
    }
    Ok(())
}

/// Writes a state dict of `planned`, whose bytes `each` writes one by one.
///
/// # Errors
/// What `each` or the disk says.
pub fn write(
    file: impl Write + Seek,
    planned: &[Planned],
    each: &mut dyn FnMut(&Planned, &mut dyn Write) -> Result<()>,
) -> Result<()> {
    let mut zip = ZipWriter::new(file);
    let small = |zip: &mut ZipWriter<_>, name: &str, bytes: &[u8]| -> Result<()> {
        begin(zip, name, bytes.len())?;
        Ok(zip.write_all(bytes)?)
    };
    small(&mut zip, "data.pkl", &pickle(planned))?;
    small(&mut zip, ".format_version", b"1")?;
    small(&mut zip, "byteorder", b"little")?;
    for (key, tensor) in planned.iter().enumerate() {
        begin(&mut zip, &format!("data/{key}"), tensor.bytes)?;
        each(tensor, &mut zip)?;
    }
    small(&mut zip, "version", b"3\n")?;
    zip.finish()?;
    Ok(())
}

fn begin(zip: &mut ZipWriter<impl Write + Seek>, name: &str, bytes: usize) -> Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .large_file(bytes as u64 >= u64::from(u32::MAX))
        .with_alignment(ALIGNMENT);
    Ok(zip.start_file(format!("{TOP}/{name}"), options)?)
}

/// A dict of names to `torch._utils._rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`.
fn pickle(planned: &[Planned]) -> Vec<u8> {
    let mut out = vec![0x80, 2, b'}', b'('];
    for (key, tensor) in planned.iter().enumerate() {
        text(tensor.name, &mut out);
        global("torch._utils", "_rebuild_tensor_v2", &mut out);
        out.extend(b"((");
        text("storage", &mut out);
        global("torch", storage(tensor.element).unwrap_or_default(), &mut out);
        text(&key.to_string(), &mut out);
        text("cpu", &mut out);
        number(tensor.shape.iter().product(), &mut out);
        out.extend(b"tQ");
        number(0, &mut out);
        tuple(&tensor.shape, &mut out);
        tuple(&strides(&tensor.shape), &mut out);
        out.push(0x89);
        global("collections", "OrderedDict", &mut out);
        out.extend(b")RtR");
    }
    out.extend(b"u.");
    out
}

fn text(value: &str, out: &mut Vec<u8>) {
    out.push(b'X');
    out.extend((value.len() as u32).to_le_bytes());
    out.extend(value.as_bytes());
}

fn global(module: &str, name: &str, out: &mut Vec<u8>) {
    out.extend(format!("c{module}\n{name}\n").as_bytes());
}

/// A whole number in the shortest opcode that holds it.
fn number(value: usize, out: &mut Vec<u8>) {
    match value {
        0..=0xff => out.extend([b'K', value as u8]),
        0x100..=0xffff => {
            out.push(b'M');
            out.extend((value as u16).to_le_bytes());
        }
        0x1_0000..=0x7fff_ffff => {
            out.push(b'J');
            out.extend((value as u32).to_le_bytes());
        }
        _ => {
            // Two's complement with a sign byte.
            out.extend([0x8a, 9]);
            out.extend((value as u64).to_le_bytes());
            out.push(0);
        }
    }
}

fn tuple(values: &[usize], out: &mut Vec<u8>) {
    out.push(b'(');
    values.iter().for_each(|value| number(*value, out));
    out.push(b't');
}

/// Strides of a contiguous tensor; a dimension of 0 counts as 1, as in PyTorch.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i].max(1);
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_strides() {
        for (value, expected) in [
            (0, vec![b'K', 0]),
            (255, vec![b'K', 255]),
            (256, vec![b'M', 0, 1]),
            (65_536, vec![b'J', 0, 0, 1, 0]),
            (0x8000_0000, vec![0x8a, 9, 0, 0, 0, 0x80, 0, 0, 0, 0, 0]),
        ] {
            let mut out = Vec::new();
            number(value, &mut out);
            assert_eq!(out, expected, "{value}");
        }
        assert_eq!(strides(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(strides(&[2, 0, 4]), [4, 4, 1]);
        assert!(strides(&[]).is_empty());
    }
}
