//! One way through a block: a plain forward pass, one that saves what a gradient needs, or the second one in the backward
//! pass.
//!
//! A frozen weight has no gradient, so its product's input need not be kept, and the value of a product that nothing but
//! sums follow is not needed either. What a block's gradient needs is its input and those products behind which a norm,
//! an activation or attention stands; everything else is cheap to compute again (Chen et al., arXiv 1604.06174; selective
//! as in Korthikanti et al., arXiv 2205.05198).
//!
//! In a second pass, what has no reader becomes a backward-only node, of zeros, and memory is used again. Both are private
//! to the block: no tensor of a second pass leaves it.

use crate::backend::Backend;
use crate::frozen::{Epilogue, FrozenLinear, Hidden, HiddenState, Mlp, backward_only_sum, forward_given, forward_list};
use crate::ops::{Norm, Rotary, Use};
use candle_core::{Result, Tensor};
use std::collections::VecDeque;

/// What a pass does with the products of a block.
pub(crate) enum Pass {
    /// Computes them.
    Forward,
    /// Computes them, and saves in order those that a gradient needs.
    Save(Vec<Tensor>),
    /// Computes those that a gradient needs, and leaves out the values of the block's last ones.
    Full,
    /// Takes the saved ones in order, and leaves out the values of the block's last ones.
    Selective(VecDeque<Tensor>),
}

impl Pass {
    /// Whether this is the second pass, in the block's backward pass.
    pub fn is_second(&self) -> bool {
        matches!(self, Self::Full | Self::Selective(_))
    }

    /// The next saved products.
    fn saved(saved: &mut VecDeque<Tensor>, count: usize) -> Result<Vec<Option<Tensor>>> {
        if saved.len() < count {
            candle_core::bail!("{} saved products of a block, expected {count} or more", saved.len())
        }
        Ok(saved.drain(..count).map(Some).collect())
    }

    /// The outputs of several layers over one input x `[.., n_in]` f32, each with its epilogue.
    pub fn products(&mut self, layers: &[(&FrozenLinear, Epilogue)], x: &Tensor) -> Result<Vec<Tensor>> {
        let plain: Vec<&FrozenLinear> = layers.iter().map(|(layer, _)| *layer).collect();
        let outputs = match self {
            Self::Forward | Self::Full => return forward_list(layers, x),
            Self::Selective(saved) => forward_given(&plain, x, Self::saved(saved, layers.len())?)?,
            Self::Save(saved) => {
                let plain: Vec<(&FrozenLinear, Epilogue)> =
                    plain.iter().map(|layer| (*layer, Epilogue::NONE)).collect();
                let outputs = forward_list(&plain, x)?;
                saved.extend(outputs.iter().map(Tensor::detach));
                outputs
            }
        };
        outputs.into_iter().zip(layers).map(|(y, (layer, epilogue))| epilogue.apply_on(layer.backend(), y)).collect()
    }

    /// [`Self::products`] of one layer.
    pub fn product(&mut self, layer: &FrozenLinear, x: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
        match self.products(&[(layer, epilogue)], x)?.pop() {
            Some(y) => Ok(y),
            None => candle_core::bail!("a layer without an output"),
        }
    }

    /// `residual` and the product of a layer behind which the block only adds up: its value has no part in the block's
    /// gradient.
    pub fn last_product(&self, layer: &FrozenLinear, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        if !self.is_second() {
            return layer.forward_with(x, Epilogue::residual(residual));
        }
        match forward_given(&[layer], x, vec![None])?.pop() {
            Some(y) => backward_only_sum(layer.backend(), residual, &y),
            None => candle_core::bail!("a layer without an output"),
        }
    }

