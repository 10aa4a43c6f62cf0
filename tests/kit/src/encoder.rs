//! The contract of `Encoder`.

use crate::lively;
use crate::report::Report;
use crate::settings;
use crate::values::{close, difference, has_shape, noise, refused, same};
use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor, Var};
use limber_core::registry::{Entry, Maker};
use limber_core::{Backend, Encoder, InputSpec};

/// Checks an encoder: specs, shapes, no graph, batch = singles, determinism, refusals.
pub fn check_encoder(entry: &Entry) -> Report {
    let mut report = Report::new(entry);
    let Maker::Encoder(prepare) = &entry.maker else {
        report.check("is an encoder", || anyhow::bail!("it is registered as {}", entry.maker.role()));
        return report;
    };
    let source = lively::lively(1);
    settings::check(&mut report, entry, |settings| prepare(settings, source.as_ref()));
    let build = || -> Result<_> {
        let prepared = prepare(entry.tiny.clone(), source.as_ref())?;
        Ok((prepared.spec, prepared.build(&lively::weights(1))?))
    };
    let Some((specs, encoder)) = report.get("builds from its tiny settings with random weights", build) else {
        return report;
    };
    let encoder: &dyn Encoder = encoder.as_ref();
    let (n, e) = (specs.features.tokens, specs.features.width);
    // One input's shape, and shapes that must be refused.
    let (shape, wrong) = match specs.input {
        InputSpec::Image(image) => {
            let s = image.side;
            (
                vec![3, s, s],
                vec![vec![1, 3, s, s + 1], vec![1, 3, s + 1, s + 1], vec![1, 1, s, s], vec![3, s, s], vec![0, 3, s, s]],
            )
        }
        InputSpec::Features => (vec![n, e], vec![vec![1, n, e + 1], vec![1, n + 1, e], vec![n, e], vec![0, n, e]]),
    };
    let pixels = |b: usize, seed| noise(&[&[b], shape.as_slice()].concat(), seed);

    report.check("specs are the same before and after the weights", || {
        let input = encoder.input_spec();
        ensure!(input == specs.input, "input spec {:?} became {input:?}", specs.input);
        let features = encoder.feature_spec();
        ensure!(features == specs.features, "feature spec {:?} became {features:?}", specs.features);
        Ok(())
    });
    report.check("input and feature specs are sound", || {
        ensure!(n > 0 && e > 0, "tokens {n}, width {e}: each is at least 1");
        let InputSpec::Image(image) = specs.input else { return Ok(()) };
        ensure!(image.side > 0, "side {}: it is at least 1", image.side);
        let (side, resized) = (image.side, image.resized());
        ensure!(resized >= side, "side {side} is cut out of an image resized to {resized}");
        ensure!(image.mean.iter().all(|m| m.is_finite()), "mean {:?} is not finite", image.mean);
        ensure!(image.std.iter().all(|d| d.is_finite() && *d > 0.0), "std {:?} is not above 0", image.std);
        Ok(())
    });
    report.check("features have the shape of the spec, f32 and finite", || {
        has_shape("features of one image", &encoder.encode(&pixels(1, 2)?)?, &[1, n, e])?;
        has_shape("features of three images", &encoder.encode(&pixels(3, 3)?)?, &[3, n, e])
    });
    report.check("features carry no graph", || {
        let pixels = Var::from_tensor(&pixels(1, 2)?)?;
        let features = encoder.encode(&pixels)?;
        ensure!(!features.track_op(), "features of a variable record operations");
        Ok(())
    });
    report.check("a batch gives what its images give alone", || {
        let pixels = pixels(3, 3)?;
        let batch = encoder.encode(&pixels)?;
        for row in 0..3 {
            let single = encoder.encode(&pixels.narrow(0, row, 1)?)?;
            close(&format!("image {row} of 3"), &batch.narrow(0, row, 1)?, &single)?;
        }
        Ok(())
    });
    report.check("the same image gives the same features, built again too", || {
        let pixels = pixels(2, 4)?;
        let first = encoder.encode(&pixels)?;
        same("second call", &first, &encoder.encode(&pixels)?)?;
        same("second build", &first, &build()?.1.encode(&pixels)?)
    });
    report.check("candle's operations give what the kernels give, as on an accelerator", || {
        let weights = lively::weights(1).with_backend(Backend::Candle);
        let candles = prepare(entry.tiny.clone(), source.as_ref())?.build(&weights)?;
        let pixels = pixels(2, 7)?;
        close("features", &candles.encode(&pixels)?, &encoder.encode(&pixels)?)
    });
    report.check("features depend on the image", || {
        let apart = difference(&encoder.encode(&pixels(1, 5)?)?, &encoder.encode(&pixels(1, 6)?)?)?;
        ensure!(apart > 0.0, "two images of noise give the same features");
        Ok(())
    });
    report.check("input of another shape is an error", || {
        for shape in &wrong {
            let pixels = Tensor::zeros(shape.as_slice(), DType::F32, &Device::Cpu)?;
            refused(&format!("shape {shape:?}"), encoder.encode(&pixels))?;
        }
        Ok(())
    });
    report
}
