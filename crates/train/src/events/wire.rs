//! Protocol buffers on the wire: the few kinds of fields that events have.

/// Wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn key(field: u64, wire: u64, out: &mut Vec<u8>) {
    varint(field << 3 | wire, out);
}

/// A field of bytes, text or a message.
pub fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
    key(field, BYTES, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// A field of a whole number.
pub fn number(field: u64, value: u64, out: &mut Vec<u8>) {
    key(field, VARINT, out);
    varint(value, out);
}

/// A field of type `double`.
pub fn double(field: u64, value: f64, out: &mut Vec<u8>) {
    key(field, FIXED64, out);
    out.extend(value.to_le_bytes());
}

/// A field of type `float`.
pub fn float(field: u64, value: f32, out: &mut Vec<u8>) {
    key(field, FIXED32, out);
    out.extend(value.to_le_bytes());
}

/// A message of one field.
pub fn message(field: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 8);
    bytes(field, value, &mut out);
    out
}
