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
    let (t, g, e) = (s.vit.trained, s.vit.grid, s.vit.width);
    let table = w.tensor("position_embeddings", &[1, 1 + t * t, e], ZEROS)?;
    let patches = table.narrow(1, 1, t * t)?.reshape((t, t, e))?;
    let patches = interpolate(&patches, (g, g), Interpolation::Bicubic)?;
    Ok((table.narrow(1, 0, 1)?, patches.reshape((1, g * g, e))?))
}

/// `relative_position_bias_table` `[(2 trained - 1)² + 3, H]` for a grid of this image size: `[(2 grid - 1)² + 3, H]`.
pub(super) fn bias(w: &Weights, s: &Sizes) -> Result<Tensor> {
    let (old, new) = (2 * s.vit.trained - 1, 2 * s.vit.grid - 1);
    let heads = s.vit.heads.queries;
    let table = w.tensor(super::TABLE, &[old * old + 3, heads], ZEROS)?;
    let distances = table.narrow(0, 0, old * old)?.reshape((old, old, heads))?;
    let distances = interpolate(&distances, (new, new), Interpolation::Bilinear)?.reshape((new * new, heads))?;
    // The last three rows are from the class token, to it, and of it to itself.
    Ok(Tensor::cat(&[&distances, &table.narrow(0, old * old, 3)?], 0)?)
}
