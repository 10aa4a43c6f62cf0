//! Types of blocks that the kernels do not read: decoded as ggml does, a few rows at a time, and held in q8_0.
//!
//! llama.cpp's mixed files (`Q4_K_M`) keep some matrices in `Q6_K` or `Q5_K`; a step of q8_0 is several times finer than
//! theirs. Decoding is candle's.

use candle_core::Device;
use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
use limber_core::WeightType;
use limber_core::weights::FrozenData;
use std::sync::Arc;

/// Rows that are decoded together.
const ROWS: usize = 64;

/// candle's name of a type.
fn dtype(name: &str) -> Option<GgmlDType> {
    Some(match name {
        "Q4_0" => GgmlDType::Q4_0,
        "Q4_1" => GgmlDType::Q4_1,
        "Q5_0" => GgmlDType::Q5_0,
        "Q5_1" => GgmlDType::Q5_1,
        "Q2_K" => GgmlDType::Q2K,
        "Q3_K" => GgmlDType::Q3K,
        "Q5_K" => GgmlDType::Q5K,
        "Q6_K" => GgmlDType::Q6K,
        _ => return None,
    })
}

/// Whether [`decode`] knows a type.
pub(crate) fn is_known(name: &str) -> bool {
    dtype(name).is_some()
}

/// `bytes` of a matrix `[n, m]` in blocks of `name`, in q8_0; None where the type is not known here.
///
/// # Errors
/// A tensor that is no matrix, or of another length.
pub(crate) fn decode(name: &str, bytes: &[u8], shape: &[usize]) -> Result<Option<FrozenData>, String> {
    let Some(dtype) = dtype(name) else { return Ok(None) };
    let [n, m] = *shape else { return Err(format!("a {name} tensor of shape {shape:?} is not a matrix")) };
    let row = m / dtype.block_size() * dtype.type_size();
    if !m.is_multiple_of(dtype.block_size()) || bytes.len() != n * row {
        return Err(format!("{} bytes for shape {shape:?} of {name}", bytes.len()));
    }
    let mut out = Vec::with_capacity(WeightType::Q8_0.bytes(shape).unwrap_or(0));
    for piece in bytes.chunks(ROWS * row.max(1)) {
        let rows = piece.len() / row.max(1);
        let values = || -> candle_core::Result<Vec<f32>> {
            qtensor_from_ggml(dtype, piece, vec![rows, m], &Device::Cpu)?
                .dequantize(&Device::Cpu)?
                .flatten_all()?
                .to_vec1()
        };
        let values = values().map_err(|e| e.to_string())?;
        out.extend_from_slice(FrozenData::from_f32(values, &[rows, m]).convert(WeightType::Q8_0).bytes());
    }
    let range = 0..out.len();
    FrozenData::new(Arc::new(out), range, WeightType::Q8_0, shape).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_by_hand_and_what_does_not_fit() {
        // q4_0: an f16 scale, then 16 bytes: low nibbles are numbers 0 to 15, high ones 16 to 31, each less 8.
        let mut block = half::f16::from_f32(0.5).to_le_bytes().to_vec();
        block.extend((0..16).map(|i: u8| i | (15 - i) << 4));
        let rows: Vec<u8> = (0..130).flat_map(|_| block.clone()).collect();
        let data = decode("Q4_0", &rows, &[130, 32]).unwrap().unwrap();
        assert_eq!((data.dtype(), data.shape()), (WeightType::Q8_0, &[130, 32][..]));
        for at in [0, 129 * 32] {
            for (i, found) in data.to_f32(at..at + 32).into_iter().enumerate() {
                let nibble = if i < 16 { i } else { 31 - i };
                // Half a step of q8_0: 4 / 127 / 2.
                assert!((found - 0.5 * (nibble as f32 - 8.0)).abs() < 0.016, "{i}: {found}");
            }
        }
        assert!(decode("IQ1_S", &[], &[1, 256]).unwrap().is_none());
        assert!(decode("Q4_0", &rows[1..], &[130, 32]).unwrap_err().contains("bytes for shape"));
        assert!(decode("Q6_K", &[], &[4]).unwrap_err().contains("not a matrix"));
    }
}
