//! One frozen tensor: a window of shared bytes, read where it lies, converted only where another type is asked for.

use super::WeightType;
use bytemuck::Pod;
use half::{bf16, f16};
use rayon::prelude::*;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that stay where they are: a mapped file, or memory.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// One frozen tensor, a window into shared bytes: row-major, aligned to its type.
#[derive(Clone)]
pub struct FrozenData {
    bytes: SharedBytes,
    range: Range<usize>,
    dtype: WeightType,
    shape: Vec<usize>,
}

impl fmt::Debug for FrozenData {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "FrozenData({} {:?})", self.dtype, self.shape)
    }
}

impl FrozenData {
    /// A window of `bytes`. A window that is not aligned to its type is copied once.
    ///
    /// # Errors
    /// A range outside the bytes or of another length than the shape and type need.
    pub fn new(bytes: SharedBytes, range: Range<usize>, dtype: WeightType, shape: &[usize]) -> Result<Self, String> {
        let window = (*bytes)
            .as_ref()
            .get(range.clone())
            .ok_or_else(|| format!("bytes {range:?} lie outside the {} there are", (*bytes).as_ref().len()))?;
        if dtype.bytes(shape) != Some(window.len()) {
            return Err(format!("{} bytes for shape {shape:?} of {dtype}", window.len()));
        }
        if (window.as_ptr() as usize).is_multiple_of(dtype.alignment()) {
            return Ok(Self { bytes, range, dtype, shape: shape.to_vec() });
        }
        Ok(if dtype == WeightType::F32 {
            let values = window.chunks_exact(4).map(bytemuck::pod_read_unaligned::<u32>).collect();
            Self::from_vec::<u32>(values, dtype, shape)
        } else {
            let values = window.chunks_exact(2).map(bytemuck::pod_read_unaligned::<u16>).collect();
            Self::from_vec::<u16>(values, dtype, shape)
        })
    }

