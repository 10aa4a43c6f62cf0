//! y = x Wᵀ + b over a frozen W that stays in its own type and in its mapped file.
//!
//! candle's `matmul` computes and keeps the gradient of both sides; here the backward gives the input's alone.

use crate::ops::Activation;
use crate::weights::{FrozenData, WeightType};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Storage, Tensor};
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
    /// On the CPU: the mapped bytes themselves, and the bias as a slice can be taken.
    Cpu(FrozenData, Option<Vec<f32>>),
    /// On an accelerator: a tensor `[n_out, n_in]` in the weight's own type.
    Device(Tensor),
}

impl FrozenLinear {
    /// A layer of `weight` `[n_out, n_in]` and `bias` `[n_out]` f32.
    ///
    /// # Errors
    /// A weight that is not a matrix, or a bias of another length.
    pub fn new(weight: FrozenData, bias: Option<Tensor>, device: &Device) -> Result<Self> {
        let [n_out, n_in] = *weight.shape() else {
            candle_core::bail!("a linear weight has shape [n_out, n_in], not {:?}", weight.shape())
        };
        if let Some(bias) = &bias
            && bias.dims() != [n_out]
        {
            candle_core::bail!("a bias of shape {:?} for {n_out} outputs", bias.dims())
        }
        let weight = if device.is_cpu() {
            let bias = bias.as_ref().map(|b| b.to_vec1::<f32>()).transpose()?;
            Weight::Cpu(weight, bias)
        } else {
            Weight::Device(device_tensor(&weight, device)?)
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

    /// Weight and bias where they are on the CPU.
    pub(super) fn on_cpu(&self) -> Option<(&FrozenData, Option<&[f32]>)> {
        match &self.weight {
            Weight::Cpu(weight, bias) => Some((weight, bias.as_deref())),
            Weight::Device(_) => None,
        }
    }

    /// x `[.., n_in]` f32 to `[.., n_out]` f32, and what comes `after` it; gradients of x and `after.onto` flow.
    ///
    /// # Errors
    /// As [`Self::forward`]; tensors of other shapes in `after`.
    pub fn forward_then(&self, x: &Tensor, after: After) -> Result<Tensor> {
        let [y] = forward_all_then([(self, after)], x)?;
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
}

/// What becomes of a layer's output y, in one pass where nothing wants a gradient: `activation(onto + scale y)`.
#[derive(Debug, Clone, Copy, Default)]
pub struct After<'a> {
    /// Multiplies every row, `[n_out]` f32: a vision transformer's layer scale. It gets no gradient.
    pub scale: Option<&'a Tensor>,
    /// The residual stream, of the output's shape, f32.
    pub onto: Option<&'a Tensor>,
    /// Applied last.
    pub activation: Option<Activation>,
}

impl<'a> After<'a> {
    /// Nothing.
    pub const NOTHING: After<'static> = After { scale: None, onto: None, activation: None };

    /// The output is added to `x`.
    pub fn onto(x: &'a Tensor) -> Self {
        Self { onto: Some(x), ..Self::NOTHING }
    }

    /// The output passes through an activation.
    pub fn activation(activation: Activation) -> Self {
        Self { activation: Some(activation), ..Self::NOTHING }
    }

    /// The same in operations of their own.
    fn apply(&self, y: Tensor) -> Result<Tensor> {
        let y = match self.scale {
            Some(scale) => y.broadcast_mul(&scale.detach())?,
            None => y,
        };
        let y = match self.onto {
            Some(x) => (x + y)?,
            None => y,
        };
        self.activation.map_or(Ok(y.clone()), |activation| activation.apply(&y))
    }
}

/// The outputs of several layers over one input x `[.., n_in]` f32, in one pass over it: q, k and v for instance.
/// The input's gradient flows from each.
///
/// # Errors
/// A last dimension that is not every layer's n_in.
pub fn forward_all<const N: usize>(layers: [&FrozenLinear; N], x: &Tensor) -> Result<[Tensor; N]> {
    forward_all_then(layers.map(|layer| (layer, After::NOTHING)), x)
}

/// As [`forward_all`], each with what comes after it.
///
/// # Errors
/// As [`forward_all`]; tensors of other shapes in what comes after.
pub fn forward_all_then<const N: usize>(layers: [(&FrozenLinear, After); N], x: &Tensor) -> Result<[Tensor; N]> {
    for (layer, after) in &layers {
        let dims = layer.output(x.dims())?;
        if let Some(onto) = after.onto
            && onto.dims() != dims
        {
            candle_core::bail!("an output of shape {dims:?} to be added to {:?}", onto.dims())
        }
    }
    let x = x.contiguous()?;
    let (plain, afters) = (layers.map(|(layer, _)| layer), layers.map(|(_, after)| after));
    let tracked = |after: &After| after.onto.is_some_and(Tensor::track_op);
    if x.device().is_cpu() && !x.track_op() && !afters.iter().any(tracked) {
        let computed = compute(&plain, &x, &afters)?;
        return forward_computed(plain, &x, computed);
    }
    let computed = compute(&plain, &x, &[After::NOTHING; N])?;
    finish(forward_computed(plain, &x, computed)?, afters)
}

/// The outputs of `layers` on the CPU over one input x, and in the same pass that of `last` with what comes `after` it,
/// which has no graph.
pub(super) fn forward_and<const N: usize>(
    layers: [&FrozenLinear; N],
    last: &FrozenLinear,
    after: After,
    x: &Tensor,
) -> Result<([Tensor; N], Tensor)> {
    let dims = last.output(x.dims())?;
    for layer in layers {
        layer.output(x.dims())?;
    }
    let x = x.contiguous()?;
    let all = [&layers[..], &[last]].concat();
    let mut afters = vec![After::NOTHING; N];
    afters.push(after);
    let mut computed = compute(&all, &x, &afters)?;
    let Some(Some(y)) = computed.pop() else { candle_core::bail!("a layer on the cpu without an output") };
    Ok((forward_computed(layers, &x, computed)?, Tensor::from_vec(y, dims, x.device())?))
}

/// What comes after each output, in operations of their own.
pub(crate) fn finish<const N: usize>(outputs: [Tensor; N], afters: [After; N]) -> Result<[Tensor; N]> {
    let mut results = Vec::with_capacity(N);
    for (y, after) in outputs.into_iter().zip(afters) {
        results.push(after.apply(y)?);
    }
    exactly(results)
}

fn exactly<const N: usize>(results: Vec<Tensor>) -> Result<[Tensor; N]> {
    match results.try_into() {
        Ok(results) => Ok(results),
        Err(_) => candle_core::bail!("{N} linear layers gave another number of outputs"),
    }
}

/// As [`forward_all`], of layers whose outputs are known, or left out where their values have no part in what is asked
/// for: the way back alone is wanted. On an accelerator they are computed nevertheless.
///
/// # Errors
/// As [`forward_all`]; outputs of another length.
pub(crate) fn forward_given<const N: usize>(
    layers: [&FrozenLinear; N],
    x: &Tensor,
    given: Vec<Option<Tensor>>,
) -> Result<[Tensor; N]> {
    let x = x.contiguous()?;
    let value = |given: Option<Tensor>| given.map(|y| y.flatten_all()?.to_vec1::<f32>()).transpose();
    let computed = if x.device().is_cpu() { given.into_iter().map(value).collect::<Result<_>>()? } else { Vec::new() };
    forward_computed(layers, &x, computed)
}

/// The nodes of layers whose outputs were computed, on the CPU; elsewhere the layers themselves.
fn forward_computed<const N: usize>(
    layers: [&FrozenLinear; N],
    x: &Tensor,
    computed: Vec<Option<Vec<f32>>>,
) -> Result<[Tensor; N]> {
    let mut outputs = layers.iter().map(|layer| layer.output(x.dims())).collect::<Result<Vec<_>>>()?;
    let mut computed = computed.into_iter();
    let mut results = Vec::with_capacity(N);
    for (layer, dims) in layers.into_iter().zip(outputs.drain(..)) {
        results.push(match (&layer.weight, computed.next()) {
            (Weight::Device(weight), _) => {
                let rows = x.elem_count() / layer.n_in.max(1);
                let flat = x.reshape((rows, layer.n_in))?.to_dtype(weight.dtype())?;
                let y = flat.matmul(&weight.t()?)?.to_dtype(DType::F32)?;
                let y = match &layer.bias {
                    Some(bias) => y.broadcast_add(bias)?,
                    None => y,
                };
                y.reshape(dims)?
            }
            (Weight::Cpu(weight, _), Some(y)) => {
                x.apply_op1(Forward { weight: weight.clone(), y: Mutex::new(y), n_in: layer.n_in, n_out: layer.n_out })?
            }
            (Weight::Cpu(..), None) => candle_core::bail!("a layer on the cpu without an output"),
        });
    }
    exactly(results)
}

/// The outputs of layers on the CPU; none where they are elsewhere.
fn compute(layers: &[&FrozenLinear], x: &Tensor, after: &[After]) -> Result<Vec<Option<Vec<f32>>>> {
    let on_cpu = |layer: &&FrozenLinear| matches!(layer.weight, Weight::Cpu(..));
    if layers.is_empty() || !layers.iter().all(on_cpu) {
        return Ok(Vec::new());
    }
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("an input on {:?} for weights on the cpu", x.device().location())
    };
    let data = contiguous_f32("frozen-linear", storage, layout)?;
    let n_in = layers[0].n_in;
    let rows = data.len() / n_in.max(1);
    let mut outputs: Vec<Vec<f32>> = layers.iter().map(|layer| vec![0f32; rows * layer.n_out]).collect();
    let flat = |x: Option<&Tensor>| x.map(|x| x.flatten_all()?.to_dtype(DType::F32)?.contiguous()).transpose();
    let mut held = Vec::with_capacity(layers.len());
    for after in after {
        held.push((flat(after.scale)?, flat(after.onto)?, after.activation));
    }
    let mut guards = Vec::with_capacity(layers.len());
    for (scale, onto, activation) in &held {
        let (scale, onto) = (scale.as_ref(), onto.as_ref());
        guards.push((scale.map(Tensor::storage_and_layout), onto.map(Tensor::storage_and_layout), activation));
    }
    let mut jobs = Vec::with_capacity(layers.len());
    for (i, (layer, y)) in layers.iter().zip(&mut outputs).enumerate() {
        if let Weight::Cpu(weight, bias) = &layer.weight {
            let weight = weight.kernel_weight();
            let mut after = limber_kernels::After::default();
            if let Some((scale, onto, activation)) = guards.get(i) {
                after.scale = scale.as_ref().map(|(storage, layout)| numbers(storage, layout)).transpose()?;
                after.residual = onto.as_ref().map(|(storage, layout)| numbers(storage, layout)).transpose()?;
                after.activation = activation.map(Activation::kernel);
            }
            jobs.push(Layer { weight, bias: bias.as_deref(), y, n_out: layer.n_out, after });
        }
    }
    limber_kernels::linear_multi(data, &mut jobs, rows, n_in).map_err(candle_core::Error::wrap)?;
    Ok(outputs.into_iter().map(Some).collect())
}

/// The elements of a tensor that is held for reading.
fn numbers<'a>(storage: &'a Storage, layout: &Layout) -> Result<&'a [f32]> {
    match storage {
        Storage::Cpu(storage) => contiguous_f32("frozen-linear", storage, layout),
        _ => candle_core::bail!("a residual on another device than the weights, which are on the cpu"),
    }
}

