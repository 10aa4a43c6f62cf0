//! One tensor as it lies in a file: element type, shape, strides, and the bytes it is a window of.

use super::pickle::Deflated;
use limber_core::weights::{FrozenData, SharedBytes, WeightType};
use std::ops::Range;
use std::sync::Arc;

/// A type of elements, spelled as in safetensors, whether or not it can hold weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    name: &'static str,
    bits: usize,
}

/// Every type that is known: the floats that can be weights first.
const ELEMENTS: &[(&str, usize)] = &[
    ("F32", 32),
    ("F16", 16),
    ("BF16", 16),
    ("F64", 64),
    ("I64", 64),
    ("I32", 32),
    ("I16", 16),
    ("I8", 8),
    ("U64", 64),
    ("U32", 32),
    ("U16", 16),
    ("U8", 8),
    ("BOOL", 8),
    ("C64", 64),
    ("C128", 128),
    ("F8_E4M3", 8),
    ("F8_E5M2", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("F4", 4),
    // Blocks of GGUF; a number of theirs has no bits of its own. Those that ggml computes with alone, and the last two, are no weights here.
    ("Q8_0", 0),
    ("Q4_K", 0),
    ("Q4_0", 0),
    ("Q4_1", 0),
    ("Q5_0", 0),
    ("Q5_1", 0),
    ("Q8_1", 0),
    ("Q2_K", 0),
    ("Q3_K", 0),
    ("Q5_K", 0),
    ("Q6_K", 0),
    ("Q8_K", 0),
    ("IQ2_XXS", 0),
    ("IQ2_XS", 0),
    ("IQ3_XXS", 0),
    ("IQ1_S", 0),
    ("IQ4_NL", 0),
    ("IQ3_S", 0),
    ("IQ2_S", 0),
    ("IQ4_XS", 0),
    ("IQ1_M", 0),
    ("TQ1_0", 0),
    ("TQ2_0", 0),
    ("MXFP4", 0),
    ("NVFP4", 0),
    ("Q1_0", 0),
];

impl Element {
    /// 32-bit floats.
    pub const F32: Element = Element { name: "F32", bits: 32 };

    /// The type of a name in safetensors' spelling.
    pub fn named(name: &str) -> Option<Self> {
        ELEMENTS.iter().find(|(n, _)| *n == name).map(|&(name, bits)| Element { name, bits })
    }

    /// Safetensors' spelling.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Bytes of one element; types of less than a byte have none of their own.
    pub fn bytes(self) -> usize {
        self.bits / 8
    }

    /// Whether safetensors files can hold it, quantised blocks as bytes.
    pub fn is_portable(self) -> bool {
        self.name != "C128" && (self.bits > 0 || self.weight_type().is_some())
    }

    /// The weight type that it is, without conversion.
    pub fn weight_type(self) -> Option<WeightType> {
        WeightType::stored_as(&self.name.to_lowercase())
    }
}

/// Where the bytes of a storage are.
#[derive(Clone)]
pub enum Storage {
    /// As they are.
    Plain(SharedBytes),
    /// Deflated in an archive.
    Deflated(Arc<Deflated>),
    /// As they are, but for the order of rows.
    Shuffled(Arc<Shuffled>),
}

/// Rows of bytes in another order than they lie in.
pub struct Shuffled {
    /// What they lie in.
    pub bytes: SharedBytes,
    /// All rows, each of the same length.
    pub window: Range<usize>,
    /// Where each row is found: row `r` is row `order[r]` of the window.
    pub order: Vec<u32>,
}

impl Shuffled {
    /// The rows in their order: a copy.
    ///
    /// # Errors
    /// Rows outside of the bytes.
    fn gather(&self) -> Result<Vec<u8>, String> {
        let outside = || format!("bytes {:?} lie outside its storage", self.window);
        let window = (*self.bytes).as_ref().get(self.window.clone()).ok_or_else(outside)?;
        let row = window.len() / self.order.len().max(1);
        let mut out = Vec::with_capacity(window.len());
        for at in &self.order {
            let start = *at as usize * row;
            out.extend_from_slice(window.get(start..start + row).ok_or_else(outside)?);
        }
        Ok(out)
    }
}

/// One tensor of a file.
#[derive(Clone)]
pub struct StoredTensor {
    /// The type of its elements.
    pub element: Element,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its strides in elements; None where it is contiguous and row-major.
    pub strides: Option<Vec<usize>>,
    /// The bytes that its storage needs, as an interval of the storage's bytes.
    pub window: Range<usize>,
    /// Whether numbers are big-endian.
    pub swapped: bool,
    /// What it is a window of.
    pub storage: Storage,
}

impl StoredTensor {
    /// `[n]` zeros of f32.
    pub fn zeros(n: usize) -> Self {
        Self::vector(&vec![0.0; n])
    }

    /// `[n]` values of f32.
    pub fn vector(values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let (shape, window) = (vec![values.len()], 0..bytes.len());
        Self {
            element: Element::F32,
            shape,
            strides: None,
            window,
            swapped: false,
            storage: Storage::Plain(Arc::new(bytes)),
        }
    }

    /// Number of elements; constructors have checked that it does not overflow.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length of its elements in bytes, once contiguous.
    pub fn byte_len(&self) -> usize {
        match self.strides {
            None => self.window.len(),
            Some(_) => self.elements() * self.element.bytes(),
        }
    }

    /// What is equal for two tensors that are one and the same window of one storage.
    pub fn identity(&self) -> (usize, &Range<usize>, &'static str, &[usize], Option<&[usize]>) {
        let storage = match &self.storage {
            Storage::Plain(bytes) => (**bytes).as_ref().as_ptr() as usize,
            Storage::Deflated(entry) => Arc::as_ptr(entry) as usize,
            Storage::Shuffled(rows) => Arc::as_ptr(rows) as usize,
        };
        (storage, &self.window, self.element.name, &self.shape, self.strides.as_deref())
    }

    /// The same where its numbers have bits of their own, else a copy in f32.
    ///
    /// # Errors
    /// As [`Self::contiguous`].
    pub fn dense(&self) -> Result<Self, String> {
        if self.element.bits > 0 {
            return Ok(self.clone());
        }
        let values = self.numbers()?.ok_or_else(|| format!("a {} tensor holds no numbers", self.element.name))?;
        Ok(Self { shape: self.shape.clone(), ..Self::vector(&values) })
    }

    /// A matrix `[n, m]` as `[m, n]`, where it lies.
    ///
    /// # Errors
    /// A tensor that is no matrix, or whose numbers are coded along its rows.
    pub fn transposed(&self) -> Result<Self, String> {
        let [n, m] = *self.shape.as_slice() else {
            return Err(format!("a tensor of shape {:?} is not a matrix", self.shape));
        };
        if self.element.bits == 0 {
            return Err(format!("a {} matrix cannot be transposed", self.element.name.to_lowercase()));
        }
        let strides = match self.strides.as_deref() {
            Some([rows, columns]) => vec![*columns, *rows],
            _ => vec![1, m],
        };
        Ok(Self { shape: vec![m, n], strides: Some(strides), ..self.clone() })
    }

    /// The elements, contiguous and little-endian: a window where they lie so, else a copy.
    ///
    /// # Errors
    /// An archive entry that does not inflate.
    pub fn contiguous(&self) -> Result<(SharedBytes, Range<usize>), String> {
        let bytes = match &self.storage {
            Storage::Plain(bytes) => bytes.clone(),
            Storage::Deflated(entry) => entry.inflate()?,
            Storage::Shuffled(rows) => Arc::new(rows.gather()?),
        };
        if self.strides.is_none() && !self.swapped {
            return Ok((bytes, self.window.clone()));
        }
        let window = (*bytes).as_ref().get(self.window.clone());
        let window = window.ok_or_else(|| format!("bytes {:?} lie outside its storage", self.window))?;
        let mut copied = self.gather(window)?;
        if self.swapped {
            // A complex number is two numbers.
            let unit = if self.element.name.starts_with('C') { self.element.bytes() / 2 } else { self.element.bytes() };
            copied.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
        }
        let range = 0..copied.len();
        Ok((Arc::new(copied), range))
    }

    /// The tensor as a weight; f64 becomes f32. None where its type cannot hold weights.
    ///
    /// # Errors
    /// As [`Self::contiguous`].
    pub fn frozen(&self) -> Result<Option<FrozenData>, String> {
        if let Some(dtype) = self.element.weight_type() {
            let (bytes, range) = self.contiguous()?;
            return FrozenData::new(bytes, range, dtype, &self.shape).map(Some);
        }
        if self.element.name != "F64" {
            return Ok(None);
        }
        let (bytes, range) = self.contiguous()?;
        let window = (*bytes).as_ref().get(range).ok_or("bytes lie outside its storage")?;
        let (numbers, _) = window.as_chunks::<8>();
        let values = numbers.iter().map(|b| f64::from_le_bytes(*b) as f32).collect();
        Ok(Some(FrozenData::from_f32(values, &self.shape)))
    }

    /// The elements as f32, row-major: floats, integers and truth values. None where its type is none of these.
    ///
    /// # Errors
    /// As [`Self::contiguous`].
    pub fn numbers(&self) -> Result<Option<Vec<f32>>, String> {
        if let Some(data) = self.frozen()? {
            return Ok(Some(data.to_f32(0..data.elements())));
        }
        let (bytes, range) = self.contiguous()?;
        let window = (*bytes).as_ref().get(range).ok_or("bytes lie outside its storage")?;
        macro_rules! numbers {
            ($type:ty) => {{
                let (numbers, _) = window.as_chunks::<{ size_of::<$type>() }>();
                numbers.iter().map(|b| <$type>::from_le_bytes(*b) as f32).collect()
            }};
        }
        Ok(Some(match self.element.name {
            "I64" => numbers!(i64),
            "I32" => numbers!(i32),
            "I16" => numbers!(i16),
            "I8" => numbers!(i8),
            "U64" => numbers!(u64),
            "U32" => numbers!(u32),
            "U16" => numbers!(u16),
            "U8" | "BOOL" => numbers!(u8),
            _ => return Ok(None),
        }))
    }

    /// The elements of strided bytes in row-major order.
    fn gather(&self, window: &[u8]) -> Result<Vec<u8>, String> {
        let Some(strides) = &self.strides else { return Ok(window.to_vec()) };
        let size = self.element.bytes();
        let mut out = Vec::new();
        out.try_reserve_exact(self.byte_len()).map_err(|e| format!("no memory for {} bytes: {e}", self.byte_len()))?;
        let (Some((&columns, outer)), Some((&step, steps))) = (self.shape.split_last(), strides.split_last()) else {
            return Ok(window.to_vec());
        };
        let outside = || "a stride leads outside its storage".to_string();
        let mut index = vec![0usize; outer.len()];
        for _ in 0..outer.iter().product::<usize>() {
            let first: usize = index.iter().zip(steps).map(|(i, s)| i * s).sum();
            for column in 0..columns {
                let at = (first + column * step) * size;
                out.extend_from_slice(window.get(at..at + size).ok_or_else(outside)?);
            }
            for (i, n) in index.iter_mut().zip(outer).rev() {
                *i += 1;
                if *i < *n {
                    break;
                }
                *i = 0;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(element: &str, shape: &[usize], strides: Option<&[usize]>, bytes: Vec<u8>) -> StoredTensor {
        StoredTensor {
            element: Element::named(element).unwrap(),
            shape: shape.to_vec(),
            strides: strides.map(<[usize]>::to_vec),
            window: 0..bytes.len(),
            swapped: false,
            storage: Storage::Plain(Arc::new(bytes)),
        }
    }

    fn f32s(n: usize) -> Vec<u8> {
        (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect()
    }

    fn values(tensor: &StoredTensor) -> Vec<f32> {
        let data = tensor.frozen().unwrap().unwrap();
        data.to_f32(0..data.elements())
    }

    #[test]
    fn strided_tensors_become_contiguous() {
        assert_eq!(values(&stored("F32", &[2, 3], None, f32s(6))), [0., 1., 2., 3., 4., 5.]);
        assert_eq!(values(&stored("F32", &[3, 2], Some(&[1, 3]), f32s(6))), [0., 3., 1., 4., 2., 5.]);
        assert_eq!(values(&stored("F32", &[2, 2], Some(&[0, 1]), f32s(2))), [0., 1., 0., 1.]);
        assert_eq!(values(&stored("F32", &[3], Some(&[3]), f32s(7))), [0., 3., 6.]);
        assert_eq!(values(&stored("F32", &[2, 0], Some(&[5, 9]), Vec::new())), [0f32; 0]);
    }

    #[test]
    fn rows_in_another_order_and_turned_matrices() {
        let bytes: SharedBytes = Arc::new(f32s(6));
        let shuffled = Shuffled { bytes, window: 0..24, order: vec![2, 0, 1] };
        let storage = Storage::Shuffled(Arc::new(shuffled));
        let tensor = StoredTensor { storage, ..stored("F32", &[3, 2], None, f32s(6)) };
        assert_eq!(values(&tensor), [4., 5., 0., 1., 2., 3.]);
        let transposed = stored("F32", &[2, 3], None, f32s(6)).transposed().unwrap();
        assert_eq!((transposed.shape.as_slice(), values(&transposed)), (&[3, 2][..], vec![0., 3., 1., 4., 2., 5.]));
        assert_eq!(values(&transposed.transposed().unwrap()), [0., 1., 2., 3., 4., 5.]);
        assert!(
            stored("Q8_0", &[1, 32], None, vec![0; 34]).transposed().err().unwrap().contains("cannot be transposed")
        );
        assert!(stored("F32", &[6], None, f32s(6)).transposed().err().unwrap().contains("not a matrix"));
    }

    #[test]
    fn other_types_and_byte_orders() {
        let f64s = [1.5f64, -2.25].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(values(&stored("F64", &[2], None, f64s)), [1.5, -2.25]);
        let big = [1.5f32, -2.25].iter().flat_map(|x| x.to_be_bytes()).collect();
        let tensor = StoredTensor { swapped: true, ..stored("F32", &[2], None, big) };
        assert_eq!(values(&tensor), [1.5, -2.25]);
        assert!(stored("I64", &[1], None, vec![0; 8]).frozen().unwrap().is_none());
    }
}
