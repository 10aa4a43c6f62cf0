//! The matrix products of a block while a gradient goes through it: computed, kept, taken again, or left out.
//!
//! A frozen weight has no gradient, so its product's input need not be kept, and the value of a product that nothing but
//! sums follow is not needed either. What a block's gradient needs is its input and those products behind which a norm,
//! an activation or attention stands; everything else is cheap to compute again.

use crate::decoder::Run;
use crate::frozen::{FrozenLinear, forward_all, forward_given};
use candle_core::{Result, Tensor};
use std::collections::VecDeque;

/// What a run does with the products of its blocks.
#[derive(Debug, Clone, Default)]
pub enum Products {
    /// Computes them.
    #[default]
    Computed,
    /// Computes them, and keeps in order those that a gradient needs.
    Kept(Vec<Tensor>),
    /// The block runs again for its gradient: kept products are taken in order, those that were not kept are computed,
    /// and the block's last ones are left zero.
    Again(VecDeque<Tensor>),
}

impl Run<'_> {
    /// The outputs of several layers over one input x `[.., n_in]` f32, as [`forward_all`], by way of [`Products`].
    ///
    /// # Errors
    /// A last dimension that is not every layer's n_in.
    pub fn products<const N: usize>(&mut self, layers: [&FrozenLinear; N], x: &Tensor) -> Result<[Tensor; N]> {
        match &mut self.products {
            Products::Again(kept) if kept.len() >= N => forward_given(layers, x, kept.drain(..N).map(Some).collect()),
            Products::Kept(kept) => {
                let outputs = forward_all(layers, x)?;
                kept.extend(outputs.iter().map(Tensor::detach));
                Ok(outputs)
            }
            _ => forward_all(layers, x),
        }
    }

    /// [`Self::products`] of one layer.
    ///
    /// # Errors
    /// As [`Self::products`].
    pub fn product(&mut self, layer: &FrozenLinear, x: &Tensor) -> Result<Tensor> {
        let [y] = self.products([layer], x)?;
        Ok(y)
    }

    /// The product of a layer behind which the block only adds up: its value has no part in the block's gradient.
    ///
    /// # Errors
    /// As [`Self::products`].
    pub fn last_product(&self, layer: &FrozenLinear, x: &Tensor) -> Result<Tensor> {
        match &self.products {
            Products::Again(_) => {
                let [y] = forward_given([layer], x, vec![None])?;
                Ok(y)
            }
            _ => layer.forward(x),
        }
    }
}

/// Rows `rows` `[n]` u32 of x `[.., W]`, counted over all leading dimensions: `[n, W]`; all of x where none are named.
///
/// # Errors
/// A row that x does not have.
pub fn pick(x: &Tensor, rows: Option<&Tensor>) -> Result<Tensor> {
    let Some(rows) = rows else { return Ok(x.clone()) };
    let width = x.dim(candle_core::D::Minus1)?;
    x.reshape((x.elem_count() / width.max(1), width))?.index_select(rows, 0)
}