/// A frozen tensor as a candle tensor in its own type on `device`.
pub(super) fn device_tensor(data: &FrozenData, device: &Device) -> Result<Tensor> {
    let dtype = match data.dtype() {
        WeightType::F32 => DType::F32,
        WeightType::F16 => DType::F16,
        WeightType::Bf16 => DType::BF16,
        WeightType::Q8_0 | WeightType::Q4K => {
            candle_core::bail!(
                "{} weights run on the cpu alone; take f16 or bf16 on {:?}",
                data.dtype(),
                device.location()
            )
        }
    };
    Tensor::from_raw_buffer(data.bytes(), dtype, data.shape(), device)
}

/// x to y, which several layers have been given in one pass: the operation hands it over, and knows the way back.
struct Forward {
    weight: FrozenData,
    /// None: the value is left out.
    y: Mutex<Option<Vec<f32>>>,
    n_in: usize,
    n_out: usize,
}

impl CustomOp1 for Forward {
    fn name(&self) -> &'static str {
        "frozen-linear"
    }

    fn cpu_fwd(&self, _: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, shape) = rows_and_shape(layout, self.n_in, self.n_out);
        let y = self.y.lock().map_err(|_| candle_core::Error::msg("a thread panicked"))?.take();
        if let Some(y) = &y
            && y.len() != rows * self.n_out
        {
            candle_core::bail!("{} outputs computed for {:?}", y.len(), shape)
        }
        Ok((CpuStorage::F32(y.unwrap_or_default()), shape))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let op = InputGradient { weight: self.weight.clone(), n_in: self.n_in, n_out: self.n_out };
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&op)?))
    }
}