    /// Owned elements; `values` holds the bits of `dtype`.
    fn from_vec<T: Pod + Send + Sync>(values: Vec<T>, dtype: WeightType, shape: &[usize]) -> Self {
        struct Owned<T>(Vec<T>);
        impl<T: Pod> AsRef<[u8]> for Owned<T> {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        let range = 0..size_of_val(values.as_slice());
        Self { bytes: Arc::new(Owned(values)), range, dtype, shape: shape.to_vec() }
    }

    /// Owned f32 elements of `shape`.
    pub fn from_f32(values: Vec<f32>, shape: &[usize]) -> Self {
        Self::from_vec(values, WeightType::F32, shape)
    }

    /// Owned f16 elements of `shape`.
    pub fn from_f16(values: Vec<f16>, shape: &[usize]) -> Self {
        Self::from_vec(values, WeightType::F16, shape)
    }

    /// Owned bf16 elements of `shape`.
    pub fn from_bf16(values: Vec<bf16>, shape: &[usize]) -> Self {
        Self::from_vec(values, WeightType::Bf16, shape)
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> WeightType {
        self.dtype
    }

    /// The bytes, row-major.
    pub fn bytes(&self) -> &[u8] {
        &(*self.bytes).as_ref()[self.range.clone()]
    }

    /// The elements as the kernels take them.
    pub fn kernel_weight(&self) -> limber_kernels::Weight<'_> {
        // Alignment was established by the constructors, so these casts cannot fail.
        match self.dtype {
            WeightType::F32 => limber_kernels::Weight::F32(bytemuck::cast_slice(self.bytes())),
            WeightType::F16 => limber_kernels::Weight::F16(bytemuck::cast_slice(self.bytes())),
            WeightType::Bf16 => limber_kernels::Weight::Bf16(bytemuck::cast_slice(self.bytes())),
            WeightType::Q8_0 => limber_kernels::Weight::Q8_0(self.bytes()),
            WeightType::Q4K => limber_kernels::Weight::Q4K(self.bytes()),
            WeightType::Blocks(format) => limber_kernels::Weight::Blocks(format, self.bytes()),
        }
    }

    /// Elements `range` of the row-major order, in f32.
    pub fn to_f32(&self, range: Range<usize>) -> Vec<f32> {
        match self.dtype {
            WeightType::F32 => bytemuck::cast_slice::<u8, f32>(self.bytes())[range].to_vec(),
            WeightType::F16 => {
                bytemuck::cast_slice::<u8, f16>(self.bytes())[range].iter().map(|x| x.to_f32()).collect()
            }
            WeightType::Bf16 => {
                bytemuck::cast_slice::<u8, bf16>(self.bytes())[range].iter().map(|x| x.to_f32()).collect()
            }
            WeightType::Q8_0 | WeightType::Q4K | WeightType::Blocks(_) => self.decode(range),
        }
    }

    /// Numbers of quantised blocks, in f32.
    fn decode(&self, range: Range<usize>) -> Vec<f32> {
        let (numbers, size) = self.dtype.block();
        let blocks = range.start / numbers..range.end.div_ceil(numbers);
        let bytes = &self.bytes()[blocks.start * size..blocks.end * size];
        let weight = match self.dtype {
            WeightType::Blocks(format) => limber_kernels::Weight::Blocks(format, bytes),
            WeightType::Q8_0 => limber_kernels::Weight::Q8_0(bytes),
            _ => limber_kernels::Weight::Q4K(bytes),
        };
        let mut out = vec![0f32; blocks.len() * numbers];
        limber_kernels::dequantize(weight, &mut out).expect("whole blocks, as long as the output");
        out.truncate(range.end - blocks.start * numbers);
        out.drain(..range.start - blocks.start * numbers);
        out
    }

    /// Rows `rows` of the first dimension as a tensor of its own, where they lie: q, k and v of a fused matrix.
    ///
    /// # Errors
    /// Rows that are not there.
    pub fn rows(&self, rows: Range<usize>) -> Result<Self, String> {
        let all = self.shape.first().copied().unwrap_or(0);
        if rows.start > rows.end || rows.end > all {
            return Err(format!("rows {rows:?} of a tensor of {all}"));
        }
        let row = (self.range.end - self.range.start) / all.max(1);
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let start = self.range.start + rows.start * row;
        Self::new(self.bytes.clone(), start..start + rows.len() * row, self.dtype, &shape)
    }

    /// A matrix `[n, m]` as `[m, n]`: a copy, for checkpoints that store linear layers as `x W` (GPT-2's `Conv1D`).
    ///
    /// # Errors
    /// A tensor that is not a matrix.
    pub fn transposed(&self) -> Result<Self, String> {
        fn transpose<T: Pod + Send + Sync>(values: &[T], n: usize, m: usize) -> Vec<T> {
            use rayon::prelude::*;
            let mut out = vec![T::zeroed(); n * m];
            // Eight rows of the result a piece, so that each cache line read serves several of them.
            out.par_chunks_mut(8 * n.max(1)).enumerate().for_each(|(piece, rows)| {
                for i in 0..n {
                    for (j, row) in rows.chunks_mut(n).enumerate() {
                        row[i] = values[i * m + piece * 8 + j];
                    }
                }
            });
            out
        }
        if self.dtype.is_quantised() {
            return Err(format!("a {} matrix cannot be transposed; quantise it as it is loaded", self.dtype));
        }
        let [n, m] = *self.shape.as_slice() else {
            return Err(format!("a tensor of shape {:?} is not a matrix", self.shape));
        };
        Ok(match self.dtype {
            WeightType::F32 => {
                Self::from_vec(transpose::<u32>(bytemuck::cast_slice(self.bytes()), n, m), self.dtype, &[m, n])
            }
            _ => Self::from_vec(transpose::<u16>(bytemuck::cast_slice(self.bytes()), n, m), self.dtype, &[m, n]),
        })
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The same tensor in another type, rounded to nearest even; a copy only where the type changes. A quantised
    /// type is taken as far as the rows are whole blocks, see [`WeightType::fitting`].
    pub fn convert(self, dtype: WeightType) -> Self {
        let dtype = dtype.fitting(&self.shape);
        if self.dtype == dtype {
            return self;
        }
        let n = self.elements();
        match dtype {
            WeightType::F32 => Self::from_f32(self.rounded(|x| x), &self.shape),
            WeightType::F16 => Self::from_f16(self.rounded(f16::from_f32), &self.shape),
            WeightType::Bf16 => Self::from_bf16(self.rounded(bf16::from_f32), &self.shape),
            // Nothing codes these: the numbers are kept as they are.
            WeightType::Blocks(_) => self.clone().convert(WeightType::F32),
            WeightType::Q8_0 | WeightType::Q4K => {
                let coder = match dtype {
                    WeightType::Q8_0 => limber_kernels::quantize_q8_0,
                    _ => limber_kernels::quantize_q4_k,
                };
                // A piece at a time, so that there is never an f32 copy of the whole.
                const PIECE: usize = 64 * BLOCK;
                let mut out = Vec::with_capacity(dtype.bytes(&self.shape).unwrap_or(0));
                for start in (0..n).step_by(PIECE) {
                    let piece = self.to_f32(start..(start + PIECE).min(n));
                    out.extend(coder(&piece).expect("rows are whole blocks"));
                }
                Self::from_vec::<u8>(out, dtype, &self.shape)
            }
        }
    }

    /// All elements, each as `round` gives it, on all threads.
    fn rounded<T: Copy + Default + Send>(&self, round: impl Fn(f32) -> T + Sync) -> Vec<T> {
        let mut out = vec![T::default(); self.elements()];
        out.par_chunks_mut(BLOCK).enumerate().for_each(|(i, part)| {
            let values = self.to_f32(i * BLOCK..i * BLOCK + part.len());
            part.iter_mut().zip(values).for_each(|(to, x)| *to = round(x));
        });
        out
    }
}

/// Elements that a thread converts at a time.
const BLOCK: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 0.1).collect()
    }

    #[test]
    fn quantised_matrices_keep_their_values_and_lie_in_blocks() {
        let values = noise(3 * 512);
        // Half a step of a block: 0.1 / 127 for q8_0, 0.2 / 15 for q4_k, whose scales are rounded to 6 bits besides.
        for (dtype, bytes, step) in [(WeightType::Q8_0, 3 * 16 * 34, 0.000_42), (WeightType::Q4K, 3 * 2 * 144, 0.0085)]
        {
            let data = FrozenData::from_f32(values.clone(), &[3, 512]).convert(dtype);
            assert_eq!((data.dtype(), data.bytes().len(), data.elements()), (dtype, bytes, 1536));
            let back = data.to_f32(0..1536);
            let far = back.iter().zip(&values).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            assert!(far < step, "{dtype}: {far}");
            // Any range, whole blocks or not.
            for range in [0..1, 31..33, 250..600, 1535..1536, 700..700] {
                assert_eq!(data.to_f32(range.clone()), back[range.clone()], "{dtype} {range:?}");
            }
            let row = data.rows(1..2).unwrap();
            assert_eq!((row.shape(), row.to_f32(0..512)), (&[1, 512][..], back[512..1024].to_vec()));
            assert_eq!(data.clone().convert(WeightType::F32).to_f32(0..1536), back);
            assert!(data.transposed().unwrap_err().contains("cannot be transposed"));
        }
    }

    #[test]
    fn rows_that_are_no_whole_blocks_take_the_next_type() {
        for (dtype, shape, fitting) in [
            (WeightType::Q4K, [2, 256], WeightType::Q4K),
            (WeightType::Q4K, [2, 160], WeightType::Q8_0),
            (WeightType::Q4K, [2, 33], WeightType::F32),
            (WeightType::Q8_0, [256, 31], WeightType::F32),
            (WeightType::Bf16, [3, 7], WeightType::Bf16),
        ] {
            assert_eq!(dtype.fitting(&shape), fitting);
            let data = FrozenData::from_f32(noise(shape[0] * shape[1]), &shape).convert(dtype);
            assert_eq!(data.dtype(), fitting);
        }
        let message = FrozenData::new(Arc::new(vec![0u8; 34]), 0..34, WeightType::Q8_0, &[1, 33]).unwrap_err();
        assert_eq!(message, "34 bytes for shape [1, 33] of q8_0");
    }

    #[test]
    fn a_matrix_is_transposed_in_its_own_type() {
        let values: Vec<f32> = (0..15 * 19).map(|i| i as f32).collect();
        let transposed: Vec<f32> = (0..19 * 15).map(|i| values[i % 15 * 19 + i / 15]).collect();
        for dtype in [WeightType::F32, WeightType::F16, WeightType::Bf16] {
            let data = FrozenData::from_f32(values.clone(), &[15, 19]).convert(dtype).transposed().unwrap();
            assert_eq!((data.shape(), data.dtype()), (&[19, 15][..], dtype));
            assert_eq!(
                data.to_f32(0..285),
                transposed
                    .iter()
                    .map(|v| { FrozenData::from_f32(vec![*v], &[1]).convert(dtype).to_f32(0..1)[0] })
                    .collect::<Vec<_>>()
            );
        }
        assert!(FrozenData::from_f32(values, &[285]).transposed().is_err());
    }
}
