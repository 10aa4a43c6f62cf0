//! The plain MLP of a block on the kernels: two frozen layers and an activation between them.
//!
//! Its hidden layer is several times as wide as the rest. A gradient keeps the pre-activation and nothing else, and the
//! backward pass goes through both layers by blocks of hidden columns.

use super::epilogue::Epilogue;
use super::linear::{FrozenLinear, forward_list_and};
use super::linear_node::cpu_f32;
use crate::ops::Activation;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use std::sync::Mutex;

/// `[.., D]` f32 to `[.., D]` f32 by way of `[.., inner]`.
#[derive(Debug, Clone)]
pub struct Mlp {
    first: FrozenLinear,
    activation: Activation,
    second: FrozenLinear,
}

/// What the first half of an [`Mlp`] made of its input.
#[derive(Debug)]
pub(crate) struct Hidden {
    pub x: Tensor,
    pub state: HiddenState,
}

/// The hidden layer.
#[derive(Debug)]
pub(crate) enum HiddenState {
    /// Behind the activation, without a graph.
    Activated(Tensor),
    /// Before it, without a graph: what a gradient needs.
    PreActivation(Tensor),
}

impl Mlp {
    /// Two layers and what stands between them; the second takes what the first gives.
    pub fn new(first: FrozenLinear, activation: Activation, second: FrozenLinear) -> Self {
        Self { first, activation, second }
    }

    /// Both layers and the activation, as [`Self::new`] was given them.
    pub fn parts(&self) -> (&FrozenLinear, Activation, &FrozenLinear) {
        (&self.first, self.activation, &self.second)
    }

    /// x `[.., D]` f32 to `[.., D]` f32; the input's gradient flows.
    ///
    /// # Errors
    /// A last dimension that is not D.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.is_fused() {
            let (_, hidden) = self.first(&[], x, x.track_op())?;
            return match hidden.state {
                HiddenState::Activated(h) => self.second_activated(&h, Epilogue::NONE),
                HiddenState::PreActivation(h) => {
                    let y = self.second_half(&h, None)?.flatten_all()?.to_vec1()?;
                    self.graph(x, h, Some(y), false)
                }
            };
        }
        let hidden = self.activation.apply_on(self.first.backend(), &self.first.forward(x)?)?;
        self.second.forward(&hidden)
    }

    /// Whether the kernels compute both layers, so that the passes over them can be fused.
    pub(crate) fn is_fused(&self) -> bool {
        self.first.kernels().is_some() && self.second.kernels().is_some()
    }

    /// The first half over x `[.., D]` f32 of a fused MLP, and other layers over the same input in one pass.
    /// `pre_activation` asks for the pre-activation, which a gradient needs.
    pub(crate) fn first(
        &self,
        layers: &[&FrozenLinear],
        x: &Tensor,
        pre_activation: bool,
    ) -> Result<(Vec<Tensor>, Hidden)> {
        let epilogue = if pre_activation { Epilogue::NONE } else { Epilogue::activation(self.activation) };
        let (outputs, hidden) = forward_list_and(layers, (&self.first, epilogue), x)?;
        let state = if pre_activation { HiddenState::PreActivation(hidden) } else { HiddenState::Activated(hidden) };
        Ok((outputs, Hidden { x: x.clone(), state }))
    }

    /// The second half over what the activation gave.
    pub(crate) fn second_activated(&self, h: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
        self.second.forward_with(h, epilogue)
    }

    /// The second half over pre-activations, added to `residual` where there is one; no graph.
    pub(crate) fn second_half(&self, h: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let residual = residual.map(Tensor::contiguous).transpose()?;
        let mut dims = h.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.second.n_out();
        }
        if let Some(residual) = &residual
            && residual.dims() != dims
        {
            candle_core::bail!("an output of shape {dims:?} to be added to {:?}", residual.dims())
        }
        let guard = residual.as_ref().map(Tensor::storage_and_layout);
        let residual = guard.as_ref().map(|(storage, layout)| cpu_f32("mlp", storage, layout)).transpose()?;
        let mut y = vec![0f32; dims.iter().product()];
        let (storage, layout) = h.storage_and_layout();
        let rows = h.elem_count() / self.first.n_out().max(1);
        let bias = self.second.kernels().and_then(|(_, bias)| bias);
        self.kernel()?.second_half(cpu_f32("mlp", &storage, layout)?, bias, residual, &mut y, rows).map_err(wrap)?;
        Tensor::from_vec(y, dims, h.device())
    }

    /// The graph from x `[.., D]` to the output of the second half, of value `y`; None is a backward-only node. `h` is the
    /// pre-activation; `once` lets go of it as soon as a gradient has been through.
    pub(crate) fn graph(&self, x: &Tensor, h: Tensor, y: Option<Vec<f32>>, once: bool) -> Result<Tensor> {
        let (h, y) = (Mutex::new(Some(h)), Mutex::new(y));
        x.contiguous()?.apply_op1(MlpNode { mlp: self.clone(), h, y, once })
    }

    fn kernel(&self) -> Result<limber_kernels::Mlp<'_>> {
        let (Some((first, _)), Some((second, _))) = (self.first.kernels(), self.second.kernels()) else {
            candle_core::bail!("an mlp of the kernels whose weights are candle's tensors")
        };
        Ok(limber_kernels::Mlp {
            first: first.kernel_weight(),
            second: second.kernel_weight(),
            activation: self.activation.kernel(),
            n_in: self.first.n_in(),
            inner: self.first.n_out(),
            n_out: self.second.n_out(),
        })
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        self.first.n_in()
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        self.second.n_out()
    }
}

fn wrap(error: limber_kernels::ShapeError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// x to the output of both halves, which is known; and the backward pass.
struct MlpNode {
    mlp: Mlp,
    h: Mutex<Option<Tensor>>,
    /// None: a backward-only node, of zeros that nothing reads.
    y: Mutex<Option<Vec<f32>>>,
    once: bool,
}

impl CustomOp1 for MlpNode {
    fn name(&self) -> &'static str {
        "frozen-mlp"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut dims = layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.mlp.n_out();
        }
        let shape = Shape::from(dims);
        let y = self.y.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?.take();
        let y = y.unwrap_or_else(|| vec![0f32; shape.elem_count()]);
        if y.len() != shape.elem_count() {
            candle_core::bail!("{} outputs of an mlp for {shape:?}", y.len())
        }
        Ok((CpuStorage::F32(y), shape))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut held = self.h.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?;
        let h = if self.once { held.take() } else { held.clone() };
        let Some(h) = h else { candle_core::bail!("the pre-activation of an mlp is gone after its one gradient") };
        let grad = grad.contiguous()?;
        let ((h, h_layout), (gy, gy_layout)) = (h.storage_and_layout(), grad.storage_and_layout());
        let rows = x.elem_count() / self.mlp.first.n_in().max(1);
        let mut gx = vec![0f32; x.elem_count()];
        let (h, gy) = (cpu_f32("mlp", &h, h_layout)?, cpu_f32("mlp", &gy, gy_layout)?);
        self.mlp.kernel()?.input_grad(h, gy, &mut gx, rows).map_err(wrap)?;
        Ok(Some(Tensor::from_vec(gx, x.dims(), x.device())?))
    }
}