/// gx = gy W.
struct InputGradient {
    weight: FrozenData,
    n_in: usize,
    n_out: usize,
}

impl CustomOp1 for InputGradient {
    fn name(&self) -> &'static str {
        "frozen-linear-input-gradient"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let gy = contiguous_f32(self.name(), storage, layout)?;
        let (rows, shape) = rows_and_shape(layout, self.n_out, self.n_in);
        let mut gx = vec![0f32; rows * self.n_in];
        limber_kernels::linear_input_grad(gy, self.weight.kernel_weight(), &mut gx, rows, self.n_in, self.n_out)
            .map_err(candle_core::Error::wrap)?;
        Ok((CpuStorage::F32(gx), shape))
    }
}

/// `a + b` of one shape, where the sum's value has no part in what is asked for: on the CPU it is left out.
pub(crate) fn sum_without_value(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    struct Sum;
    impl CustomOp2 for Sum {
        fn name(&self) -> &'static str {
            "sum-without-value"
        }

        fn cpu_fwd(&self, _: &CpuStorage, a: &Layout, _: &CpuStorage, b: &Layout) -> Result<(CpuStorage, Shape)> {
            if a.shape() != b.shape() {
                candle_core::bail!("an output of shape {:?} to be added to {:?}", b.shape(), a.shape())
            }
            Ok((CpuStorage::F32(Vec::new()), a.shape().clone()))
        }

        fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
            Ok((Some(grad.clone()), Some(grad.clone())))
        }
    }
    if a.device().is_cpu() { a.apply_op2(b, Sum) } else { a + b }
}

/// The elements of a contiguous f32 tensor that has its numbers.
pub(crate) fn contiguous_f32<'a>(op: &'static str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (CpuStorage::F32(data), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
        candle_core::bail!("{op} takes contiguous f32 tensors, got {:?} {:?}", storage.dtype_name(), layout.shape())
    };
    match data.get(start..end) {
        Some(numbers) => Ok(numbers),
        None => candle_core::bail!("{op} takes the numbers of {:?}, which were left out", layout.shape()),
    }
}

/// The storage's type, for messages.
trait DtypeName {
    fn dtype_name(&self) -> &'static str;
}

impl DtypeName for CpuStorage {
    fn dtype_name(&self) -> &'static str {
        use candle_core::backend::BackendStorage;
        self.dtype().as_str()
    }
}

fn rows_and_shape(layout: &Layout, width: usize, new_width: usize) -> (usize, Shape) {
    let mut dims = layout.dims().to_vec();
    let rows = layout.shape().elem_count() / width.max(1);
    if let Some(last) = dims.last_mut() {
        *last = new_width;
    }
    (rows, Shape::from(dims))
}
