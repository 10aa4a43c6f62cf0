//! A toy encoder: one linear layer over four quarters of an image, and its lies.

use super::{caught, honest, parse};
use candle_core::{Result, Tensor};
use limber_core::encoder::check_pixels;
use limber_core::registry::{EncoderSpecs, Entry, Maker, Prepared};
use limber_core::{Encoder, FeatureKind, FeatureSpec, FrozenLinear, ImageSpec, Init, InputSpec};
use limber_kit::check_entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Lie {
    None,
    Width,
    LateSpec,
    Std,
    Crop,
    Graph,
    Batch,
    Draws,
    NotFinite,
    Constant,
    AnyShape,
    Panics,
    LooseSettings,
}

struct Toy {
    lie: Lie,
    layer: FrozenLinear,
    calls: AtomicUsize,
}

fn specs(lie: Lie) -> EncoderSpecs {
    let mut image = ImageSpec::clip(4);
    if lie == Lie::Std {
        image.std[1] = 0.0;
    }
    if lie == Lie::Crop {
        image.resize_to = Some(3);
    }
    let width = if lie == Lie::Width { 9 } else { 8 };
    EncoderSpecs {
        input: InputSpec::Image(image),
        features: FeatureSpec { tokens: 4, width, kind: FeatureKind::Patches },
    }
}

impl Encoder for Toy {
    fn spec(&self) -> EncoderSpecs {
        let mut spec = specs(self.lie);
        spec.features.tokens += usize::from(self.lie == Lie::LateSpec);
        spec
    }

    fn encode(&self, pixels: &Tensor) -> Result<Tensor> {
        if self.lie == Lie::AnyShape && pixels.dims() != [pixels.dims()[0], 3, 4, 4] {
            return Tensor::zeros((1, 4, 8), pixels.dtype(), pixels.device());
        }
        check_pixels(pixels, &self.input_spec())?;
        let b = pixels.dim(0)?;
        assert!(self.lie != Lie::Panics || b == 1, "batches are not my business");
        let pixels = if self.lie == Lie::Graph { pixels.clone() } else { pixels.detach() };
        let x = pixels.reshape((b, 4, 12))?;
        let y = self.layer.forward(&x)?;
        match self.lie {
            Lie::Batch => y.broadcast_sub(&y.mean_keepdim(0)?),
            Lie::Draws => y.affine(1.0, self.calls.fetch_add(1, Ordering::Relaxed) as f64),
            Lie::NotFinite => y.affine(f64::INFINITY, 0.0),
            Lie::Constant => y.ones_like(),
            _ => Ok(y),
        }
    }
}

pub(super) fn entry(lie: Lie) -> Entry {
    super::entry(Maker::Encoder(Arc::new(move |settings, _| {
        let settings = parse(settings, lie != Lie::LooseSettings)?;
        Ok(Prepared::new("toy", settings, specs(lie), move |weights| {
            let layer = weights.linear(12, 8, Init::normal(1.0), None)?;
            Ok(Box::new(Toy { lie, layer, calls: AtomicUsize::new(0) }) as Box<dyn Encoder>)
        }))
    })))
}

#[test]
fn an_honest_encoder_passes() {
    honest(&entry(Lie::None));
}

#[test]
fn every_lie_is_caught() {
    let check = |lie, name, reason| caught(&check_entry(&entry(lie)), name, reason);
    check(Lie::Width, "shape of the spec", "[1, 4, 8], the spec says [1, 4, 9]");
    check(Lie::LateSpec, "before and after", "tokens: 5");
    check(Lie::Std, "specs are sound", "not above 0");
    check(Lie::Crop, "specs are sound", "side 4 is cut out of an image resized to 3");
    check(Lie::Graph, "no graph", "record operations");
    check(Lie::Batch, "batch gives", "image 0 of 3");
    check(Lie::Draws, "same image", "second call");
    check(Lie::NotFinite, "shape of the spec", "not all finite");
    check(Lie::Constant, "depend on the image", "same features");
    check(Lie::AnyShape, "another shape", "[1, 3, 4, 5] was accepted");
    check(Lie::Panics, "batch gives", "panicked: batches are not my business");
    check(Lie::LooseSettings, "unknown setting", "no_such_key");
}
