//! `PrefixEncoder`: images to prefixes `[B, K, D]`, a vision encoder and a stitch.

use crate::components::{self, Ready, ReadyStitch, in_section, prepare_decoder, prepare_encoder, prepare_stitch};
use crate::preprocessor::Preprocessor;
use crate::stitch_file::{StitchMetadata, features_text, prefix_text};
use crate::vision::VisionEncoder;
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use limber_config::Config;
use limber_core::registry::{PreparedDecoder, PreparedEncoder, Role};
use limber_core::{Mode, Registry, Stitch};

/// A vision encoder with the stitch that takes its features to a language model's width.
pub struct PrefixEncoder {
    vision: VisionEncoder,
    stitch: Box<dyn Stitch>,
    metadata: StitchMetadata,
}

/// A config's components, prepared and held against each other; no large weight is read yet.
pub(crate) struct Prepared {
    device: Device,
    encoder: Ready<PreparedEncoder>,
    stitch: ReadyStitch,
    pub(crate) decoder: Ready<PreparedDecoder>,
}

impl Prepared {
    pub(crate) fn new(config: &Config, registry: &Registry) -> Result<Self> {
        let device = components::device(config.device)?;
        let encoder = in_section(Role::Encoder, prepare_encoder(config, registry, &device))?;
        let decoder = in_section(Role::Decoder, prepare_decoder(config, registry, &device))?;
        let stitch = prepare_stitch(config, registry, &encoder.prepared, &decoder.prepared, &device);
        let stitch = in_section(Role::Stitch, stitch)?;
        Ok(Self { device, encoder, stitch, decoder })
    }

    /// Builds encoder and stitch, and hands back the decoder that they were held against.
    pub(crate) fn build(self, config: &Config) -> Result<(PrefixEncoder, Ready<PreparedDecoder>)> {
        let specs = self.encoder.prepared.spec;
        let vision = VisionEncoder::build(config, self.encoder, self.device)?;
        let (ready, metadata) = self.stitch;
        let (kind, fingerprint) = (vision.kind().to_string(), vision.fingerprint().to_string());
        if let Some(metadata) = metadata {
            metadata
                .check_fingerprint(&ready.weights.source().label(), &kind, &fingerprint)
                .context("section \"stitch\"")?;
        }
        let metadata = StitchMetadata {
            stitch: ready.prepared.kind.clone(),
            settings: ready.prepared.settings.to_string(),
            encoder: kind,
            features: features_text(specs.features),
            prefix: prefix_text(ready.prepared.spec),
            fingerprint,
        };
        let (stitch, _) = ready.build(Role::Stitch)?;
        Ok((PrefixEncoder { vision, stitch, metadata }, self.decoder))
    }
}

impl PrefixEncoder {
    /// Loads a config's encoder and stitch; of its decoder the sizes are read alone.
    ///
    /// # Errors
    /// An unknown kind or setting, components that do not fit each other, weights that are missing or unreadable.
    pub fn load(config: &Config, registry: &Registry) -> Result<Self> {
        Ok(Prepared::new(config, registry)?.build(config)?.0)
    }

    /// Forbids the network to the reading of images.
    pub fn offline(&mut self, offline: bool) {
        self.vision.offline(offline);
    }

    /// What images go through first.
    pub fn preprocessor(&self) -> &Preprocessor {
        self.vision.preprocessor()
    }

    /// The vision encoder.
    pub fn vision(&self) -> &VisionEncoder {
        &self.vision
    }

    /// The stitch.
    pub fn stitch(&self) -> &dyn Stitch {
        self.stitch.as_ref()
    }

    /// What a file of this stitch says of itself.
    pub fn stitch_metadata(&self) -> &StitchMetadata {
        &self.metadata
    }

    /// Features `[B, N, E]` to a prefix `[B, K, D]` f32, without dropout.
    ///
    /// # Errors
    /// What the stitch reports.
    pub fn prefix(&self, features: &Tensor) -> Result<Tensor> {
        Ok(self.stitch.project(features, Mode::Inference)?.detach())
    }

    /// The prefix `[K, D]` of every input (as [`Preprocessor::input`] gives them), `batch` of them at a time.
    ///
    /// # Errors
    /// What encoder and stitch report.
    pub fn prefixes(&self, inputs: &[Tensor], batch: usize) -> Result<Vec<Tensor>> {
        let mut all = Vec::with_capacity(inputs.len());
        for group in inputs.chunks(batch.max(1)) {
            let prefix = self.prefix(&self.vision.features(group)?)?; // [B, K, D]
            for row in 0..group.len() {
                all.push(prefix.get(row)?);
            }
        }
        Ok(all)
    }
}
