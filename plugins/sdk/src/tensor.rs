//! Between the host's views and this library's own candle.

use anyhow::{Context, Result, anyhow, bail};
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use limber_plugin_abi::{F32, I64, LimberTensor, U8, named, read};

/// The view and its sizes.
///
/// # Safety
/// `view` is null or a view as the ABI says.
unsafe fn checked(view: *const LimberTensor, element: (u8, u8), what: &str) -> Result<(LimberTensor, Vec<usize>)> {
    // SAFETY: by the caller's promise.
    let table = unsafe { read(view) }.with_context(|| what.to_string())?;
    // SAFETY: as above.
    let dims = unsafe { table.check(element) }.map_err(|message| anyhow!("{what}: {message}"))?;
    Ok((table, dims))
}

/// The elements of a view of `T`s whose type is `element`.
///
/// # Safety
/// As [`checked`]; `T` is what `element` says.
unsafe fn elements<'a, T>(view: *const LimberTensor, element: (u8, u8), what: &str) -> Result<(&'a [T], Vec<usize>)> {
    // SAFETY: by the caller's promise.
    let (table, dims) = unsafe { checked(view, element, what)? };
    let n = dims.iter().product();
    // SAFETY: checked to be as large as its shape, aligned and not null.
    let elements = if n == 0 { &[][..] } else { unsafe { std::slice::from_raw_parts(table.data.cast::<T>(), n) } };
    Ok((elements, dims))
}

/// An f32 view as a tensor of its own.
///
/// # Safety
/// `view` is null or a view as the ABI says.
pub(crate) unsafe fn f32_tensor(view: *const LimberTensor, what: &str) -> Result<Tensor> {
    // SAFETY: by the caller's promise.
    let (values, dims) = unsafe { elements::<f32>(view, F32, what)? };
    Ok(Tensor::from_slice(values, dims, &Device::Cpu)?)
}

/// A u8 view as a tensor of its own.
///
/// # Safety
/// `view` is null or a view as the ABI says.
pub(crate) unsafe fn u8_tensor(view: *const LimberTensor, what: &str) -> Result<Tensor> {
    // SAFETY: by the caller's promise.
    let (values, dims) = unsafe { elements::<u8>(view, U8, what)? };
    Ok(Tensor::from_slice(values, dims, &Device::Cpu)?)
}

/// An i64 view of ids as a u32 tensor.
///
/// # Safety
/// `view` is null or a view as the ABI says.
pub(crate) unsafe fn ids_tensor(view: *const LimberTensor, what: &str) -> Result<Tensor> {
    // SAFETY: by the caller's promise.
    let (values, dims) = unsafe { elements::<i64>(view, I64, what)? };
    let ids: Vec<u32> = values
        .iter()
        .map(|id| u32::try_from(*id).map_err(|_| anyhow!("{what}: {id} is not an id")))
        .collect::<Result<_>>()?;
    Ok(Tensor::from_vec(ids, dims, &Device::Cpu)?)
}

/// Copies `tensor` into an f32 view of the same shape.
///
/// # Safety
/// `view` is null or a view as the ABI says, that nobody else reads or writes meanwhile.
pub(crate) unsafe fn fill(view: *const LimberTensor, tensor: &Tensor, what: &str) -> Result<()> {
    // SAFETY: by the caller's promise.
    let (table, dims) = unsafe { checked(view, F32, what)? };
    if tensor.dims() != dims {
        bail!("{what} have shape {:?}, the spec says {dims:?}", tensor.dims())
    }
    if tensor.dtype() != DType::F32 {
        bail!("{what} are {}, the contract says {}", tensor.dtype().as_str(), named(F32, 1))
    }
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("{what} are not contiguous f32 on the CPU")
    };
    if end > start {
        // SAFETY: the view has as many elements as the tensor, is aligned, not null, and the caller's alone.
        let out = unsafe { std::slice::from_raw_parts_mut(table.data.cast::<f32>(), end - start) };
        out.copy_from_slice(&values[start..end]);
    }
    Ok(())
}

/// A contiguous f32 tensor as a view for the length of `body`.
pub(crate) fn with_view<R>(tensor: &Tensor, body: impl FnOnce(&LimberTensor) -> Result<R>) -> Result<R> {
    let tensor = tensor.detach().to_dtype(DType::F32)?.contiguous()?;
    let shape: Vec<i64> = tensor.dims().iter().map(|d| *d as i64).collect();
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) = (&*storage, layout.contiguous_offsets()) else {
        bail!("a tap is not on the CPU")
    };
    let data = values[start..end].as_ptr().cast_mut().cast();
    body(&LimberTensor::view(data, F32, &shape))
}
