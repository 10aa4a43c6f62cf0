//! The MLP of a block: two frozen layers and an activation between them.
//!
//! Its hidden layer is several times as wide as the rest. On the CPU a gradient keeps the hidden numbers from before the
//! activation and nothing else, and goes back through both layers by stretches of hidden columns.

use super::linear::{After, FrozenLinear, contiguous_f32, forward_all, forward_and};
use crate::ops::Activation;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor};
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
pub struct Hidden {
    pub(crate) x: Tensor,
    pub(crate) numbers: Numbers,
}

/// The numbers of a hidden layer.
#[derive(Debug)]
pub(crate) enum Numbers {
    /// Behind the activation, with a graph where the input has one.
    Active(Tensor),
    /// Before it, on the CPU and without a graph.
    Bare(Tensor),
}

impl Mlp {
    /// Two layers and what stands between them; the second takes what the first gives.
    pub fn new(first: FrozenLinear, activation: Activation, second: FrozenLinear) -> Self {
        Self { first, activation, second }
    }

    /// The first half over x `[.., D]` f32, and other layers over the same input in one pass. `bare` asks for what a
    /// gradient needs, which it must where x has a graph.
    pub(crate) fn first<const N: usize>(
        &self,
        layers: [&FrozenLinear; N],
        x: &Tensor,
        bare: bool,
    ) -> Result<([Tensor; N], Hidden)> {
        let (outputs, numbers) = match (self.is_on_cpu(), bare) {
            (false, _) => {
                let hidden = self.first.forward_then(x, After::activation(self.activation))?;
                (forward_all(layers, x)?, Numbers::Active(hidden))
            }
            (true, false) => {
                let (outputs, hidden) = forward_and(layers, &self.first, After::activation(self.activation), x)?;
                (outputs, Numbers::Active(hidden))
            }
            (true, true) => {
                let (outputs, hidden) = forward_and(layers, &self.first, After::NOTHING, x)?;
                (outputs, Numbers::Bare(hidden))
            }
        };
        Ok((outputs, Hidden { x: x.clone(), numbers }))
    }

    fn is_on_cpu(&self) -> bool {
        self.first.on_cpu().is_some() && self.second.on_cpu().is_some()
    }

    /// The second half over hidden numbers behind the activation, added to `onto`.
    pub(crate) fn second_active(&self, h: &Tensor, onto: &Tensor) -> Result<Tensor> {
        self.second.forward_then(h, After::onto(onto))
    }

    /// The second half over bare hidden numbers, added to `onto` where there is one; no graph.
    pub(crate) fn second_bare(&self, h: &Tensor, onto: Option<&Tensor>) -> Result<Tensor> {
        let onto = onto.map(Tensor::contiguous).transpose()?;
        let mut dims = h.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.second.n_out();
        }
        if let Some(onto) = &onto
            && onto.dims() != dims
        {
            candle_core::bail!("an output of shape {dims:?} to be added to {:?}", onto.dims())
        }
        let guard = onto.as_ref().map(Tensor::storage_and_layout);
        let onto = guard.as_ref().map(|(storage, layout)| numbers(storage, layout)).transpose()?;
        let mut y = vec![0f32; dims.iter().product()];
        let (storage, layout) = h.storage_and_layout();
        let rows = h.elem_count() / self.first.n_out().max(1);
        let bias = self.second.on_cpu().and_then(|(_, bias)| bias);
        self.kernel()?.second_half(numbers(&storage, layout)?, bias, onto, &mut y, rows).map_err(wrap)?;
        Tensor::from_vec(y, dims, h.device())
    }

    /// The graph from x `[.., D]` to the output of the second half, whose value is `y`, or left out. `h` are the bare
    /// hidden numbers; `once` lets go of them as soon as a gradient has been through.
    pub(crate) fn graph(&self, x: &Tensor, h: Tensor, y: Option<Vec<f32>>, once: bool) -> Result<Tensor> {
        let (h, y) = (Mutex::new(Some(h)), Mutex::new(y));
        x.contiguous()?.apply_op1(Whole { mlp: self.clone(), h, y, once })
    }

    fn kernel(&self) -> Result<limber_kernels::Mlp<'_>> {
        let (Some((first, _)), Some((second, _))) = (self.first.on_cpu(), self.second.on_cpu()) else {
            candle_core::bail!("an mlp on the cpu whose weights are elsewhere")
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

fn numbers<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => contiguous_f32("mlp", storage, layout),
        _ => candle_core::bail!("numbers on another device than the weights, which are on the cpu"),
    }
}

fn wrap(error: limber_kernels::ShapeError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// x to the output of both halves, which is known; and the way back.
struct Whole {
    mlp: Mlp,
    h: Mutex<Option<Tensor>>,
    y: Mutex<Option<Vec<f32>>>,
    once: bool,
}

impl CustomOp1 for Whole {
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
        if let Some(y) = &y
            && y.len() != shape.elem_count()
        {
            candle_core::bail!("{} outputs of an mlp for {shape:?}", y.len())
        }
        Ok((CpuStorage::F32(y.unwrap_or_default()), shape))
    }

    fn bwd(&self, x: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut held = self.h.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?;
        let h = if self.once { held.take() } else { held.clone() };
        let Some(h) = h else { candle_core::bail!("the hidden numbers of an mlp are gone after their one gradient") };
        let grad = grad.contiguous()?;
        let ((h, h_layout), (gy, gy_layout)) = (h.storage_and_layout(), grad.storage_and_layout());
        let rows = x.elem_count() / self.mlp.first.n_in().max(1);
        let mut gx = vec![0f32; x.elem_count()];
        self.mlp.kernel()?.input_grad(numbers(&h, h_layout)?, numbers(&gy, gy_layout)?, &mut gx, rows).map_err(wrap)?;
        Ok(Some(Tensor::from_vec(gx, x.dims(), x.device())?))
    }
}
