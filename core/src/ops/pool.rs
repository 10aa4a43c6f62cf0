//! Pools of images `[B, h, w, C]` (channels last) and the way to that layout and back; no graph.

use super::kernel_node::apply_detached;
use crate::backend::Backend;
use candle_core::{Result, Shape, Tensor};

pub use limber_kernels::PoolShape;

/// `[B, C, h, w]` f32 to `[B, h, w, C]`.
///
/// # Errors
/// Other than four dimensions.
pub fn channels_last(x: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    transposed(Backend::of(x.device()), x, (b, c, h * w))?.reshape((b, h, w, c))
}

/// `[B, h, w, C]` f32 to `[B, C, h, w]`.
///
/// # Errors
/// Other than four dimensions.
pub fn channels_first(x: &Tensor) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    transposed(Backend::of(x.device()), x, (b, h * w, c))?.reshape((b, c, h, w))
}

fn transposed(backend: Backend, x: &Tensor, shape: (usize, usize, usize)) -> Result<Tensor> {
    let x = x.detach().contiguous()?.reshape(shape)?;
    if !backend.is_kernels() {
        return x.transpose(1, 2)?.contiguous();
    }
    apply_detached(&x, "transpose", |x, shape| {
        let (b, rows, columns) = shape.dims3()?;
        let y = limber_kernels::transpose(x, [b, rows, columns]).map_err(candle_core::Error::wrap)?;
        Ok((y, Shape::from((b, columns, rows))))
    })
}

/// Means of windows of x `[B, h, w, C]` f32, over the pixels inside the image alone: `[B, h', w', C]`.
///
/// # Errors
/// An image smaller than the window.
pub fn average_pool(x: &Tensor, shape: PoolShape) -> Result<Tensor> {
    pool(x, true, shape)
}

/// Largest values of windows of x `[B, h, w, C]` f32: `[B, h', w', C]`.
///
/// # Errors
/// An image smaller than the window.
pub fn max_pool(x: &Tensor, shape: PoolShape) -> Result<Tensor> {
    pool(x, false, shape)
}

fn pool(x: &Tensor, mean: bool, windows: PoolShape) -> Result<Tensor> {
    // candle pools neither with padding nor with windows partly outside: an accelerator leaves this to the CPU.
    let host = x.detach().to_device(&candle_core::Device::Cpu)?;
    let pool = if mean { limber_kernels::average_pool } else { limber_kernels::max_pool };
    let pooled = apply_detached(&host, "pool", |x, shape| {
        let (b, h, w, c) = shape.dims4()?;
        let y = pool(x, [b, h, w, c], windows).map_err(candle_core::Error::wrap)?;
        let (h, w) = windows.outputs(h, w).unwrap_or_default();
        Ok((y, Shape::from((b, h, w, c))))
    });
    pooled?.to_device(x.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn both_backends_transpose_alike() {
        let x = Tensor::arange(0f32, 42.0, &Device::Cpu).unwrap().reshape((2, 3, 7)).unwrap();
        let [ours, candles] = [Backend::Kernels, Backend::Candle].map(|backend| {
            let y = transposed(backend, &x, (2, 3, 7)).unwrap();
            assert_eq!(y.dims(), [2, 7, 3]);
            y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        });
        assert_eq!(ours, candles);
        assert_eq!(ours[..4], [0.0, 7.0, 14.0, 1.0]);
    }
}
