//! `VisionEncoder`: images to features `[B, N, E]`, a preprocessor and a frozen encoder.

use crate::components::{self, Ready, in_section, prepare_encoder};
use crate::preprocessor::Preprocessor;
use crate::stitch_file::{fingerprint, preparation_fingerprint};
use anyhow::Result;
use candle_core::{Device, Tensor};
use limber_config::Config;
use limber_core::registry::{PreparedEncoder, Role};
use limber_core::{Encoder, FeatureSpec, Registry};
use limber_data::features::Expected;

/// A frozen encoder with the preparation of its images.
pub struct VisionEncoder {
    preprocessor: Preprocessor,
    encoder: Box<dyn Encoder>,
    kind: String,
    fingerprint: String,
    bytes: u64,
}

impl VisionEncoder {
    /// Loads a config's encoder.
    ///
    /// # Errors
    /// An unknown kind or setting, weights that are missing or unreadable.
    pub fn load(config: &Config, registry: &Registry) -> Result<Self> {
        let device = components::device(config.device)?;
        let ready = in_section(Role::Encoder, prepare_encoder(config, registry, &device))?;
        Self::build(config, ready, device)
    }

    pub(crate) fn build(config: &Config, ready: Ready<PreparedEncoder>, device: Device) -> Result<Self> {
        let prepared = &ready.prepared;
        let preprocessor = Preprocessor::new(config, prepared, device);
        let (kind, settings, specs) = (prepared.kind.clone(), prepared.settings.clone(), prepared.spec);
        let (encoder, weights) = ready.build(Role::Encoder)?;
        let fingerprint = fingerprint(&kind, &settings, &specs, &weights)?;
        Ok(Self { preprocessor, encoder, kind, fingerprint, bytes: weights.bytes() })
    }

    /// Bytes of the encoder's weights.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Forbids the network to the reading of images.
    pub fn offline(&mut self, offline: bool) {
        self.preprocessor.offline(offline);
    }

    /// What images go through first.
    pub fn preprocessor(&self) -> &Preprocessor {
        &self.preprocessor
    }

    /// The encoder.
    pub fn encoder(&self) -> &dyn Encoder {
        self.encoder.as_ref()
    }

    /// Its kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// A hash of the encoder's settings, weights and sizes.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Inputs, each as [`Preprocessor::input`] gives them, to features `[B, N, E]` f32. Features `[N, E]` that were
    /// computed before are put together as they are.
    ///
    /// # Errors
    /// What the encoder reports.
    pub fn features(&self, inputs: &[Tensor]) -> Result<Tensor> {
        let inputs = Tensor::stack(inputs, 0)?;
        let FeatureSpec { tokens, width, .. } = self.preprocessor.feature_spec();
        match inputs.dims() {
            [_, n, e] if (*n, *e) == (tokens, width) => Ok(inputs),
            _ => Ok(self.encoder.encode(&inputs)?),
        }
    }

    /// The encoder's kind, and a hash of all that decides the features of an image: settings, weights, preparation.
    pub fn features_fingerprint(&self) -> (String, String) {
        let Preprocessor { decode, order, augment, .. } = &self.preprocessor;
        let Some(spec) = self.preprocessor.input_spec().image() else {
            return (self.kind.clone(), self.fingerprint.clone());
        };
        let seed = augment.filter(|_| !spec.augment.is_none());
        let hash = preparation_fingerprint(&self.fingerprint, decode.exif_orientation, *order, seed);
        (self.kind.clone(), hash)
    }

    /// What features that were computed before must be, to stand in for this encoder's. An encoder of the kind
    /// `features` stands for whichever made them.
    pub fn expected_features(&self) -> Expected {
        let is_known = self.preprocessor.input_spec().image().is_some();
        Expected {
            features: self.preprocessor.feature_spec(),
            encoder: is_known.then(|| self.features_fingerprint()),
            device: self.preprocessor.device().clone(),
        }
    }
}
