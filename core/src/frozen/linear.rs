//! y = x Wᵀ + b over a frozen W that stays in its own type and in its mapped file.
//!
//! candle's `matmul` computes and keeps the gradient of both sides; here the backward pass gives the input's alone, with
//! the kernels and with candle's operations.

use super::epilogue::Epilogue;
use super::linear_node::{LinearNode, candle_input_gradient, candle_product, cpu_f32};
use crate::backend::Backend;
use crate::graph::node;
use crate::ops::Activation;
use crate::weights::{FrozenData, WeightType};
use candle_core::{DType, Device, Result, Tensor};
use limber_kernels::Layer;
use std::sync::Mutex;

/// A frozen linear layer: `[.., n_in]` f32 to `[.., n_out]` f32.
#[derive(Debug, Clone)]
pub struct FrozenLinear {
    weight: Weight,
    bias: Option<Tensor>,
    n_in: usize,
    n_out: usize,
}

#[derive(Debug, Clone)]
enum Weight {
    /// For the kernels: the mapped bytes themselves, and the bias as a slice can be taken.
    Kernels(FrozenData, Option<Vec<f32>>),
    /// For candle: a tensor `[n_out, n_in]` in the weight's own type.
    Candle(Tensor),
}

impl FrozenLinear {
    /// A layer of `weight` `[n_out, n_in]` and `bias` `[n_out]` f32, on the device's own backend.
    ///
    /// # Errors
    /// A weight that is not a matrix, or a bias of another length.
    pub fn new(weight: FrozenData, bias: Option<Tensor>, device: &Device) -> Result<Self> {
        Self::on(weight, bias, device, Backend::of(device))
    }

    /// As [`Self::new`], computed by `backend`.
    ///
    /// # Errors
    /// As [`Self::new`]; the kernels on a device that is not the CPU.
    pub fn on(weight: FrozenData, bias: Option<Tensor>, device: &Device, backend: Backend) -> Result<Self> {
        let [n_out, n_in] = *weight.shape() else {
            candle_core::bail!("a linear weight has shape [n_out, n_in], not {:?}", weight.shape())
        };
        if let Some(bias) = &bias
            && bias.dims() != [n_out]
        {
            candle_core::bail!("a bias of shape {:?} for {n_out} outputs", bias.dims())
        }
        let weight = if backend.is_kernels() {
            if !device.is_cpu() {
                candle_core::bail!("the kernels run on the cpu, not on {:?}", device.location())
            }
            let bias = bias.as_ref().map(|b| b.to_vec1::<f32>()).transpose()?;
            Weight::Kernels(weight, bias)
        } else {
            Weight::Candle(device_tensor(&weight, device)?)
        };
        Ok(Self { weight, bias, n_in, n_out })
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// What computes this layer.
    pub fn backend(&self) -> Backend {
        match &self.weight {
            Weight::Kernels(..) => Backend::Kernels,
            Weight::Candle(_) => Backend::Candle,
        }
    }

    /// Weight and bias where the kernels compute.
    pub(super) fn kernels(&self) -> Option<(&FrozenData, Option<&[f32]>)> {
        match &self.weight {
            Weight::Kernels(weight, bias) => Some((weight, bias.as_deref())),
            Weight::Candle(_) => None,
        }
    }

    /// x `[.., n_in]` f32 to `[.., n_out]` f32, and the `epilogue`; gradients of x and the residual flow.
    ///
    /// # Errors
    /// As [`Self::forward`]; tensors of other shapes in the epilogue.
    pub fn forward_with(&self, x: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
        let [y] = forward_all_with([(self, epilogue)], x)?;
        Ok(y)
    }

    /// x `[.., n_in]` f32 to `[.., n_out]` f32; the input's gradient flows, the weight has none.
    ///
    /// # Errors
    /// A last dimension that is not n_in.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [y] = forward_all([self], x)?;
        Ok(y)
    }

    /// The shape of the output for an input of `dims`.
    fn output(&self, dims: &[usize]) -> Result<Vec<usize>> {
        match dims {
            [leading @ .., last] if *last == self.n_in => Ok([leading, &[self.n_out]].concat()),
            _ => candle_core::bail!("input of shape {dims:?} for a linear layer of width {}", self.n_in),
        }
    }

