//! The functions of an encoder.

use crate::call::exported;
use crate::role::{self, Functions, Role};
use crate::tensor::{f32_tensor, fill};
use anyhow::{Context, Result, bail};
use candle_core::{Tensor, Var};
use limber_core::registry::{EncoderSpecs, Maker, PrepareFn};
use limber_core::{Encoder, FeatureKind, InputSpec, ResizeFilter, ResizeRule};
use limber_plugin_abi::*;

/// The table.
pub(crate) fn table() -> LimberEncoder {
    let Functions { prepare, build, release } = role::functions::<Encoders>();
    LimberEncoder {
        prepare: Some(prepare),
        build: Some(build),
        release: Some(release),
        encode: Some(encode),
        ..LimberEncoder::empty()
    }
}

struct Encoders;

impl Role for Encoders {
    type Built = dyn Encoder;
    type Spec = EncoderSpecs;
    type Answer = LimberEncoderSpec;

    fn maker(maker: &Maker) -> Option<&PrepareFn<EncoderSpecs, dyn Encoder>> {
        if let Maker::Encoder(prepare) = maker { Some(prepare) } else { None }
    }

    fn answer(specs: EncoderSpecs) -> Result<LimberEncoderSpec> {
        spec(specs)
    }
}

/// Specs as the host reads them.
fn spec(specs: EncoderSpecs) -> Result<LimberEncoderSpec> {
    let spec = LimberEncoderSpec {
        kind: match specs.features.kind {
            FeatureKind::Patches => LIMBER_FEATURES_PATCHES,
            FeatureKind::Pooled => LIMBER_FEATURES_POOLED,
        },
        tokens: specs.features.tokens as u64,
        width: specs.features.width as u64,
        ..LimberEncoderSpec::empty()
    };
    let InputSpec::Image(image) = specs.input else {
        return Ok(LimberEncoderSpec { input: LIMBER_INPUT_FEATURES, ..spec });
    };
    if !image.augment.is_none() {
        bail!("images varied at random cannot be asked for across the plugin ABI")
    }
    Ok(LimberEncoderSpec {
        input: LIMBER_INPUT_IMAGE,
        side: image.side as u64,
        resize_to: image.resize_to.unwrap_or(0) as u64,
        resize: match image.resize {
            ResizeRule::ShorterSideCrop => LIMBER_RESIZE_SHORTER_SIDE_CROP,
            ResizeRule::ShorterSideCropFloor => LIMBER_RESIZE_SHORTER_SIDE_CROP_FLOOR,
            ResizeRule::Squash => LIMBER_RESIZE_SQUASH,
        },
        filter: match image.filter {
            ResizeFilter::Bilinear => LIMBER_FILTER_BILINEAR,
            ResizeFilter::Bicubic => LIMBER_FILTER_BICUBIC,
        },
        mean: image.mean,
        std: image.std,
        ..spec
    })
}

exported! {
    fn encode(instance: *mut LimberInstance, call: *const LimberEncode) {
        let encoder = instance.cast::<Box<dyn Encoder>>().as_ref().context("the instance is null")?;
        let call = read(call)?;
        let input = f32_tensor(call.input, "the input")?;
        let input: Tensor = match call.flags & LIMBER_CALL_TRACKED {
            0 => input,
            _ => Var::from_tensor(&input)?.into_inner(),
        };
        let features = encoder.encode(&input)?;
        if features.track_op() {
            bail!("the features carry a graph; an encoder is frozen, and detaches what it gives")
        }
        fill(call.output, &features, "features")
    }
}
