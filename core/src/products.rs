//! The matrix products of a block while a gradient goes through it: computed, kept, taken again, or left out.
//!
//! A frozen weight has no gradient, so its product's input need not be kept, and the value of a product that nothing but
//! sums follow is not needed either. What a block's gradient needs is its input and those products behind which a norm,
//! an activation or attention stands; everything else is cheap to compute again.

use crate::decoder::Run;
use crate::frozen::{
    After, FrozenLinear, Hidden, Mlp, Numbers, contiguous_f32, finish, forward_all, forward_all_then, forward_given,
    sum_without_value,
};
use crate::ops::{LayerNorm, Rotary};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
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
    /// and the values of the block's last ones are left out.
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
    /// Where the block runs for that, the value is left out, so the result is the block's output or the `onto` of another:
    /// anything else that reads it ends in an error or, among candle's own operations, in a panic.
    ///
    /// # Errors
    /// As [`Self::products`]; an `onto` of another shape than the product.
    pub fn last_product(&self, layer: &FrozenLinear, x: &Tensor, onto: &Tensor) -> Result<Tensor> {
        match &self.products {
            Products::Again(_) => {
                let [y] = forward_given([layer], x, vec![None])?;
                sum_without_value(onto, &y)
            }
            _ => layer.forward_then(x, After::onto(onto)),
        }
    }

    /// The first half of an MLP over x `[.., D]` f32, for [`Self::mlp`] or [`Self::last_mlp`].
    ///
    /// # Errors
    /// A last dimension that is not the MLP's.
    pub fn hidden(&mut self, mlp: &Mlp, x: &Tensor) -> Result<Hidden> {
        let ([], hidden) = self.products_and_hidden([], mlp, x)?;
        Ok(hidden)
    }

    /// [`Self::products`] and [`Self::hidden`] over one input, in one pass over it.
    ///
    /// # Errors
    /// As both.
    pub fn products_and_hidden<const N: usize>(
        &mut self,
        layers: [&FrozenLinear; N],
        mlp: &Mlp,
        x: &Tensor,
    ) -> Result<([Tensor; N], Hidden)> {
        match &mut self.products {
            Products::Again(kept) if kept.len() > N => {
                let mut given: Vec<Tensor> = kept.drain(..=N).collect();
                let Some(bare) = given.pop() else { candle_core::bail!("an mlp without hidden numbers") };
                let outputs = forward_given(layers, x, given.into_iter().map(Some).collect())?;
                Ok((outputs, Hidden { x: x.clone(), numbers: Numbers::Bare(bare) }))
            }
            Products::Kept(kept) => {
                let (outputs, hidden) = mlp.first(layers, x, true)?;
                kept.extend(outputs.iter().map(Tensor::detach));
                if let Numbers::Bare(bare) = &hidden.numbers {
                    kept.push(bare.clone());
                }
                Ok((outputs, hidden))
            }
            _ => mlp.first(layers, x, x.track_op()),
        }
    }

    /// `onto` and the second half of an MLP.
    ///
    /// # Errors
    /// An `onto` of another shape than the output.
    pub fn mlp(&mut self, mlp: &Mlp, hidden: Hidden, onto: &Tensor) -> Result<Tensor> {
        let (x, h) = match hidden {
            Hidden { numbers: Numbers::Active(h), .. } => return mlp.second_active(&h, onto),
            Hidden { x, numbers: Numbers::Bare(h) } => (x, h),
        };
        let y = match &mut self.products {
            Products::Again(kept) => match kept.pop_front() {
                Some(y) => y,
                None => mlp.second_bare(&h, None)?,
            },
            Products::Kept(kept) => {
                let y = mlp.second_bare(&h, None)?;
                kept.push(y.clone());
                y
            }
            Products::Computed => mlp.second_bare(&h, None)?,
        };
        let once = matches!(self.products, Products::Again(_));
        onto + mlp.graph(&x, h, Some(y.flatten_all()?.to_vec1()?), once)?
    }

    /// [`Self::mlp`] behind which the block only adds up, as [`Self::last_product`].
    ///
    /// # Errors
    /// As [`Self::mlp`].
    pub fn last_mlp(&mut self, mlp: &Mlp, hidden: Hidden, onto: &Tensor) -> Result<Tensor> {
        match (&self.products, hidden) {
            (Products::Again(_), Hidden { x, numbers: Numbers::Bare(h) }) => {
                sum_without_value(onto, &mlp.graph(&x, h, None, true)?)
            }
            (_, Hidden { x, numbers: Numbers::Bare(h) }) if !x.track_op() && !onto.track_op() => {
                mlp.second_bare(&h, Some(onto))
            }
            (_, hidden) => self.mlp(mlp, hidden, onto),
        }
    }

    /// x `[.., D]` f32 behind a norm whose result goes to products, hidden layers and a [`pick`] of these alone: where they
    /// are known, its value is left out.
    ///
    /// # Errors
    /// As [`LayerNorm::forward`].
    pub fn normed(&self, norm: &LayerNorm, x: &Tensor) -> Result<Tensor> {
        match &self.products {
            Products::Again(kept) if !kept.is_empty() => norm.without_value(x),
            _ => norm.forward(x),
        }
    }

    /// x `[B, T, H, head_dim]` f32 turned by its positions, as [`Rotary::apply_rows`]. Nothing else may read x, whose memory
    /// is used again where a block runs for its gradient.
    ///
    /// # Errors
    /// As [`Rotary::apply_rows`].
    pub fn turned(&self, rotary: &Rotary, x: Tensor, past: &[usize], lengths: &[usize]) -> Result<Tensor> {
        match &self.products {
            Products::Again(_) => rotary.turn_rows(&x, past, lengths),
            _ => rotary.apply_rows(&x, past, lengths),
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
    let x = x.reshape((x.elem_count() / width.max(1), width))?;
    if !x.device().is_cpu() {
        return x.index_select(rows, 0);
    }
    let (rows, count) = (rows.to_vec1::<u32>()?, x.dim(0)?);
    if let Some(bad) = rows.iter().find(|row| **row as usize >= count) {
        candle_core::bail!("row {bad} is not in 0..{count}")
    }
    x.contiguous()?.apply_op1(Pick(rows))
}

/// Rows of a matrix; of one whose numbers were left out, rows without numbers.
struct Pick(Vec<u32>);

impl CustomOp1 for Pick {
    fn name(&self) -> &'static str {
        "pick"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, width) = layout.shape().dims2()?;
        let shape = Shape::from((self.0.len(), width));
        if matches!(storage, CpuStorage::F32(numbers) if numbers.is_empty()) {
            return Ok((CpuStorage::F32(Vec::new()), shape));
        }
        let x = contiguous_f32(self.name(), storage, layout)?;
        let mut y = Vec::with_capacity(shape.elem_count());
        self.0.iter().for_each(|row| y.extend_from_slice(&x[*row as usize * width..][..width]));
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (_, width) = x.dims2()?;
        let grad = grad.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
        let mut gx = vec![0f32; x.elem_count()];
        for (row, grad) in self.0.iter().zip(grad.chunks_exact(width.max(1))) {
            for (sum, g) in gx[*row as usize * width..].iter_mut().zip(grad) {
                *sum += g;
            }
        }
        Ok(Some(Tensor::from_vec(gx, x.shape(), x.device())?))
    }
}
