//! Memory that a plugin reads and writes: views of our tensors, and outputs that notice what went wrong.

use candle_core::{CpuStorage, DType, Device, Layout, Shape, Storage, Tensor, WithDType};
use limber_plugin_abi::{ElementType, F32, I64, LimberTensor, U8};

/// Sizes as the ABI has them.
pub(crate) fn sizes(dims: &[usize]) -> Vec<i64> {
    dims.iter().map(|d| *d as i64).collect()
}

/// f32 elements where they lie, of this shape, as a view for the length of `body`.
pub(crate) fn with_slice<R>(values: &[f32], dims: &[usize], body: impl FnOnce(*const LimberTensor) -> R) -> R {
    let shape = sizes(dims);
    body(&LimberTensor::view(values.as_ptr().cast_mut().cast(), F32, &shape))
}

/// The contiguous f32 elements of a CPU tensor, where they lie.
pub(crate) fn with_values<R>(
    x: &Tensor,
    body: impl FnOnce(&[f32]) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    let x = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => body(slice(storage, layout)?),
        _ => candle_core::bail!("a tensor stayed on {:?}", x.device().location()),
    }
}

/// The f32 elements of a contiguous storage.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => candle_core::bail!("a plugin takes contiguous f32 tensors"),
    }
}

/// An f32 tensor of any device as a view.
pub(crate) fn with_view<R>(
    x: &Tensor,
    body: impl FnOnce(*const LimberTensor) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    with_values(x, |values| with_slice(values, x.dims(), body))
}

fn with_copy<T: WithDType, R>(
    x: &Tensor,
    element: ElementType,
    body: impl FnOnce(*const LimberTensor) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    let values = x.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<T>()?;
    let shape = sizes(x.dims());
    body(&LimberTensor::view(values.as_ptr().cast_mut().cast(), element, &shape))
}

/// Ids u32 as an i64 view.
pub(crate) fn with_ids<R>(
    ids: &Tensor,
    body: impl FnOnce(*const LimberTensor) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    with_copy::<i64, R>(&ids.to_dtype(DType::I64)?, I64, body)
}

/// A mask u8 as a view.
pub(crate) fn with_bytes<R>(
    x: &Tensor,
    body: impl FnOnce(*const LimberTensor) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    with_copy::<u8, R>(x, U8, body)
}

/// What an output holds before it is written: a NaN that no arithmetic makes.
const UNWRITTEN: u32 = 0x7fc5_a11e;
/// Elements behind an output that must stay as they are.
const GUARD: usize = 16;

/// f32 elements for a plugin to write.
pub(crate) struct Output {
    values: Vec<f32>,
    dims: Vec<usize>,
    shape: Vec<i64>,
}

impl Output {
    pub(crate) fn new(dims: &[usize]) -> Self {
        let n: usize = dims.iter().product();
        Self { values: vec![f32::from_bits(UNWRITTEN); n + GUARD], dims: dims.to_vec(), shape: sizes(dims) }
    }

    /// The view that the plugin writes to.
    pub(crate) fn view(&mut self) -> LimberTensor {
        LimberTensor::view(self.values.as_mut_ptr().cast(), F32, &self.shape)
    }

    /// What was written, checked: within its bounds, complete, and finite unless an input was not either.
    ///
    /// # Errors
    /// `what` the plugin did wrong.
    pub(crate) fn written(mut self, what: &str, inputs: &[&[f32]]) -> Result<(Vec<f32>, Shape), String> {
        let n = self.values.len() - GUARD;
        if self.values[n..].iter().any(|x| x.to_bits() != UNWRITTEN) {
            return Err(format!("{what} of shape {:?} were written beyond their end", self.dims));
        }
        self.values.truncate(n);
        if !self.values.iter().fold(true, |all, x| all & x.is_finite()) {
            let unwritten = self.values.iter().filter(|x| x.to_bits() == UNWRITTEN).count();
            if unwritten > 0 {
                return Err(format!("{unwritten} of {n} {what} of shape {:?} were not written", self.dims));
            }
            if inputs.iter().all(|input| input.iter().all(|x| x.is_finite())) {
                let at = self.values.iter().position(|x| !x.is_finite()).unwrap_or(0);
                return Err(format!(
                    "{what} of shape {:?} are not finite: element {at} is {}, of finite inputs",
                    self.dims, self.values[at]
                ));
            }
        }
        Ok((self.values, Shape::from(self.dims)))
    }

    /// As [`Self::written`], as a tensor on `device`.
    pub(crate) fn tensor(self, what: &str, inputs: &[&[f32]], device: &Device) -> Result<Tensor, String> {
        let (values, shape) = self.written(what, inputs)?;
        Tensor::from_vec(values, shape, device).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_notices_what_was_not_done() {
        let check = |write: &dyn Fn(&mut [f32]), inputs: &[&[f32]], expected: Option<&str>| {
            let mut output = Output::new(&[2, 3]);
            write(&mut output.values);
            match (output.written("features", inputs), expected) {
                (Ok((values, shape)), None) => assert_eq!((values.len(), shape.dims()), (6, &[2usize, 3][..])),
                (Err(message), Some(expected)) => assert_eq!(message, expected),
                (other, _) => panic!("{other:?}, expected {expected:?}"),
            }
        };
        check(&|x| x[..6].fill(1.0), &[], None);
        check(&|x| x[..7].fill(1.0), &[], Some("features of shape [2, 3] were written beyond their end"));
        check(&|x| x[..4].fill(1.0), &[], Some("2 of 6 features of shape [2, 3] were not written"));
        let nan = |x: &mut [f32]| {
            x[..6].fill(1.0);
            x[4] = f32::NAN;
        };
        let message = "features of shape [2, 3] are not finite: element 4 is NaN, of finite inputs";
        check(&nan, &[&[1.0, 2.0]], Some(message));
        check(&nan, &[&[1.0, f32::INFINITY]], None);
    }
}
