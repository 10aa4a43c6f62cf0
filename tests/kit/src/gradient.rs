//! Gradients against finite differences, in the direction of the gradient and in random ones.

use crate::values::{noise, values};
use anyhow::{Context, Result, ensure};
use candle_core::{Tensor, Var};

/// Checks the gradient of sum(f() · fixed noise) for `variable`, in directions that are 0 where `window` is.
///
/// Sums are taken in f64 and two central differences cancel the third derivative, so what is left is f32 rounding
/// of the outputs over the step; 2 % of what a direction of that length gives on average is far above it and far
/// below what a branch that is cut out of the graph takes away.
pub(crate) fn check(
    name: &str,
    variable: &Var,
    window: Option<&Tensor>,
    f: &dyn Fn() -> candle_core::Result<Tensor>,
) -> Result<()> {
    let output = f()?;
    let weights = noise(output.dims(), 91)?;
    let grads = output.mul(&weights)?.sum_all()?.backward()?;
    let grad = grads.get(variable).with_context(|| format!("no gradient reaches {name}"))?;
    ensure!(
        grad.dims() == variable.dims(),
        "gradient of {name} has shape {:?}, not {:?}",
        grad.dims(),
        variable.dims()
    );
    let masked = |x: &Tensor| -> Result<Tensor> { Ok(window.map_or(Ok(x.clone()), |w| x.mul(w))?) };
    let grad = masked(&grad.detach())?;
    let size = norm(&grad)?;
    ensure!(size.is_finite(), "the gradient of {name} is not finite");
    ensure!(size > 0.0, "the gradient of {name} is 0 everywhere");

    let start = variable.as_tensor().copy()?;
    let n = variable.elem_count() as f64;
    let rms = norm(&start)? / n.sqrt();
    let step = if rms > 0.0 { rms } else { 1.0 };
    let weights = values(&weights)?;
    let loss = |direction: &Tensor, h: f64| -> Result<f64> {
        variable.set(&start.add(&direction.affine(h, 0.0)?)?)?;
        Ok(values(&f()?)?.iter().zip(&weights).map(|(y, w)| y * w).sum())
    };
    for seed in 0..4 {
        // Directions of n elements of size 1: the gradient's own first, random ones then.
        let along = seed == 0;
        let direction =
            if along { grad.affine(n.sqrt() / size, 0.0)? } else { masked(&noise(variable.dims(), 92 + seed)?)? };
        let central = |h: f64| -> Result<f64> { Ok((loss(&direction, h)? - loss(&direction, -h)?) / (2.0 * h)) };
        let h = 4e-3 * step;
        let measured = central(h).and_then(|near| Ok((4.0 * near - central(2.0 * h)?) / 3.0));
        variable.set(&start)?;
        let measured = measured?;
        let slope: f64 = values(&grad)?.iter().zip(values(&direction)?).map(|(g, d)| g * d).sum();
        let usual = if along { slope } else { size };
        ensure!(
            (measured - slope).abs() <= 0.02 * usual,
            "gradient of {name}: finite differences give {measured:.5e}, the gradient {slope:.5e}, expected a difference of at most {:.1e}",
            0.02 * usual
        );
    }
    Ok(())
}

fn norm(x: &Tensor) -> Result<f64> {
    Ok(values(x)?.iter().map(|v| v * v).sum::<f64>().sqrt())
}
