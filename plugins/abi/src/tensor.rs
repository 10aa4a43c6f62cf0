//! Views of tensors, laid out as DLPack's `DLTensor` behind size and version.

use crate::table::tables;
use std::ffi::c_void;

/// A view of a tensor: contiguous, row-major, on the CPU. The fields from `data` on are those of DLPack's `DLTensor`.
///
/// Who allocated `data` also frees it; a view owns nothing. `data` is aligned to its elements; it may be null where
/// there are no elements.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LimberTensor {
    /// Size of this struct in bytes.
    pub size: u32,
    /// Minor version of the ABI that the writer was built for.
    pub version: u32,
    /// The first element, before `byte_offset` is added.
    pub data: *mut c_void,
    /// DLPack's device type; always [`LIMBER_CPU`].
    pub device_type: i32,
    /// DLPack's device number; always 0.
    pub device_id: i32,
    /// Number of dimensions.
    pub ndim: i32,
    /// DLPack's type code: [`LIMBER_INT`], [`LIMBER_UINT`], [`LIMBER_FLOAT`] or [`LIMBER_BFLOAT`].
    pub dtype_code: u8,
    /// Bits of an element: 32, 16 (floats), 16 (bfloat), 8 (uint) or 64 (int).
    pub dtype_bits: u8,
    /// Always 1.
    pub dtype_lanes: u16,
    /// `ndim` sizes, none negative.
    pub shape: *const i64,
    /// `ndim` strides in elements, those of a contiguous tensor, or null, which means the same.
    pub strides: *const i64,
    /// Bytes from `data` to the first element; always 0.
    pub byte_offset: u64,
}

/// DLPack's `kDLCPU`.
pub const LIMBER_CPU: i32 = 1;
/// DLPack's `kDLInt`: i64.
pub const LIMBER_INT: u8 = 0;
/// DLPack's `kDLUInt`: u8.
pub const LIMBER_UINT: u8 = 1;
/// DLPack's `kDLFloat`: f32 and f16.
pub const LIMBER_FLOAT: u8 = 2;
/// DLPack's `kDLBfloat`: bf16.
pub const LIMBER_BFLOAT: u8 = 4;

/// An element type, as code and bits.
pub type ElementType = (u8, u8);
/// 32-bit float.
pub const F32: ElementType = (LIMBER_FLOAT, 32);
/// IEEE half precision.
pub const F16: ElementType = (LIMBER_FLOAT, 16);
/// The upper half of an f32.
pub const BF16: ElementType = (LIMBER_BFLOAT, 16);
/// Byte.
pub const U8: ElementType = (LIMBER_UINT, 8);
/// 64-bit integer.
pub const I64: ElementType = (LIMBER_INT, 64);

tables! {
    LimberTensor = 56;
}

impl LimberTensor {
    /// A view of the elements at `data`; `shape` and the elements outlive its use.
    pub fn view(data: *mut c_void, element: ElementType, shape: &[i64]) -> Self {
        Self {
            data,
            device_type: LIMBER_CPU,
            ndim: shape.len() as i32,
            dtype_code: element.0,
            dtype_bits: element.1,
            dtype_lanes: 1,
            shape: shape.as_ptr(),
            ..Self::empty()
        }
    }

