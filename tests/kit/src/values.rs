//! Comparing tensors: fixed noise, largest difference, shapes.

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};
use limber_core::{Init, Weights};

/// Two ways to the same f32 sums in another order differ by roundings of 6e-8, a few hundred of them after some
/// layers; a wrong row, mask or position differs by the size of the values.
pub(crate) const TOLERANCE: f64 = 1e-4;

/// Standard normal noise of a seed.
pub(crate) fn noise(shape: &[usize], seed: u64) -> Result<Tensor> {
    Ok(Weights::random(seed).tensor("noise", shape, Init::normal(1.0))?)
}

/// The elements, in f64.
pub(crate) fn values(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
}

/// f32 of this shape, all finite.
pub(crate) fn has_shape(what: &str, x: &Tensor, shape: &[usize]) -> Result<()> {
    ensure!(x.dims() == shape, "{what} have shape {:?}, the spec says {shape:?}", x.dims());
    ensure!(x.dtype() == DType::F32, "{what} are {:?}, the contract says f32", x.dtype());
    ensure!(values(x)?.iter().all(|v| v.is_finite()), "{what} are not all finite");
    Ok(())
}

/// The largest difference over the largest value.
pub(crate) fn difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    ensure!(a.dims() == b.dims(), "shapes {:?} and {:?} differ", a.dims(), b.dims());
    let (a, b) = (values(a)?, values(b)?);
    let largest = a.iter().chain(&b).fold(1e-12f64, |m, v| m.max(v.abs()));
    let apart = a.iter().zip(&b).map(|(a, b)| if a == b { 0.0 } else { (a - b).abs() });
    Ok(apart.fold(0.0, |m: f64, d| if d.is_nan() { f64::INFINITY } else { m.max(d) }) / largest)
}

/// Equal up to rounding.
pub(crate) fn close(what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    let apart = difference(a, b)?;
    ensure!(apart <= TOLERANCE, "{what}: relative difference {apart:.2e}, expected at most {TOLERANCE:.0e}");
    Ok(())
}

/// Equal bit for bit.
pub(crate) fn same(what: &str, a: &Tensor, b: &Tensor) -> Result<()> {
    let apart = difference(a, b)?;
    ensure!(apart == 0.0, "{what}: relative difference {apart:.2e}, expected none");
    Ok(())
}

/// Bad input is an error; a panic is caught by the report.
pub(crate) fn refused<T, E>(what: &str, result: Result<T, E>) -> Result<()> {
    ensure!(result.is_err(), "{what} was accepted");
    Ok(())
}
