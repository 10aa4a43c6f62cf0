//! `.npy`: a magic, a header that is a Python dictionary of type, order and shape, the elements.
//!
//! Format followed: NumPy's `numpy/lib/_format_impl.py`, versions 1 to 3; the crate `npyz` reads the header.
//! NumPy knows no bf16: the package `ml_dtypes`, which gives it one, writes it as two raw bytes, `<V2`.

use super::check;
use limber_core::weights::SharedBytes;
use limber_weights::{Element, Storage, StoredTensor};
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

/// How every file begins.
pub const MAGIC: &[u8] = b"\x93NUMPY";
/// Most bytes of a header's text; NumPy itself refuses longer ones.
const HEADER_LIMIT: usize = 10_000;
/// Brackets inside brackets that a header may have; a plain array needs two.
const DEPTH_LIMIT: usize = 4;

/// Most bytes that a file of N x E features can have: its head, and elements of at most 16 bytes.
pub fn limit(n: usize, e: usize) -> usize {
    n.saturating_mul(e).saturating_mul(16).saturating_add(HEADER_LIMIT + 12)
}

/// The array of a file, where its shape is that of N x E features.
///
/// # Errors
/// A header that is cut short, too long or not understood, another shape, fewer or more bytes than the shape needs.
pub fn read(bytes: SharedBytes, n: usize, e: usize) -> Result<StoredTensor, String> {
    let whole = (*bytes).as_ref();
    let (header, start) = header(whole)?;
    let shape: Option<Vec<usize>> = header.shape().iter().map(|d| usize::try_from(*d).ok()).collect();
    let shape = shape.ok_or("its shape is too large for this machine")?;
    check(&shape, n, e)?;
    let dtype = header.dtype();
    let (element, swapped) = element(&dtype)?;
    let needed = shape.iter().product::<usize>() * element.bytes();
    let there = whole.len() - start;
    if there != needed {
        return Err(format!(
            "shape {shape:?} of {} needs {needed} bytes after the header, there are {there}",
            dtype.descr()
        ));
    }
    // Fortran's order: the first index runs fastest.
    let strides = (header.order() == Order::Fortran).then(|| {
        let steps = shape.iter().scan(1, |step, d| Some(std::mem::replace(step, *step * d)));
        steps.collect()
    });
    Ok(StoredTensor { element, shape, strides, window: start..start + needed, swapped, storage: Storage::Plain(bytes) })
}

/// The header, and where the elements begin.
fn header(whole: &[u8]) -> Result<(NpyHeader, usize), String> {
    let cut = || format!(".npy file of {} bytes, cut short in its header", whole.len());
    let (text, length) = match whole.get(6).ok_or_else(cut)? {
        1 => (10, whole.get(8..10).map(|b| usize::from(b[0]) | usize::from(b[1]) << 8)),
        _ => (12, whole.get(8..12).map(|b| b.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte)))),
    };
    let length = length.ok_or_else(cut)?;
    if length > HEADER_LIMIT {
        return Err(format!("a header of {length} bytes, expected at most {HEADER_LIMIT}"));
    }
    let head = whole.get(..text + length).ok_or_else(cut)?;
    // The parser descends into brackets, and a stack has its end.
    let mut depth = 0usize;
    for byte in &head[text..] {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_LIMIT {
            return Err("a header of brackets in brackets, which no plain array has".into());
        }
    }
    let header = NpyHeader::from_reader(head).map_err(|e| format!("its header is broken: {e}"))?;
    Ok((header, text + length))
}

/// The element type, and whether its bytes stand in big-endian order.
fn element(dtype: &DType) -> Result<(Element, bool), String> {
    let refused = || {
        let allowed = "floats and integers of up to 64 bits, and bool";
        format!("elements of type {} cannot be features; expected {allowed}", dtype.descr())
    };
    let DType::Plain(plain) = dtype else { return Err(refused()) };
    let name = match (plain.type_char(), plain.size_field()) {
        (TypeChar::Float, 8) => "F64",
        (TypeChar::Float, 4) => "F32",
        (TypeChar::Float, 2) => "F16",
        (TypeChar::RawData, 2) => "BF16",
        (TypeChar::Int, 8) => "I64",
        (TypeChar::Int, 4) => "I32",
        (TypeChar::Int, 2) => "I16",
        (TypeChar::Int, 1) => "I8",
        (TypeChar::Uint, 8) => "U64",
        (TypeChar::Uint, 4) => "U32",
        (TypeChar::Uint, 2) => "U16",
        (TypeChar::Uint, 1) => "U8",
        (TypeChar::Bool, 1) => "BOOL",
        _ => return Err(refused()),
    };
    let element = Element::named(name).ok_or_else(refused)?;
    Ok((element, plain.endianness() == Endianness::Big))
}