    /// The sizes, checked to be those of a view as this ABI has it: CPU, contiguous, of the type `element`.
    ///
    /// # Errors
    /// Names what is not as expected.
    ///
    /// # Safety
    /// `shape` and `strides`, where they are not null, hold `ndim` numbers.
    pub unsafe fn check(&self, element: ElementType) -> Result<Vec<usize>, String> {
        if (self.device_type, self.device_id, self.byte_offset) != (LIMBER_CPU, 0, 0) {
            return Err(format!(
                "a tensor on device {}:{} at offset {}, expected the CPU ({LIMBER_CPU}:0) at offset 0",
                self.device_type, self.device_id, self.byte_offset
            ));
        }
        let found = (self.dtype_code, self.dtype_bits);
        if found != element || self.dtype_lanes != 1 {
            return Err(format!("a tensor of {}, expected {}", named(found, self.dtype_lanes), named(element, 1)));
        }
        let ndim =
            usize::try_from(self.ndim).ok().filter(|n| *n <= 32).ok_or("a tensor of no or over 32 dimensions")?;
        if ndim > 0 && self.shape.is_null() {
            return Err("a tensor whose shape is null".into());
        }
        // SAFETY: the caller promises `ndim` numbers.
        let sizes = if ndim == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(self.shape, ndim) } };
        let dims: Option<Vec<usize>> = sizes.iter().map(|s| usize::try_from(*s).ok()).collect();
        let dims = dims.ok_or_else(|| format!("a tensor of shape {sizes:?}"))?;
        let elements = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let bytes = elements.and_then(|n| n.checked_mul(usize::from(element.1) / 8));
        let Some(bytes) = bytes.filter(|n| *n <= isize::MAX as usize) else {
            return Err(format!("a tensor of shape {dims:?} is larger than memory"));
        };
        if !self.strides.is_null() && bytes > 0 {
            // SAFETY: as above.
            let strides = unsafe { std::slice::from_raw_parts(self.strides, ndim) };
            let mut expected = 1i64;
            for (stride, size) in strides.iter().zip(sizes).rev() {
                if *size != 1 && *stride != expected {
                    return Err(format!("a tensor of shape {dims:?} and strides {strides:?} is not contiguous"));
                }
                expected *= size;
            }
        }
        if bytes > 0 && (self.data.is_null() || !(self.data as usize).is_multiple_of(usize::from(element.1) / 8)) {
            return Err(format!("a tensor of shape {dims:?} whose data are null or not aligned"));
        }
        Ok(dims)
    }
}

/// What a type is called.
pub fn named(element: ElementType, lanes: u16) -> String {
    match (element, lanes) {
        (F32, 1) => "f32".into(),
        (F16, 1) => "f16".into(),
        (BF16, 1) => "bf16".into(),
        (U8, 1) => "u8".into(),
        (I64, 1) => "i64".into(),
        ((code, bits), lanes) => format!("type code {code}, {bits} bits, {lanes} lanes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_that_are_not_as_promised_are_named() {
        let mut values = [0f32; 6];
        let shape = [2i64, 3];
        let data = values.as_mut_ptr().cast();
        let good = LimberTensor::view(data, F32, &shape);
        let check = |view: LimberTensor, expected: &str| {
            // SAFETY: the shapes and strides of every view hold as many numbers as they say.
            let message = unsafe { view.check(F32) }.unwrap_err();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        };
        // SAFETY: as above.
        unsafe {
            assert_eq!(good.check(F32).unwrap(), [2, 3]);
            let strides = [3i64, 1];
            assert_eq!(LimberTensor { strides: strides.as_ptr(), ..good }.check(F32).unwrap(), [2, 3]);
            let scalar = LimberTensor { ndim: 0, shape: std::ptr::null(), ..good };
            assert_eq!(scalar.check(F32).unwrap(), [0usize; 0]);
            let none = [0i64, 3];
            let nothing = LimberTensor { data: std::ptr::null_mut(), shape: none.as_ptr(), ..good };
            assert_eq!(nothing.check(F32).unwrap(), [0, 3]);
        }
        check(LimberTensor { device_type: 2, ..good }, "device 2:0");
        check(LimberTensor { byte_offset: 4, ..good }, "at offset 4");
        check(LimberTensor { dtype_bits: 64, ..good }, "type code 2, 64 bits, 1 lanes, expected f32");
        check(LimberTensor { dtype_bits: 16, ..good }, "a tensor of f16, expected f32");
        check(LimberTensor { ndim: -1, ..good }, "dimensions");
        check(LimberTensor { shape: std::ptr::null(), ..good }, "shape is null");
        check(LimberTensor { data: std::ptr::null_mut(), ..good }, "null or not aligned");
        check(LimberTensor { data: (data as usize + 1) as *mut c_void, ..good }, "null or not aligned");
        let (strides, negative, huge) = ([1i64, 2], [2i64, -3], [1i64 << 62, 1 << 62]);
        check(LimberTensor { strides: strides.as_ptr(), ..good }, "strides [1, 2] is not contiguous");
        check(LimberTensor { shape: negative.as_ptr(), ..good }, "shape [2, -3]");
        check(LimberTensor { shape: huge.as_ptr(), ..good }, "larger than memory");
    }
}
