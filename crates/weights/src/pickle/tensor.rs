//! From a tensor's description to a window of its storage, with every bound checked.

use super::value::TensorRef;
use crate::stored::{Storage, StoredTensor};
use std::ops::Range;

/// Bytes that a tensor may have beyond those of its storage: an expanded view of a few numbers describes any size.
const EXPANDED_LIMIT: usize = 64 << 20;

/// The tensor within `bytes`, the interval of `storage` that is its own storage.
///
/// # Errors
/// A shape, offset or stride that leads out of the storage, or describes far more than it holds.
pub fn locate(
    tensor: &TensorRef,
    storage: Storage,
    bytes: Range<usize>,
    swapped: bool,
) -> Result<StoredTensor, String> {
    let TensorRef { element, offset, shape, strides, storage: named } = tensor;
    let size = element.bytes();
    let there = bytes.len();
    let unit = named.element.map_or(1, |e| e.bytes());
    if named.count.checked_mul(unit).is_none_or(|needed| needed > there) {
        let count = named.count;
        return Err(format!("storage {:?} has {there} bytes, too few for its {count} elements of {unit}", named.key));
    }
    let too_large = || format!("shape {shape:?} is too large");
    let elements = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(too_large)?;
    let length = elements.checked_mul(size).ok_or_else(too_large)?;
    if length > there && length > EXPANDED_LIMIT {
        return Err(format!(
            "the size of shape {shape:?} is {length} bytes, its storage has {there}; save a copy that is not expanded"
        ));
    }
    let last = shape
        .iter()
        .zip(strides)
        .try_fold(*offset, |at, (d, stride)| at.checked_add(d.saturating_sub(1).checked_mul(*stride)?));
    let first = offset.checked_mul(size);
    let end = last.and_then(|last| last.checked_add(1)).and_then(|n| n.checked_mul(size));
    let window = match (first, end) {
        _ if elements == 0 => bytes.start..bytes.start,
        (Some(first), Some(end)) if end <= there => bytes.start + first..bytes.start + end,
        _ => {
            return Err(format!(
                "shape {shape:?}, strides {strides:?} and offset {offset} lead out of the storage of {there} bytes"
            ));
        }
    };
    let contiguous = elements == 0 || is_contiguous(shape, strides);
    let strides = (!contiguous).then(|| strides.clone());
    Ok(StoredTensor { element: *element, shape: shape.clone(), strides, window, swapped, storage })
}

/// Row-major without gaps; the stride of a dimension of one element does not matter.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(d, stride)| {
        let fits = *d == 1 || *stride == expected;
        expected *= d;
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pickle::value::StorageRef;
    use crate::stored::Element;
    use std::sync::Arc;

    fn check(shape: &[usize], strides: &[usize], offset: usize) -> Result<StoredTensor, String> {
        let element = Element::named("F32").unwrap();
        let storage = StorageRef { element: Some(element), key: "0", count: 6 };
        let tensor = TensorRef { storage, element, offset, shape: shape.to_vec(), strides: strides.to_vec() };
        locate(&tensor, Storage::Plain(Arc::new(vec![0u8; 40])), 8..32, false)
    }

    #[test]
    fn windows_and_strides() {
        let whole = check(&[2, 3], &[3, 1], 0).unwrap();
        assert_eq!((whole.window, whole.strides), (8..32, None));
        let transposed = check(&[3, 2], &[1, 3], 0).unwrap();
        assert_eq!((transposed.window, transposed.strides), (8..32, Some(vec![1, 3])));
        assert_eq!(check(&[1, 2], &[99, 1], 4).unwrap().window, 24..32);
        assert_eq!(check(&[], &[], 5).unwrap().window, 28..32);
        assert_eq!(check(&[3, 0], &[7, 7], 99).unwrap().window, 8..8);
        assert_eq!(check(&[2, 6], &[0, 1], 0).unwrap().byte_len(), 48);
    }

    #[test]
    fn out_of_bounds() {
        const MAX: usize = usize::MAX;
        for (shape, strides, offset, part) in [
            (&[7][..], &[1][..], 0, "lead out of the storage"),
            (&[6], &[1], 1, "lead out of the storage"),
            (&[2, 2], &[6, 1], 0, "lead out of the storage"),
            (&[2, 2], &[MAX, MAX], 0, "lead out of the storage"),
            (&[1], &[1], MAX, "lead out of the storage"),
            (&[MAX, 2], &[1, 1], 0, "is too large"),
            (&[MAX], &[0], 0, "is too large"),
            (&[1 << 32, 1 << 32], &[0, 0], 0, "is too large"),
            (&[1 << 20, 1 << 20], &[0, 0], 0, "the size of shape"),
        ] {
            let message = check(shape, strides, offset).err().unwrap();
            assert!(message.contains(part), "{shape:?}: {message}");
        }
    }
}
