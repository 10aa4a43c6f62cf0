//! What follows a linear layer in the same pass over its output.

use crate::backend::Backend;
use crate::graph::times_frozen;
use crate::ops::Activation;
use candle_core::{Result, Tensor};

/// What becomes of a layer's output y: `activation(residual + scale y)`, in one pass where nothing wants a gradient.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Multiplies every row, `[n_out]` f32: a vision transformer's layer scale. It gets no gradient.
    pub scale: Option<&'a Tensor>,
    /// The residual stream, of the output's shape, f32.
    pub residual: Option<&'a Tensor>,
    /// Applied last.
    pub activation: Option<Activation>,
}

impl<'a> Epilogue<'a> {
    /// Nothing.
    pub const NONE: Epilogue<'static> = Epilogue { scale: None, residual: None, activation: None };

    /// The output is added to `x`.
    pub fn residual(x: &'a Tensor) -> Self {
        Self { residual: Some(x), ..Self::NONE }
    }

    /// The output passes through an activation.
    pub fn activation(activation: Activation) -> Self {
        Self { activation: Some(activation), ..Self::NONE }
    }

    /// Refuses a residual of another shape than the output's, `dims`.
    pub(super) fn check(&self, dims: &[usize]) -> Result<()> {
        match self.residual {
            Some(residual) if residual.dims() != dims => {
                candle_core::bail!("an output of shape {dims:?} to be added to {:?}", residual.dims())
            }
            _ => Ok(()),
        }
    }

    /// Whether a gradient of the residual may be asked for.
    pub(super) fn track_op(&self) -> bool {
        self.residual.is_some_and(Tensor::track_op)
    }

    /// The same in operations of their own, the activation by a backend.
    pub(crate) fn apply_on(&self, backend: Backend, y: Tensor) -> Result<Tensor> {
        let y = match self.scale {
            Some(scale) => times_frozen(&y, scale)?,
            None => y,
        };
        let y = match self.residual {
            Some(x) => (x + y)?,
            None => y,
        };
        self.activation.map_or(Ok(y.clone()), |activation| activation.apply_on(backend, &y))
    }
}