    /// The outputs of several layers and the first half of a fused MLP, in one pass over their input x `[.., D]` f32.
    pub fn products_and_hidden(
        &mut self,
        layers: &[&FrozenLinear],
        mlp: &Mlp,
        x: &Tensor,
    ) -> Result<(Vec<Tensor>, Hidden)> {
        match self {
            Self::Forward | Self::Full => mlp.first(layers, x, x.track_op()),
            Self::Save(saved) => {
                let (outputs, hidden) = mlp.first(layers, x, true)?;
                saved.extend(outputs.iter().map(Tensor::detach));
                if let HiddenState::PreActivation(h) = &hidden.state {
                    saved.push(h.clone());
                }
                Ok((outputs, hidden))
            }
            Self::Selective(saved) => {
                let outputs = forward_given(layers, x, Self::saved(saved, layers.len())?)?;
                match saved.pop_front() {
                    Some(h) => Ok((outputs, Hidden { x: x.clone(), state: HiddenState::PreActivation(h) })),
                    None => candle_core::bail!("a block without a saved pre-activation"),
                }
            }
        }
    }

    /// The second half of a fused MLP, added to `residual` where there is one.
    pub fn mlp(&mut self, mlp: &Mlp, hidden: Hidden, residual: Option<&Tensor>) -> Result<Tensor> {
        let h = match hidden.state {
            HiddenState::Activated(h) => return mlp.second_activated(&h, Epilogue { residual, ..Epilogue::NONE }),
            HiddenState::PreActivation(h) => h,
        };
        let y = match self {
            Self::Selective(saved) => match saved.pop_front() {
                Some(y) => y,
                None => candle_core::bail!("a block without the saved output of its mlp"),
            },
            _ => mlp.second_half(&h, None)?,
        };
        if let Self::Save(saved) = self {
            saved.push(y.clone());
        }
        let y = mlp.graph(&hidden.x, h, Some(y.flatten_all()?.to_vec1()?), self.is_second())?;
        residual.map_or(Ok(y.clone()), |residual| residual + y)
    }

    /// [`Self::mlp`] behind which the block only adds up, as [`Self::last_product`].
    pub fn last_mlp(&mut self, mlp: &Mlp, hidden: Hidden, residual: &Tensor) -> Result<Tensor> {
        match hidden {
            Hidden { x, state: HiddenState::PreActivation(h) } if self.is_second() => {
                backward_only_sum(Backend::Kernels, residual, &mlp.graph(&x, h, None, true)?)
            }
            Hidden { x, state: HiddenState::PreActivation(h) } if !x.track_op() && !residual.track_op() => {
                mlp.second_half(&h, Some(residual))
            }
            hidden => self.mlp(mlp, hidden, Some(residual)),
        }
    }

    /// x `[.., D]` f32 behind a norm whose result goes to products, hidden layers and gathered rows of it alone: where these
    /// are saved, nothing reads its value.
    pub fn normed(&self, norm: &Norm, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Selective(_) => norm.backward_only(x),
            _ => norm.forward(x),
        }
    }

    /// x `[.., D]` f32 behind a norm behind which the block only adds up.
    pub fn last_normed(&self, norm: &Norm, x: &Tensor) -> Result<Tensor> {
        if self.is_second() { norm.backward_only(x) } else { norm.forward(x) }
    }

    /// `residual` and what the block ends in.
    pub fn last_sum(&self, backend: Backend, residual: &Tensor, y: &Tensor) -> Result<Tensor> {
        if self.is_second() { backward_only_sum(backend, residual, y) } else { residual + y }
    }

    /// Heads `[B, T, H, head_dim]` f32 rotated by their positions; nothing else may read them.
    pub fn rotated(
        &self,
        backend: Backend,
        rotary: &Rotary,
        x: &Tensor,
        past: &[usize],
        lengths: &[usize],
    ) -> Result<Tensor> {
        rotary.apply_on(backend, x, past, lengths, self.is_second())
    }

    /// What is done with attention whose result goes to the out projection alone: `last` where only sums follow that.
    pub fn attention(&self, last: bool) -> Use {
        let value = match self {
            Self::Forward | Self::Save(_) => true,
            Self::Full => !last,
            Self::Selective(_) => false,
        };
        Use { once: self.is_second(), value }
    }
}
