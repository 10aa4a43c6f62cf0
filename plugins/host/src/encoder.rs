//! The encoder of a plugin.

use crate::component::{Component, Instance, function};
use crate::memory::{Output, with_slice, with_values};
use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use limber_core::encoder::check_pixels;
use limber_core::registry::{EncoderSpecs, Prepared, PreparedEncoder};
use limber_core::{
    Augment, Encoder, FeatureKind, FeatureSpec, ImageSpec, InputSpec, ResizeFilter, ResizeRule, WeightSource, Weights,
};
use limber_plugin_abi::*;
use serde_json::Value;
use std::sync::Arc;

/// Prepares an encoder: settings and specs, no weights.
pub(crate) fn prepare(
    component: &Arc<Component>,
    table: LimberEncoder,
    settings: Value,
    source: &dyn WeightSource,
) -> Result<PreparedEncoder> {
    let prepare = function!(table, prepare);
    let (settings, spec) = component.prepare_alone(settings, source, LimberEncoderSpec::empty(), prepare)?;
    let (component, specs, given) = (component.clone(), specs(component, &spec)?, settings.clone());
    Ok(Prepared::new(component.kind.clone(), settings, specs, move |weights: &Weights| {
        let instance = component.build_alone(&given, weights, function!(table, build), table.release)?;
        let device = weights.device().clone();
        Ok(Box::new(PluginEncoder { component, table, instance, specs, device }) as Box<dyn Encoder>)
    }))
}

/// A size that a spec names.
pub(crate) fn size(component: &Component, name: &str, value: u64) -> Result<usize> {
    match usize::try_from(value) {
        Ok(size) if size > 0 && size < 1 << 40 => Ok(size),
        _ => bail!("{}: its spec says {name} {value}, expected at least 1", component.label()),
    }
}

fn specs(component: &Component, spec: &LimberEncoderSpec) -> Result<EncoderSpecs> {
    let unknown = |what: &str, value: u32| anyhow::anyhow!("{}: its spec says {what} {value}", component.label());
    let kind = match spec.kind {
        LIMBER_FEATURES_PATCHES => FeatureKind::Patches,
        LIMBER_FEATURES_POOLED => FeatureKind::Pooled,
        other => return Err(unknown("kind", other)),
    };
    let features = FeatureSpec {
        tokens: size(component, "tokens", spec.tokens)?,
        width: size(component, "width", spec.width)?,
        kind,
    };
    let input = match spec.input {
        LIMBER_INPUT_FEATURES => InputSpec::Features,
        LIMBER_INPUT_IMAGE => InputSpec::Image(ImageSpec {
            side: size(component, "side", spec.side)?,
            resize: match spec.resize {
                LIMBER_RESIZE_SHORTER_SIDE_CROP => ResizeRule::ShorterSideCrop,
                LIMBER_RESIZE_SHORTER_SIDE_CROP_FLOOR => ResizeRule::ShorterSideCropFloor,
                LIMBER_RESIZE_SQUASH => ResizeRule::Squash,
                other => return Err(unknown("resize", other)),
            },
            resize_to: match spec.resize_to {
                0 => None,
                to => Some(size(component, "resize_to", to)?),
            },
            filter: match spec.filter {
                LIMBER_FILTER_BILINEAR => ResizeFilter::Bilinear,
                LIMBER_FILTER_BICUBIC => ResizeFilter::Bicubic,
                other => return Err(unknown("filter", other)),
            },
            mean: spec.mean,
            std: spec.std,
            augment: Augment::None,
        }),
        other => return Err(unknown("input", other)),
    };
    if let InputSpec::Image(image) = input {
        if image.resized() < image.side {
            bail!("{}: its spec cuts {} pixels out of {}", component.label(), image.side, image.resized())
        }
        let sound = image.mean.iter().all(|m| m.is_finite()) && image.std.iter().all(|d| d.is_finite() && *d > 0.0);
        if !sound {
            bail!("{}: its spec says mean {:?}, std {:?}", component.label(), image.mean, image.std)
        }
    }
    Ok(EncoderSpecs { input, features })
}

struct PluginEncoder {
    component: Arc<Component>,
    table: LimberEncoder,
    instance: Instance,
    specs: EncoderSpecs,
    device: Device,
}

impl Encoder for PluginEncoder {
    fn spec(&self) -> EncoderSpecs {
        self.specs
    }

    fn encode(&self, input: &Tensor) -> candle_core::Result<Tensor> {
        let FeatureSpec { tokens: n, width: e, .. } = self.specs.features;
        match self.specs.input {
            InputSpec::Image(_) => check_pixels(input, &self.specs.input)?,
            InputSpec::Features if matches!(input.dims(), [b, t, w] if *b > 0 && (*t, *w) == (n, e)) => {}
            InputSpec::Features => {
                candle_core::bail!("features have shape {:?}, expected [B, {n}, {e}]", input.dims())
            }
        }
        let flags = if input.track_op() { LIMBER_CALL_TRACKED } else { 0 };
        let mut output = Output::new(&[input.dim(0)?, n, e]);
        with_values(&input.detach(), |values| {
            with_slice(values, input.dims(), |input| {
                let view = output.view();
                let call = LimberEncode { flags, input, output: &view, ..LimberEncode::empty() };
                let (instance, _own) = self.instance.enter();
                let encode = function!(self.table, encode);
                // SAFETY: all arguments live beyond the call, the instance is built and not yet released.
                self.component.call("encode", |error| unsafe { encode(instance, &call, error) })
            })
            .map_err(candle_core::Error::msg)?;
            let output = output.tensor("features", &[values], &self.device);
            output.map_err(|message| candle_core::Error::msg(format!("{}: encode: {message}", self.component.label())))
        })
    }
}
