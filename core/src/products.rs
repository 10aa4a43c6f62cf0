//! The matrix products of a block while a gradient goes through it: computed, kept, taken again, or left out.
//!
//! A frozen weight has no gradient, so its product's input need not be kept, and the value of a product that nothing but
//! sums follow is not needed either. What a block's gradient needs is its input and those products behind which a norm,
//! an activation or attention stands; everything else is cheap to compute again.

use crate::decoder::Run;
use crate::frozen::{After, FrozenLinear, finish, forward_all, forward_all_then, forward_given};
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
        self.products_then(layers.map(|layer| (layer, After::NOTHING)), x)
    }

    /// [`Self::products`], each with what comes after it.
    ///
    /// # Errors
    /// As [`Self::products`]; tensors of other shapes in what comes after.
    pub fn products_then<const N: usize>(
        &mut self,
        layers: [(&FrozenLinear, After); N],
        x: &Tensor,
    ) -> Result<[Tensor; N]> {
        let afters = layers.map(|(_, after)| after);
        match &mut self.products {
            Products::Again(kept) if kept.len() >= N => {
                let given = kept.drain(..N).map(Some).collect();
                finish(forward_given(layers.map(|(layer, _)| layer), x, given)?, afters)
            }
            Products::Kept(kept) => {
                let outputs = forward_all(layers.map(|(layer, _)| layer), x)?;
                kept.extend(outputs.iter().map(Tensor::detach));
                finish(outputs, afters)
            }
            _ => forward_all_then(layers, x),
        }
    }

    /// [`Self::products`] of one layer.
    ///
    /// # Errors
    /// As [`Self::products`].
    pub fn product(&mut self, layer: &FrozenLinear, x: &Tensor) -> Result<Tensor> {
        self.product_then(layer, x, After::NOTHING)
    }

    /// [`Self::products_then`] of one layer.
    ///
    /// # Errors
    /// As [`Self::products_then`].
    pub fn product_then(&mut self, layer: &FrozenLinear, x: &Tensor, after: After) -> Result<Tensor> {
        let [y] = self.products_then([(layer, after)], x)?;
        Ok(y)
    }

    /// `onto` and the product of a layer behind which the block only adds up: its value has no part in the block's gradient.
    ///
    /// # Errors
    /// As [`Self::products`]; an `onto` of another shape than the product.
    pub fn last_product(&self, layer: &FrozenLinear, x: &Tensor, onto: &Tensor) -> Result<Tensor> {
        match &self.products {
            Products::Again(_) => {
                let [y] = finish(forward_given([layer], x, vec![None])?, [After::onto(onto)])?;
                Ok(y)
            }
            _ => layer.forward_then(x, After::onto(onto)),
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
