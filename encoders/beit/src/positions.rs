//! Where a patch lies: absolute embeddings, and the bias of scores by the distance of two patches.
//!
//! Source followed: `BeitEmbeddings.interpolate_pos_encoding` and `BeitRelativePositionBias` in transformers'
//! `modeling_beit.py`. Tables of another image size than S are resized as there: absolute ones bicubic, distances
//! bilinear.

use super::settings::Sizes;
use anyhow::Result;
use candle_core::Tensor;
use limber_core::Weights;
use limber_core::ops::{Interpolation, interpolate};
use limber_core::weights::ZEROS;

/// `position_embeddings` `[1, 1 + trained², E]` as the class token's `[1, 1, E]` and the patches' `[1, N, E]`.
pub(super) fn absolute(w: &Weights, s: &Sizes) -> Result<(Tensor, Tensor)> {
    let (t, g, e) = (s.trained_grid, s.grid, s.width);
    let table = w.tensor("position_embeddings", &[1, 1 + t * t, e], ZEROS)?;
    let patches = table.narrow(1, 1, t * t)?.reshape((t, t, e))?;
    let patches = interpolate(&patches, (g, g), Interpolation::Bicubic)?;
    Ok((table.narrow(1, 0, 1)?, patches.reshape((1, g * g, e))?))
}

/// `relative_position_bias_table` `[(2 trained - 1)² + 3, H]` as what the scores of every pair of tokens get, class
/// token first: `[H, 1 + N, 1 + N]`.
pub(super) fn bias(w: &Weights, s: &Sizes) -> Result<Tensor> {
    let (old, new) = (2 * s.trained_grid - 1, 2 * s.grid - 1);
    let table = w.tensor(super::TABLE, &[old * old + 3, s.heads], ZEROS)?;
    let distances = table.narrow(0, 0, old * old)?.reshape((old, old, s.heads))?;
    let distances = interpolate(&distances, (new, new), Interpolation::Bilinear)?.reshape((new * new, s.heads))?;
    // The last three rows are from the class token, to it, and of it to itself.
    let table = Tensor::cat(&[&distances, &table.narrow(0, old * old, 3)?], 0)?;
    let n = 1 + s.grid * s.grid;
    let pairs = table.index_select(&Tensor::new(rows(s.grid), table.device())?, 0)?; // [(1 + N)², H]
    Ok(pairs.t()?.contiguous()?.reshape((s.heads, n, n))?)
}

/// The table's row for every pair of tokens, class token first, of a grid of `g` x `g` patches: (1 + g²)² rows.
fn rows(g: usize) -> Vec<u32> {
    let (n, side) = (g * g, 2 * g - 1);
    let (from_class, to_class, itself) = (side * side, side * side + 1, side * side + 2);
    let mut rows = Vec::with_capacity((n + 1) * (n + 1));
    rows.push(itself as u32);
    rows.extend(std::iter::repeat_n(from_class as u32, n));
    for query in 0..n {
        rows.push(to_class as u32);
        for key in 0..n {
            let down = query / g + g - 1 - key / g;
            let right = query % g + g - 1 - key % g;
            rows.push((down * side + right) as u32);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    /// transformers' `generate_relative_position_index((2, 2))`.
    #[test]
    fn rows_are_transformers() {
        let expected = [11, 9, 9, 9, 9, 10, 4, 3, 1, 0, 10, 5, 4, 2, 1, 10, 7, 6, 4, 3, 10, 8, 7, 5, 4];
        assert_eq!(super::rows(2), expected);
        // One patch has one distance, to itself.
        assert_eq!(super::rows(1), [3, 1, 2, 0]);
    }
}
