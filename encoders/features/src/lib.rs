//! `features`: features `[B, N, E]` that were computed before; an "image" is a file of them.
//!
//! The identity encoders of LiMBeR: `clr_identity` (144 x 3072) and `nfresnet50_identity` (2 x 2048). Both go through
//! Linear(E, D) token by token. One token is one pooled vector, so a stitch may make several prefix tokens of it.

use anyhow::{Result, bail};
use candle_core::{DType, Tensor};
use limber_core::registry::EncoderSpecs;
use limber_core::{
    Component, Encoder, EncoderComponent, FeatureKind, FeatureSpec, InputSpec, WeightSource, Weights, register,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

register!(encoder, Features);

/// The settings: the sizes that every file has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Visual tokens N of an image.
    #[schemars(range(min = 1))]
    pub tokens: usize,
    /// Width E of a token.
    #[schemars(range(min = 1))]
    pub width: usize,
}

/// Hands on what was read.
pub struct Features {
    specs: EncoderSpecs,
}

impl Component for Features {
    type Config = Config;
    const KIND: &'static str = "features";
    const ABOUT: &'static str = "features computed before, from .npy, .npz or safetensors files in place of images";
    const FILES: &'static [&'static str] = &[];
    const NEEDS_WEIGHTS: bool = false;

    fn tiny() -> Config {
        Config { tokens: 4, width: 8 }
    }

    fn resolve(config: Config, _source: &dyn WeightSource) -> Result<Config> {
        let Config { tokens, width } = config;
        match tokens.checked_mul(width).and_then(|n| n.checked_mul(4)) {
            Some(bytes) if bytes > 0 && isize::try_from(bytes).is_ok() => Ok(config),
            _ => bail!("features: {tokens} tokens of width {width} are not allowed, each is at least 1"),
        }
    }
}

impl EncoderComponent for Features {
    fn specs(config: &Config) -> Result<EncoderSpecs> {
        let kind = if config.tokens == 1 { FeatureKind::Pooled } else { FeatureKind::Patches };
        let features = FeatureSpec { tokens: config.tokens, width: config.width, kind };
        Ok(EncoderSpecs { input: InputSpec::Features, features })
    }

    fn new(config: &Config, _weights: &Weights) -> Result<Self> {
        Ok(Self { specs: Self::specs(config)? })
    }
}

impl Encoder for Features {
    fn spec(&self) -> EncoderSpecs {
        self.specs
    }

    fn encode(&self, features: &Tensor) -> candle_core::Result<Tensor> {
        let FeatureSpec { tokens, width, .. } = self.specs.features;
        match features.dims() {
            [b, n, e] if *b > 0 && *n == tokens && *e == width => {}
            other => candle_core::bail!("features have shape {other:?}, expected [B, {tokens}, {width}]"),
        }
        features.to_dtype(DType::F32)?.contiguous().map(|x| x.detach())
    }
}
