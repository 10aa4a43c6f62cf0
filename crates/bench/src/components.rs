//! The components of a config as they are measured: encoder and stitch built, the decoder built anew for each type.

use super::work::{self, DecoderWork, Recorder};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};
use limber_config::{Config, Section};
use limber_core::random::RandomSource;
use limber_core::registry::{PreparedDecoder, Role, StitchContext};
use limber_core::{
    CacheType, Decoder, DecoderSpec, Encoder, FeatureKind, FeatureSpec, InputSpec, Registry, Stitch, WeightSource,
    WeightType, Weights,
};
use limber_pipeline::needs;
use limber_pipeline::{Preprocessor, device, in_section, open_weights};
use limber_weights::{WeightSpec, cache};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// Names under which decoders keep their number of layers.
const LAYERS: [&str; 2] = ["n_layer", "num_hidden_layers"];

/// What is measured.
pub struct Components {
    /// Reads pixels.
    pub(super) preprocessor: Preprocessor,
    /// Where everything runs.
    pub(super) device: Device,
    pub(super) input: InputSpec,
    pub(super) features: FeatureSpec,
    pub(super) encoder: Box<dyn Encoder>,
    /// Bytes and operations of encoding one image.
    pub(super) encoder_work: (u64, Option<u64>),
    pub(super) stitch: Box<dyn Stitch>,
    /// Bytes and operations of projecting one image's features.
    pub(super) stitch_work: (u64, u64),
    /// How keys and values are kept.
    pub(super) cache: CacheType,
    decoder: Source,
    registry: Registry,
}

/// A decoder that can be prepared again and again.
struct Source {
    kind: String,
    settings: Value,
    weights: Arc<dyn WeightSource>,
}

impl Components {
    /// Encoder and stitch of `config`; the decoder is prepared, and its weights are left alone.
    ///
    /// # Errors
    /// An unknown kind or setting, components that do not fit each other, weights that are missing or unreadable.
    pub fn load(config: &Config, registry: Registry) -> Result<Self> {
        let preprocessor = Preprocessor::load(config, &registry)?;
        let device = device(config.device)?;
        let open = |role: Role| {
            let section = config.section(role);
            in_section(role, open_weights(role, section, &registry, &config.folder))
        };
        let settings = |section: &Section| Value::from(section.settings.clone());

        let (entry, source) = open(Role::Decoder)?;
        let decoder = Source { kind: entry.kind.clone(), settings: settings(&config.decoder), weights: source };
        let spec = decoder.prepare(&registry)?.spec;

        let (entry, source) = open(Role::Encoder)?;
        let recorder = Arc::new(Recorder::new(source));
        let prepared = registry.encoder(&entry.kind, settings(&config.encoder), recorder.as_ref())?;
        let (kind, specs) = (prepared.kind.clone(), prepared.spec);
        let weights = Weights::new(recorder.clone(), device.clone(), config.encoder.dtype);
        let encoder = prepared.build(&weights).context("section \"encoder\"")?;
        let encoder_work = work::encoder(&kind, &recorder.asked(), &specs);

        let (entry, source) = open(Role::Stitch)?;
        let recorder = Arc::new(Recorder::new(source));
        let context = StitchContext {
            features: specs.features,
            encoder: &kind,
            width: spec.width,
            decoder: &decoder.kind,
            source: recorder.as_ref(),
        };
        let prepared = registry.stitch(&entry.kind, settings(&config.stitch), &context)?;
        let stitch =
            prepared.build(&Weights::new(recorder.clone(), device.clone(), None)).context("section \"stitch\"")?;
        let rows = if specs.features.kind == FeatureKind::Patches { specs.features.tokens } else { 1 };
        let stitch_work = work::stitch(&recorder.asked(), rows);
        Ok(Self {
            preprocessor,
            device,
            input: specs.input,
            features: specs.features,
            encoder,
            encoder_work,
            stitch,
            stitch_work,
            cache: config.generate.cache,
            decoder,
            registry,
        })
    }

    /// The decoder with its weights in `dtype`, or as they are stored.
    ///
    /// # Errors
    /// Weights that are missing or unreadable.
    pub(super) fn decoder(&self, dtype: Option<WeightType>) -> Result<Box<dyn Decoder>> {
        let prepared = self.decoder.prepare(&self.registry)?;
        prepared
            .build(&Weights::new(self.decoder.weights.clone(), self.device.clone(), dtype))
            .context("section \"decoder\"")
    }

