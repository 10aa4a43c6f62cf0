//! Sizes that a caller names, held against the slices that come with them.
//!
//! Kernels reach memory through raw pointers, so every public function first multiplies its sizes here, where a product
//! that no memory could hold is an error, and compares them with its slices' lengths. Zeros count as ones in that
//! product: what a shape of no elements is multiplied with later cannot wrap round either.

/// A request whose sizes do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A slice has another length than its shape says.
    #[error("{what} has {found} elements; its shape {shape:?} needs {expected}")]
    Length {
        /// Which argument.
        what: &'static str,
        /// The shape it stands for.
        shape: Vec<usize>,
        /// Elements (bytes for quantised weights) that the shape needs.
        expected: usize,
        /// Elements found.
        found: usize,
    },
    /// A shape of more elements than memory holds.
    #[error("{what} of shape {shape:?} does not fit into memory")]
    TooLarge {
        /// Which argument, result or intermediate.
        what: &'static str,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Strides that lead further than any memory does.
    #[error("{what} of shape {shape:?} with strides {strides:?} reaches beyond any memory")]
    TooFar {
        /// Which argument.
        what: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Elements from one to the next along all dimensions but the last.
        strides: Vec<usize>,
    },
    /// A width that a block format or a layout does not allow.
    #[error("{what} is {found}; it must be {allowed}")]
    Size {
        /// Which size.
        what: &'static str,
        /// Its value.
        found: usize,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// Two arguments that must have one type.
    #[error("{what} are {found}; they must be {expected}")]
    Type {
        /// Which argument.
        what: &'static str,
        /// Its type.
        found: &'static str,
        /// The type it must have.
        expected: &'static str,
    },
}

/// The number of elements of a shape; an error where its dimensions, zeros left out, multiply to more than `isize::MAX`.
pub(crate) fn elements(what: &'static str, shape: &[usize]) -> Result<usize, ShapeError> {
    let product = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n.max(1)));
    match product {
        Some(product) if product <= isize::MAX as usize => Ok(if shape.contains(&0) { 0 } else { product }),
        _ => Err(ShapeError::TooLarge { what, shape: shape.to_vec() }),
    }
}

/// Memory for a result of so many elements, and their number.
pub(crate) fn room(what: &'static str, shape: &[usize]) -> Result<(Vec<f32>, usize), ShapeError> {
    let (mut room, len) = (Vec::new(), elements(what, shape)?);
    match room.try_reserve_exact(len) {
        Ok(()) => Ok((room, len)),
        Err(_) => Err(ShapeError::TooLarge { what, shape: shape.to_vec() }),
    }
}

/// Checks the length of an argument against its shape.
pub(crate) fn check_len(what: &'static str, shape: &[usize], found: usize) -> Result<(), ShapeError> {
    check_elements(what, shape, elements(what, shape)?, found)
}

/// Checks a length against the number that its shape needs.
pub(crate) fn check_elements(
    what: &'static str,
    shape: &[usize],
    expected: usize,
    found: usize,
) -> Result<(), ShapeError> {
    if expected == found {
        return Ok(());
    }
    Err(ShapeError::Length { what, shape: shape.to_vec(), expected, found })
}

/// Checks that a strided tensor, contiguous in its last dimension, lies within `len`.
pub(crate) fn check_reach(
    what: &'static str,
    shape: &[usize; 4],
    strides: &[usize; 3],
    len: usize,
) -> Result<(), ShapeError> {
    if elements(what, shape)? == 0 {
        return Ok(());
    }
    let last = shape.iter().zip(strides).try_fold(0usize, |sum, (n, s)| sum.checked_add((n - 1).checked_mul(*s)?));
    let expected = last.and_then(|last| last.checked_add(shape[3])).filter(|&expected| expected <= isize::MAX as usize);
    let Some(expected) = expected else {
        return Err(ShapeError::TooFar { what, shape: shape.to_vec(), strides: strides.to_vec() });
    };
    if expected <= len {
        return Ok(());
    }
    Err(ShapeError::Length { what, shape: shape.to_vec(), expected, found: len })
}