    /// The node of value `y`, computed here where it is not given; `None` inside is a backward-only node.
    fn node(&self, x: &Tensor, y: Option<Option<Tensor>>) -> Result<Tensor> {
        let dims = self.output(x.dims())?;
        if let Some(Some(y)) = &y
            && y.dims() != dims
        {
            candle_core::bail!("an output of shape {:?} given for {dims:?}", y.dims())
        }
        match &self.weight {
            Weight::Kernels(weight, _) => {
                let y = match y {
                    Some(y) => y.map(|y| y.flatten_all()?.to_vec1::<f32>()).transpose()?,
                    None => candle_core::bail!("a layer of the kernels without an output"),
                };
                self.kernel_node(x, weight, y)
            }
            Weight::Candle(weight) => {
                let y = match y {
                    Some(Some(y)) => y,
                    Some(None) => Tensor::zeros(dims, DType::F32, x.device())?,
                    None => match &self.bias {
                        Some(bias) => candle_product(x, weight)?.broadcast_add(bias)?,
                        None => candle_product(x, weight)?,
                    },
                };
                let weight = weight.clone();
                node("frozen-linear", x, y, move |grad| candle_input_gradient(grad, &weight))
            }
        }
    }

    fn kernel_node(&self, x: &Tensor, weight: &FrozenData, y: Option<Vec<f32>>) -> Result<Tensor> {
        x.apply_op1(LinearNode { weight: weight.clone(), y: Mutex::new(y), n_in: self.n_in, n_out: self.n_out })
    }
}

/// The outputs of several layers over one input x `[.., n_in]` f32, in one pass over it: q, k and v for instance.
/// The input's gradient flows from each.
///
/// # Errors
/// A last dimension that is not every layer's n_in.
pub fn forward_all<const N: usize>(layers: [&FrozenLinear; N], x: &Tensor) -> Result<[Tensor; N]> {
    forward_all_with(layers.map(|layer| (layer, Epilogue::NONE)), x)
}

/// As [`forward_all`], each with an epilogue.
///
/// # Errors
/// As [`forward_all`]; tensors of other shapes in an epilogue.
pub fn forward_all_with<const N: usize>(layers: [(&FrozenLinear, Epilogue); N], x: &Tensor) -> Result<[Tensor; N]> {
    match forward_list(&layers, x)?.try_into() {
        Ok(results) => Ok(results),
        Err(_) => candle_core::bail!("{N} linear layers gave another number of outputs"),
    }
}

/// [`forward_all_with`] of a list.
pub(crate) fn forward_list(layers: &[(&FrozenLinear, Epilogue)], x: &Tensor) -> Result<Vec<Tensor>> {
    for (layer, epilogue) in layers {
        epilogue.check(&layer.output(x.dims())?)?;
    }
    let x = x.contiguous()?;
    let tracked = x.track_op() || layers.iter().any(|(_, epilogue)| epilogue.track_op());
    if layers.iter().any(|(layer, _)| layer.kernels().is_none()) {
        let run = |(layer, epilogue): &(&FrozenLinear, Epilogue)| -> Result<Tensor> {
            epilogue.apply_on(layer.backend(), layer.node(&x, None)?)
        };
        return layers.iter().map(run).collect();
    }
    let plain: Vec<(&FrozenLinear, Epilogue)> = layers.iter().map(|(layer, _)| (*layer, Epilogue::NONE)).collect();
    let computed = compute(if tracked { &plain } else { layers }, &x)?;
    let mut results = Vec::with_capacity(layers.len());
    for ((layer, epilogue), y) in layers.iter().zip(computed) {
        results.push(if tracked {
            let (weight, _) = kernels_of(layer)?;
            epilogue.apply_on(Backend::Kernels, layer.kernel_node(&x, weight, Some(y))?)?
        } else {
            Tensor::from_vec(y, layer.output(x.dims())?, x.device())?
        });
    }
    Ok(results)
}