    /// What the decoder reads and computes, found without reading its weights; its sizes.
    ///
    /// # Errors
    /// As [`Self::decoder`].
    pub(super) fn decoder_work(&self) -> Result<(DecoderWork, DecoderSpec)> {
        let prepared = self.decoder.prepare(&self.registry)?;
        let spec = prepared.spec.clone();
        let recorder = Arc::new(Recorder::blank(self.decoder.weights.clone()));
        prepared.build(&Weights::new(recorder.clone(), Device::Cpu, None)).context("section \"decoder\"")?;
        Ok((DecoderWork::new(recorder.asked(), &spec), spec))
    }

    /// A prompt `[1, K + ids, D]`: a prefix and words.
    pub(super) fn prompt(&self, decoder: &dyn Decoder, prefix: &Tensor, ids: &[u32]) -> Result<Tensor> {
        let ids = Tensor::new(ids, &self.device)?.unsqueeze(0)?;
        Ok(Tensor::cat(&[&prefix.to_dtype(DType::F32)?, &decoder.embed(&ids)?], 1)?)
    }
}

impl Source {
    fn prepare(&self, registry: &Registry) -> Result<PreparedDecoder> {
        in_section(Role::Decoder, registry.decoder(&self.kind, self.settings.clone(), self.weights.as_ref()))
    }
}

/// `config` with `layers` layers in its decoder and every weight drawn at random; sizes are those of the config's own
/// weights where they are here, else of its settings.
///
/// # Errors
/// No layers, a decoder that does not say how many it has, settings that do not fit.
pub fn reduced(config: &Config, registry: &Registry, layers: usize) -> Result<Config> {
    ensure!(layers > 0, "layers 0 is not allowed, it is 1 or above");
    let random: Arc<dyn WeightSource> = Arc::new(RandomSource::new(0));
    let mut out = config.clone();
    for (role, section, target) in
        [(Role::Encoder, &config.encoder, &mut out.encoder), (Role::Decoder, &config.decoder, &mut out.decoder)]
    {
        let context = || format!("section \"{role}\"");
        let (entry, source) = match is_here(section, config) {
            false if section.kind == "auto" => {
                bail!("{}: the kind is auto and the weights are not here; set the kind", context())
            }
            false => (registry.get(role, &section.kind).with_context(context)?, random.clone()),
            true => in_section(role, open_weights(role, section, registry, &config.folder))?,
        };
        if !entry.needs_weights {
            continue;
        }
        let settings = Value::from(section.settings.clone());
        let resolved = match role {
            Role::Encoder => registry.encoder(&entry.kind, settings, source.as_ref()).with_context(context)?.settings,
            _ => registry.decoder(&entry.kind, settings, source.as_ref()).with_context(context)?.settings,
        };
        (target.kind, target.weights) = (entry.kind.clone(), Some(WeightSpec::Random(0)));
        if let Value::Object(map) = resolved {
            target.settings = map;
        }
    }
    // A stitch takes its sizes from both sides.
    out.stitch.weights = Some(WeightSpec::Random(0));
    let kind = out.decoder.kind.clone();
    let settings = &mut out.decoder.settings;
    let Some(key) = LAYERS.into_iter().find(|key| settings.contains_key(*key)) else {
        bail!("the decoder {kind:?} has no setting of its layers; known are {}", LAYERS.join(" and "))
    };
    settings.insert(key.into(), layers.into());
    if let Some(Value::Array(types)) = settings.get_mut("layer_types") {
        types.truncate(layers);
    }
    Ok(out)
}

/// Whether the section's weights are here: not a file that is missing, nor on the hub and not yet in the cache.
fn is_here(section: &Section, config: &Config) -> bool {
    match &section.weights {
        Some(spec @ WeightSpec::Hub { .. }) => {
            cache::cache_folder().is_ok_and(|folder| cache::locate(spec, &needs::known_files(), &folder).is_ok())
        }
        Some(spec @ WeightSpec::Web(_)) => limber_weights::path_of(spec, &config.folder).is_some(),
        Some(WeightSpec::Local(path)) => config.resolve(path).exists() || Path::new(path).exists(),
        _ => true,
    }
}