/// The outputs of `layers` of the kernels over one input x, and in the same pass that of `last` with its epilogue, which
/// has no graph.
pub(super) fn forward_list_and(
    layers: &[&FrozenLinear],
    last: (&FrozenLinear, Epilogue),
    x: &Tensor,
) -> Result<(Vec<Tensor>, Tensor)> {
    let dims = last.0.output(x.dims())?;
    for layer in layers {
        layer.output(x.dims())?;
    }
    let x = x.contiguous()?;
    let mut all: Vec<(&FrozenLinear, Epilogue)> = layers.iter().map(|layer| (*layer, Epilogue::NONE)).collect();
    all.push(last);
    let mut computed = compute(&all, &x)?;
    let Some(y) = computed.pop() else { candle_core::bail!("a layer of the kernels without an output") };
    let mut results = Vec::with_capacity(layers.len());
    for (layer, y) in layers.iter().zip(computed) {
        results.push(layer.kernel_node(&x, kernels_of(layer)?.0, Some(y))?);
    }
    Ok((results, Tensor::from_vec(y, dims, x.device())?))
}

/// The nodes of layers whose outputs are known already; None is a backward-only node, whose value nothing reads.
pub(crate) fn forward_given(layers: &[&FrozenLinear], x: &Tensor, given: Vec<Option<Tensor>>) -> Result<Vec<Tensor>> {
    let x = x.contiguous()?;
    layers.iter().zip(given).map(|(layer, y)| layer.node(&x, Some(y))).collect()
}

fn kernels_of(layer: &FrozenLinear) -> Result<(&FrozenData, Option<&[f32]>)> {
    match layer.kernels() {
        Some(found) => Ok(found),
        None => candle_core::bail!("a layer of candle's operations among those of the kernels"),
    }
}

/// The outputs of layers of the kernels.
fn compute(layers: &[(&FrozenLinear, Epilogue)], x: &Tensor) -> Result<Vec<Vec<f32>>> {
    const OP: &str = "frozen-linear";
    let (storage, layout) = x.storage_and_layout();
    let data = cpu_f32(OP, &storage, layout)?;
    let n_in = layers.first().map_or(0, |(layer, _)| layer.n_in);
    let rows = data.len() / n_in.max(1);
    let mut outputs: Vec<Vec<f32>> = layers.iter().map(|(layer, _)| vec![0f32; rows * layer.n_out]).collect();
    let flat = |x: Option<&Tensor>| x.map(|x| x.flatten_all()?.to_dtype(DType::F32)?.contiguous()).transpose();
    let mut held = Vec::with_capacity(layers.len());
    for (_, epilogue) in layers {
        held.push((flat(epilogue.scale)?, flat(epilogue.residual)?));
    }
    let guards: Vec<_> = held
        .iter()
        .map(|(scale, residual)| [scale, residual].map(|x| x.as_ref().map(Tensor::storage_and_layout)))
        .collect();
    let mut jobs = Vec::with_capacity(layers.len());
    for (((layer, epilogue), y), [scale, residual]) in layers.iter().zip(&mut outputs).zip(&guards) {
        let (weight, bias) = kernels_of(layer)?;
        let epilogue = limber_kernels::Epilogue {
            scale: scale.as_ref().map(|(storage, layout)| cpu_f32(OP, storage, layout)).transpose()?,
            residual: residual.as_ref().map(|(storage, layout)| cpu_f32(OP, storage, layout)).transpose()?,
            activation: epilogue.activation.map(Activation::kernel),
        };
        jobs.push(Layer { weight: weight.kernel_weight(), bias, y, n_out: layer.n_out, epilogue });
    }
    limber_kernels::linear_multi(data, &mut jobs, rows, n_in).map_err(candle_core::Error::wrap)?;
    drop(jobs);
    Ok(outputs)
}

/// A frozen tensor as a candle tensor in its own type on `device`; on the CPU, blocks become f32.
pub(super) fn device_tensor(data: &FrozenData, device: &Device) -> Result<Tensor> {
    let dtype = match data.dtype() {
        WeightType::F32 => DType::F32,
        WeightType::F16 => DType::F16,
        WeightType::Bf16 => DType::BF16,
        WeightType::Q8_0 | WeightType::Q4K | WeightType::Blocks(_) if device.is_cpu() => {
            return Tensor::from_vec(data.to_f32(0..data.elements()), data.shape(), device);
        }
        WeightType::Q8_0 | WeightType::Q4K | WeightType::Blocks(_) => {
            candle_core::bail!(
                "{} weights run on the cpu alone; take f16 or bf16 on {:?}",
                data.dtype(),
                device.location()
            )
        }
    };
    Tensor::from_raw_buffer(data.bytes(), dtype, data.shape(), device)
}
